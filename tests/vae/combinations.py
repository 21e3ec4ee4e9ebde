"""Every combination of a network's parts that the settings allow, and small batches to try them with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from configs.schema import ModelSettings
from tests.vae.conftest import make_normalisation, make_tiles
from vae.conditions import UNKNOWN, Conditions
from vae.networks import VAE, Draw, Given, build, given_of

TINY = {"width": 4, "depth": 2, "latent_channels": 4, "flow_steps": 3, "codes": 16}
TOLD = ((), ("season",), ("place", "reference"), (), ("sun", "sensor"), ("reference",), ("season", "place", "sun"))


def choices(name: str) -> tuple[str, ...]:
    """All that a setting of the model can be."""
    return get_args(ModelSettings.model_fields[name].annotation)


def structures() -> Iterator[ModelSettings]:
    """Every network with every latent that goes with it."""
    for network, latent, posterior in product(choices("network"), choices("latent"), choices("posterior")):
        try:
            yield ModelSettings(network=network, latent=latent, posterior=posterior, **TINY)
        except ValidationError:
            continue


def combinations() -> dict[str, ModelSettings]:
    """Every structure with every likelihood; skips and conditions go round, so that each meets most of the others."""
    found = {}
    for number, (made, likelihood) in enumerate(product(structures(), choices("likelihood"))):
        told = TOLD[number % len(TOLD)]
        settings = ModelSettings(
            **made.model_dump() | {"likelihood": likelihood, "skips": number % 5 == 3, "condition": told}
        )
        parts = [settings.network, settings.latent, settings.posterior, likelihood]
        found["-".join([*parts, *(["skips"] if settings.skips else []), *told])] = settings
    return found


COMBINATIONS = combinations()


def batch(
    count: int = 6, bands: int = 3, side: int = 16, seed: int = 0, masked: float = 0.2, filling: float = np.nan
) -> tuple[Tensor, Tensor]:
    """Normalised tiles and their masks; what is masked holds `filling`."""
    tiles = make_tiles(count, bands, side, seed, masked)
    values, valid = torch.from_numpy(tiles.values), torch.from_numpy(tiles.valid)
    x = make_normalisation(bands).apply(values, valid)
    return torch.where(valid[:, None], x, filling), valid


def conditions(
    settings: ModelSettings, count: int = 6, bands: int = 3, side: int = 16, seed: int = 0, filling: float = np.nan
) -> Conditions:
    """What the network is told of some tiles, the first of which nothing is known of."""
    draw = np.random.default_rng([seed, 3])
    reference = make_tiles(count, bands, side, seed + 100)
    known = reference.valid.copy()
    known[0] = False
    every = {
        "season": draw.random(count).astype(np.float32),
        "place": draw.integers(0, 5, count),
        "sun": (draw.random((count, 2)) * (60, 360)).astype(np.float32),
        "sensor": draw.integers(0, 2, count),
        "reference": np.where(known[:, None], reference.values, filling).astype(np.float32),
    }
    every["season"][0], every["place"][0], every["sun"][0], every["sensor"][0] = np.nan, UNKNOWN, np.nan, UNKNOWN
    told = {name: every[name] for name in settings.condition}
    return Conditions(**told, reference_valid=known if "reference" in told else None)


def given(settings: ModelSettings, count: int = 6, bands: int = 3, side: int = 16, **kwargs: float) -> Given | None:
    """The same as tensors; None when nothing is told."""
    if not settings.condition:
        return None
    told = conditions(settings, count, bands, side, **kwargs)
    return given_of(told, make_normalisation(bands), torch.device("cpu"))


def draws(seed: int = 0) -> Draw:
    """Standard normal numbers that depend on the seed, the number of the call and the tile, and on nothing else."""
    calls = 0

    def draw(shape: tuple[int, ...]) -> Tensor:
        nonlocal calls
        calls += 1
        each = [torch.Generator().manual_seed(seed * 1_000_003 + calls * 1009 + tile) for tile in range(shape[0])]
        return torch.stack([torch.randn(tuple(shape[1:]), generator=one) for one in each])

    return draw


def lively(settings: ModelSettings, bands: int = 3, seed: int = 0) -> VAE:
    """A network none of whose layers gives zero, as some do that have not learned anything yet."""
    network = build(bands, settings, seed)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=source)
    network.sigma.fill_(0.3)
    return network

"""Small tiles with structure: smooth fields, bands that go together, clouds that are masked; and what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from configs.schema import ModelSettings, ScoreSettings, TrainSettings
from vae.detector import Detector, NormalTiles
from vae.networks import VAE, build
from vae.normalisation import Normalisation
from vae.scores import SCORES
from vae.tiles import TileArrays
from vae.training import fit

PLAIN = tuple(name for name in sorted(SCORES) if "condition" not in SCORES[name].needs)
SMALL = {"width": 8, "depth": 2, "latent_channels": 4}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@dataclass(frozen=True)
class MadePast:
    """What the past of tiles lets expect."""

    values: np.ndarray
    valid: np.ndarray
    witness: np.ndarray | None = None
    witness_expected: np.ndarray | None = None
    witness_valid: np.ndarray | None = None

    def rows(self, rows) -> MadePast:
        return MadePast(*(None if part is None else part[rows] for part in vars(self).values()))


def make_tiles(count: int, bands: int = 3, side: int = 16, seed: int = 0, masked: float = 0.2) -> TileArrays:
    """Reflectance of smooth ground; masked pixels hold NaN."""
    draw = np.random.default_rng(seed)
    ground = gaussian_filter(draw.normal(size=(count, 2, side, side)), (0, 0, 3, 3)) * 6
    mixing = np.random.default_rng(1).normal(size=(bands, 2)) * 0.3
    values = np.exp(
        -2 + np.einsum("bk,nkhw->nbhw", mixing, ground) + 0.05 * draw.normal(size=(count, bands, side, side))
    )
    return clouded(values, draw, masked)


def make_past(tiles: TileArrays, seed: int = 0, masked: float = 0.1, witness: bool = True) -> MadePast:
    """Past of tiles on which nothing happened: the same ground, seen with other noise and under other clouds."""
    draw = np.random.default_rng([seed, 9])
    ground = np.where(np.isfinite(tiles.values), tiles.values, np.float32(0.13))

    def seen(noise: float, share: float) -> TileArrays:
        return clouded(ground * np.exp(noise * draw.normal(size=ground.shape)), draw, share)

    expected = seen(0.05, masked)
    if not witness:
        return MadePast(expected.values, expected.valid)
    other, other_expected = seen(0.07, masked), seen(0.05, masked / 2)
    both = other.valid & other_expected.valid
    return MadePast(expected.values, expected.valid, other.values, other_expected.values, both)


def clouded(values: np.ndarray, draw: np.random.Generator, share: float) -> TileArrays:
    """Some pixels masked, in patches."""
    cloud = gaussian_filter(draw.normal(size=(len(values), *values.shape[2:])), (0, 2, 2))
    valid = cloud <= np.quantile(cloud, 1 - share) if share else np.ones_like(cloud, dtype=bool)
    return TileArrays(np.where(valid[:, None], values, np.nan).astype(np.float32), valid)


def make_normalisation(bands: int = 3, log_offset: float = 0.0) -> Normalisation:
    limits = {f"B{band:02d}": (0.03, 0.6) for band in range(bands)}
    return Normalisation.from_limits(limits, log=True, clip=3.0, log_offset=log_offset)


def make_network(bands: int = 3, seed: int = 0) -> VAE:
    """An untrained one: files, masks and determinism do not depend on what the weights are."""
    network = build(bands, ModelSettings(**SMALL), seed)
    network.sigma.fill_(0.3)
    return network


@cache
def trained_network(seed: int = 0) -> VAE:
    """One that knows the tiles of `make_tiles`."""
    settings = TrainSettings(epochs=15, batch_size=16, device="cpu", learning_rate=5e-3)
    return fit(make_tiles(96, seed=1), None, make_normalisation(), ModelSettings(**SMALL), settings, seed).network


def normal_batches(count: int = 80, bands: int = 3, side: int = 16, seed: int = 7, past: bool = True):
    """Normal tiles, as `Detector.with_constants` takes them."""

    def batches() -> Iterator[NormalTiles]:
        tiles = make_tiles(count, bands, side, seed)
        before = make_past(tiles, seed) if past else None
        for start in range(0, count, 64):
            rows = slice(start, start + 64)
            yield NormalTiles(tiles.values[rows], tiles.valid[rows], before.rows(rows) if before else None)

    return batches


def make_detector(
    bands: int = 3,
    side: int = 16,
    seed: int = 0,
    members: int = 1,
    trained: bool = False,
    learn: bool = True,
    visible: tuple[int, ...] = (2, 1, 0),
    **settings,
) -> Detector:
    """A detector that has learned what its scores need, not calibrated."""
    make = trained_network if trained else lambda number: make_network(bands, number)
    detector = Detector(
        networks=tuple(make(seed + number) for number in range(members)),
        normalisation=make_normalisation(bands),
        model=ModelSettings(members=members, **SMALL),
        score_settings=ScoreSettings(**{"also": ()} | settings),
        tile_size=side,
        seed=seed,
        visible=visible,
    )
    return detector.with_constants(normal_batches(bands=bands, side=side)) if learn else detector


@pytest.fixture(scope="session")
def all_scores() -> Detector:
    """Of two trained networks, with every registered score but those of networks that are told something."""
    return make_detector(members=2, trained=True, also=PLAIN)


def judged_by(name: str) -> dict[str, str]:
    """Settings of a detector whose tiles with a past are judged by this score."""
    return {"name": name, "without_past": "reconstruction" if "past" in SCORES[name].needs else name}


def bytes_of(scored, rows=slice(None)) -> list[bytes]:
    """All that scoring gives for some tiles; a part that none of them has is left out."""
    parts = [scored.score, scored.heatmap, scored.latent, scored.valid_fraction, scored.bands]
    parts += [*scored.components.values()]
    parts += [part for _, part in sorted(scored.parts.items()) if np.isfinite(part[rows]).any()]
    return [np.ascontiguousarray(part[rows]).tobytes() for part in parts] + ["|".join(scored.kind[rows]).encode()]

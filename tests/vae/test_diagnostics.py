"""What is said of a network is true of it: known answers, the same answer twice, and nothing where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, TrainSettings
from tests.vae.conftest import SMALL, make_network, make_normalisation, make_tiles
from vae.conditions import Conditions
from vae.diagnostics import Diagnosis, diagnose
from vae.errors import ShapeError
from vae.networks import VAE, build
from vae.tiles import TileArrays
from vae.training import fit, prepare

TOLD = ("season", "place", "sun", "sensor", "reference")
LABELS = ("coast", "town")


def told(tiles: TileArrays) -> TileArrays:
    """The same tiles, with all that a network can be told."""
    count = len(tiles)
    conditions = Conditions(
        season=np.linspace(0, 0.9, count).astype(np.float32),
        place=np.arange(count) % 3,
        sun=np.tile(np.float32([35, 160]), (count, 1)),
        sensor=np.zeros(count, np.int64),
        reference=np.nan_to_num(tiles.values, nan=0.1),
        reference_valid=tiles.valid,
    )
    return TileArrays(tiles.values, tiles.valid, conditions)


def made(tiles: int = 24, seed: int = 0, network: VAE | None = None, **model: Any) -> Diagnosis:
    """Of an untrained network."""
    if network is None:
        network = build(3, ModelSettings(**SMALL | {"codes": 16} | model), 0)
        network.sigma.fill_(0.3)
    seen = make_tiles(tiles)
    labels = [LABELS[number % 2] for number in range(tiles)]
    return diagnose(network, told(seen) if "condition" in model else seen, make_normalisation(), seed, labels)


def arrays(thing: object) -> Iterator[np.ndarray]:
    """Every number and array in a diagnosis."""
    if is_dataclass(thing):
        for field in fields(thing):
            yield from arrays(getattr(thing, field.name))
    elif isinstance(thing, tuple):
        for part in thing:
            yield from arrays(part)
    elif isinstance(thing, (float, int, np.ndarray)):
        yield np.asarray(thing)


def same(one: Diagnosis, other: Diagnosis) -> bool:
    return [array.tobytes() for array in arrays(one)] == [array.tobytes() for array in arrays(other)]


@cache
def trained() -> tuple[VAE, TileArrays, list[str]]:
    """A network that knows dark and bright ground, tiles of both that it did not see, and which is which."""

    def seen(count: int, seed: int) -> TileArrays:
        tiles = make_tiles(count, seed=seed)
        factor = np.where(np.arange(count) % 2, 2.0, 0.5)[:, None, None, None]
        return TileArrays((tiles.values * factor).astype(np.float32), tiles.valid)

    settings = TrainSettings(epochs=15, batch_size=16, device="cpu", learning_rate=5e-3)
    network = fit(seen(96, 1), None, make_normalisation(), ModelSettings(**SMALL), settings, 0).network
    return network, seen(40, 2), ["dark", "bright"] * 20


@pytest.mark.parametrize("condition", [(), TOLD], ids=["told nothing", "told all"])
@pytest.mark.parametrize(
    "likelihood", ["gaussian", "gaussian_shared", "gaussian_learned", "heteroscedastic", "bernoulli", "student_t"]
)
@pytest.mark.parametrize(
    ("posterior", "latent"),
    [("gaussian", "map"), ("gaussian", "vector"), ("hierarchical", "map"), ("flow", "map"), ("flow", "vector"),
     ("quantised", "map")],
)  # fmt: skip
def test_every_network_can_be_diagnosed(
    posterior: str, latent: str, likelihood: str, condition: tuple[str, ...]
) -> None:
    found = made(tiles=8, posterior=posterior, latent=latent, likelihood=likelihood, condition=condition)

    assert all(np.isfinite(number) for number in found.numbers().values())
    assert found.pictures.reconstructed.shape == (6, 3, 16, 16)
    assert found.pictures.samples.shape == (8, 3, 16, 16)
    for pictures in (found.pictures.reconstructed, found.pictures.samples):
        assert np.isfinite(pictures).all()
    assert found.features.shape == found.sampled.shape
    levels = 2 if posterior == "hierarchical" else 1
    if posterior == "quantised":
        assert found.kl_channels is found.channels is found.bound is found.arithmetic is None
        assert found.interpolations == found.traversals == ()
        assert found.codes is not None
        assert "a quantised latent is one of 16 codes" in found.left_out[0]
        assert found.kl == pytest.approx(16 * math.log(16))
    else:
        assert found.left_out == ()
        assert found.kl_channels is not None
        assert found.kl_channels.shape == (levels, 4)
        assert found.kl_channels.sum() == pytest.approx(found.kl, rel=1e-5)
        assert [way.tiles.shape for way in found.interpolations] == [(7, 3, 16, 16)] * 3
        assert [way.tiles.shape for way in found.traversals] == [(7, 3, 16, 16)] * 4
        assert found.arithmetic is not None
        assert found.arithmetic.moved.shape == (4, 3, 16, 16)


def test_the_same_seed_gives_the_same_diagnosis_and_another_one_other_samples() -> None:
    assert same(made(), made())
    assert not np.array_equal(made().pictures.samples, made(seed=1).pictures.samples)
    assert np.array_equal(made().pictures.reconstructed, made(seed=1).pictures.reconstructed)


def test_a_diagnosis_leaves_network_mode_and_draws_as_they_were() -> None:
    network = make_network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made(network=network)

    assert torch.equal(torch.rand(3), expected)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(parameter.is_inference() for parameter in network.parameters())


def test_masked_pixels_change_nothing_but_the_picture_of_the_original() -> None:
    tiles, network = make_tiles(12), make_network()
    other = TileArrays(np.where(tiles.valid[:, None], tiles.values, np.float32(9)), tiles.valid)
    one, another = (diagnose(network, seen, make_normalisation(), 0) for seen in (tiles, other))

    assert one.numbers() == another.numbers()
    assert one.features.tobytes() == another.features.tobytes()
    assert one.pictures.reconstructed.tobytes() == another.pictures.reconstructed.tobytes()


def test_samples_are_encoded_under_the_masks_of_the_tiles() -> None:
    clear = make_tiles(8, masked=0)
    clouded = TileArrays(clear.values, make_tiles(8, masked=0.4).valid)
    one, other = (diagnose(make_network(), tiles, make_normalisation(), 0) for tiles in (clear, clouded))
    assert np.array_equal(one.pictures.samples, other.pictures.samples)
    assert not np.allclose(one.sampled, other.sampled)


def test_the_elbo_is_that_of_its_parts() -> None:
    tiles, network = make_tiles(30), make_network()
    found = diagnose(network, tiles, make_normalisation(), 0)
    dimensions = 3 * int(tiles.valid.sum())
    assert found.elbo == pytest.approx(-(found.reconstruction + found.kl) * 30 / dimensions, rel=1e-9)

    x, valid, _ = prepare(tiles, np.arange(30), make_normalisation(), torch.device("cpu"))
    kl = network(x, valid).kl.mean(dim=0)
    assert found.kl_channels is not None
    assert found.kl_channels[0] == pytest.approx(kl.detach().numpy(), rel=1e-5)


def silenced(network: VAE) -> VAE:
    """Its posterior is the prior, whatever it sees."""
    head = network.posterior.head
    assert isinstance(head, torch.nn.Conv2d)
    torch.nn.init.zeros_(head.weight)
    assert head.bias is not None
    torch.nn.init.zeros_(head.bias)
    return network


def test_a_collapsed_posterior_has_no_kl_and_no_active_channel_and_is_said_to_have_collapsed() -> None:
    found = made(network=silenced(make_network()))

    assert found.kl == 0
    assert found.channels is not None
    assert not found.channels.active.any()
    assert found.numbers()["active_channels"] == 0
    (warning,) = found.warnings
    assert warning.startswith("posterior collapse: 0 of 4 latent channels are active")
    assert found.channels.means.sum(axis=0)[24] == 24 * 16 * 4  # every mean is 0, in the bin that begins there
    assert (found.features == 0).all()
    assert found.discrepancy is not None
    assert found.discrepancy.squared == 0


def test_channels_that_the_tile_decides_are_active() -> None:
    network = silenced(make_network())
    head = network.posterior.head
    assert isinstance(head, torch.nn.Conv2d)
    torch.nn.init.normal_(head.weight[:1], std=2.0, generator=torch.Generator().manual_seed(0))
    found = made(network=network)

    assert found.channels is not None
    assert found.channels.active.tolist() == [True, False, False, False]
    assert found.kl_channels is not None
    assert (found.kl_channels[0] > 0).tolist() == [True, False, False, False]
    assert found.traversals[0].channel == 0
    assert found.warnings == ()


def test_what_differs_only_from_cell_to_cell_does_not_make_a_channel_active() -> None:
    tiles = make_tiles(1, masked=0)
    repeated = TileArrays(tiles.values.repeat(9, axis=0), tiles.valid.repeat(9, axis=0))
    found = diagnose(make_network(), repeated, make_normalisation(), 0)
    assert found.channels is not None
    assert found.channels.activity == pytest.approx(0, abs=1e-12)


def test_a_level_that_learned_nothing_is_named() -> None:
    assert made(posterior="hierarchical").warnings == (
        "level 2 of the latent is not in use: its KL is 0 nats a tile. Fewer model.levels do as well; "
        "train.free_bits makes it learn",
    )


def test_codes_that_collapsed_are_said_to_have() -> None:
    network = build(3, ModelSettings(**SMALL, posterior="quantised", codes=64), 0)
    head = network.posterior.head
    torch.nn.init.zeros_(head.weight)  # every cell wants the same code
    found = made(network=network)

    assert found.codes is not None
    assert (found.codes.used, found.codes.perplexity) == (1, pytest.approx(1))
    assert found.warnings[0].startswith("the codes have collapsed: 1 of 64 are used")


def test_the_importance_weighted_bound_lies_above_the_elbo_and_is_it_when_the_latent_is_not_looked_at() -> None:
    bound = made().bound
    assert bound is not None
    assert bound.importance > bound.elbo

    blind = silenced(make_network())
    torch.nn.init.zeros_(blind.decoder.entry.weight)
    unseen = made(network=blind)
    assert unseen.bound is not None
    assert unseen.bound.importance == pytest.approx(unseen.bound.elbo, rel=1e-5)
    assert unseen.bound.elbo == pytest.approx(unseen.elbo, rel=1e-5)


def test_ends_of_an_interpolation_and_what_is_reconstructed_are_the_same() -> None:
    found = made()
    for number, way in enumerate(found.interpolations):
        ends = way.tiles[[0, -1]]
        assert ends == pytest.approx(found.pictures.reconstructed[2 * number : 2 * number + 2], rel=1e-4)
        assert np.array_equal(way.ends, found.pictures.originals[2 * number : 2 * number + 2], equal_nan=True)


def test_dark_tiles_with_the_difference_to_bright_ones_are_bright() -> None:
    network, tiles, labels = trained()
    found = diagnose(network, tiles, make_normalisation(), 0, labels)

    moved = found.arithmetic
    assert moved is not None
    assert (moved.start, moved.goal) == ("bright", "dark")
    assert moved.moved.mean() < 0.7 * moved.reconstructed.mean()
    assert moved.reached > 0.9
    assert found.warnings == ()


def test_a_trained_network_reconstructs_what_it_sees_better_than_it_dreams() -> None:
    network, tiles, _ = trained()
    found = diagnose(network, tiles, make_normalisation(), 0)
    untrained = diagnose(make_network(), tiles, make_normalisation(), 0)

    assert found.elbo > untrained.elbo
    pictures = found.pictures
    away = np.abs(pictures.reconstructed - pictures.originals)[pictures.valid[:, None].repeat(3, axis=1)].mean()
    dreamt = np.abs(pictures.samples[:6] - pictures.originals)[pictures.valid[:, None].repeat(3, axis=1)].mean()
    assert away < 0.6 * dreamt


def test_without_two_groups_there_is_no_arithmetic_and_the_rest_stays() -> None:
    tiles, network = make_tiles(8), make_network()
    found = diagnose(network, tiles, make_normalisation(), 0, ["one"] * 8)
    assert found.arithmetic is None
    assert found.left_out == ("latent arithmetic: it needs two groups of 3 tiles or more",)


def test_skips_are_left_out_of_what_is_made_up_and_that_is_said() -> None:
    found = made(skips=True)
    assert found.left_out[0].startswith("skips: they hold what the encoder saw of a tile")


def test_many_tiles_are_thinned_evenly_and_tiles_without_a_pixel_left_out() -> None:
    tiles = make_tiles(300, masked=0)
    empty = tiles.valid.copy()
    empty[0] = False
    found = diagnose(
        make_network(), TileArrays(tiles.values, empty), make_normalisation(), 0, [str(n) for n in range(300)]
    )
    assert found.tiles == 255
    assert found.labels is not None
    assert (found.labels[0], found.labels[-1]) == ("1", "299")


def test_a_single_tile_will_do_for_what_needs_no_second() -> None:
    tiles = make_tiles(1)
    found = diagnose(make_network(), tiles, make_normalisation(), 0)
    assert found.discrepancy is found.frechet is None
    assert found.interpolations == ()
    assert found.left_out == ("MMD and Fréchet distance: they compare two tiles or more",)


def test_tiles_of_raw_integers_are_those_of_the_values_that_they_stand_for() -> None:
    numbers = np.random.default_rng(0).integers(200, 5000, (10, 3, 16, 16)).astype(np.uint16)
    scaling = np.tile([1e-4, -0.01], (10, 3, 1))
    valid = np.ones((10, 16, 16), bool)
    physical = TileArrays((numbers * 1e-4 - 0.01).astype(np.float32), valid)
    stored = TileArrays(numbers, valid, scaling=scaling)
    one, other = (diagnose(make_network(), tiles, make_normalisation(), 0) for tiles in (physical, stored))
    assert same(one, other)


def test_what_cannot_be_diagnosed_is_refused_in_words() -> None:
    tiles = make_tiles(4)
    with pytest.raises(ShapeError, match="3 labels do not fit 4 tiles"):
        diagnose(make_network(), tiles, make_normalisation(), 0, ["a"] * 3)
    with pytest.raises(ShapeError, match="held-out tiles with valid pixels, and there is none"):
        diagnose(make_network(), TileArrays(tiles.values, np.zeros_like(tiles.valid)), make_normalisation(), 0)

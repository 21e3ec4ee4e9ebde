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
from scipy.linalg import sqrtm

from configs.schema import ModelSettings, TrainSettings
from tests.vae.conftest import SMALL, make_network, make_normalisation, make_tiles
from vae.conditions import Conditions
from vae.diagnostics import Diagnosis, diagnose
from vae.diagnostics.channels import Codes
from vae.diagnostics.distances import frechet_distance, maximum_mean_discrepancy, principal_plane
from vae.diagnostics.walks import along, between, two_groups
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


# Distances


def test_the_frechet_distance_of_gaussians_with_one_basis_is_that_of_their_axes() -> None:
    axes = np.vstack([np.eye(3), -np.eye(3)]) * np.sqrt(3)  # mean 0; covariance 6/5 of the identity
    one, other = axes * [1, 2, 3], axes * [2, 2, 5] + [4, 0, 0]

    assert frechet_distance(one, other) == pytest.approx(16 + 6 / 5 * 3 * (1 + 0 + 4) / 3, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_other_gaussians_is_the_one_with_a_matrix_root() -> None:
    draw = np.random.default_rng(0)
    one, other = (
        draw.normal(size=(50, 4)) @ draw.normal(size=(4, 4)),
        draw.normal(size=(60, 4)) @ draw.normal(size=(4, 4)),
    )
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    shift = one.mean(axis=0) - other.mean(axis=0)
    expected = shift @ shift + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real)

    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_the_discrepancy_is_the_plain_double_sum() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(7, 3)), draw.normal(size=(9, 3)) + 0.5
    found = maximum_mean_discrepancy(one, other, draw)
    pooled = np.concatenate([one, other])
    assert found.bandwidth == pytest.approx(
        np.median([np.linalg.norm(a - b) for n, a in enumerate(pooled) for b in pooled[n + 1 :]])
    )

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-((a - b) ** 2).sum() / (2 * found.bandwidth**2))

    within = [
        sum(kernel(a, b) for n, a in enumerate(rows) for m, b in enumerate(rows) if n != m)
        / (len(rows) * (len(rows) - 1))
        for rows in (one, other)
    ]
    across = sum(kernel(a, b) for a in one for b in other) / (len(one) * len(other))
    assert found.squared == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_samples_of_one_distribution_are_zero_apart_on_average_and_pass_chance_once_in_twenty() -> None:
    found = []
    for number in range(200):
        draw = np.random.default_rng(number)
        found.append(maximum_mean_discrepancy(draw.normal(size=(20, 2)), draw.normal(size=(30, 2)), draw, 100))
    squared = np.array([one.squared for one in found])

    assert abs(squared.mean()) < 3 * squared.std() / math.sqrt(len(squared))
    assert 2 <= sum(one.squared > one.by_chance for one in found) <= 20


def test_samples_of_two_distributions_are_further_apart_than_by_chance() -> None:
    draw = np.random.default_rng(0)
    found = maximum_mean_discrepancy(draw.normal(size=(40, 2)), draw.normal(size=(40, 2)) + 1.5, draw)
    assert found.squared > 3 * found.by_chance > 0


def test_features_that_are_all_alike_are_no_distance_apart() -> None:
    same_features = np.ones((5, 3))
    assert maximum_mean_discrepancy(same_features, same_features, np.random.default_rng(0)).squared == 0
    assert frechet_distance(same_features, same_features) == 0


@pytest.mark.parametrize("other", [np.zeros((1, 2)), np.zeros((5, 3)), np.zeros(5)])
def test_samples_that_cannot_be_compared_are_refused(other: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="two rows or more"):
        frechet_distance(np.zeros((5, 2)), other)
    with pytest.raises(ShapeError, match="two rows or more"):
        maximum_mean_discrepancy(np.zeros((5, 2)), other, np.random.default_rng(0))


def test_principal_components_are_the_eigenvectors_of_the_covariance_with_a_sign_that_stays() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 4)) * [1, 4, 2, 0.5]
    found = principal_plane(rows)
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))

    for number in range(2):
        assert abs(found.axes[number] @ vectors[:, -1 - number]) == pytest.approx(1)
        assert found.explained[number] == pytest.approx(values[-1 - number] / values.sum())
        assert found.axes[number][np.abs(found.axes[number]).argmax()] > 0
    assert np.var(found.places, axis=0, ddof=1) == pytest.approx(values[:-3:-1])
    assert principal_plane(rows[::-1]).axes == pytest.approx(found.axes)


def test_a_single_feature_or_tile_leaves_a_coordinate_at_zero() -> None:
    assert (principal_plane(np.arange(4.0)[:, None]).places[:, 1] == 0).all()
    assert (principal_plane(np.ones((1, 3))).places == 0).all()


# Ways through the latent


def test_a_way_between_latents_turns_at_a_steady_pace_and_does_not_shrink() -> None:
    one, other = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    one[0, 0, 0, 0], other[0, 1, 0, 1] = 2.0, 4.0
    way = between(one, other, 5).flatten(1)

    assert torch.equal(way[0], one.flatten())
    assert torch.allclose(way[-1], other.flatten(), atol=1e-6)
    assert torch.allclose(way.norm(dim=1), torch.tensor([2.0, 2.5, 3.0, 3.5, 4.0]))
    angles = torch.arccos((way[:-1] * way[1:]).sum(1) / (way[:-1].norm(dim=1) * way[1:].norm(dim=1)))
    assert torch.allclose(angles, torch.full((4,), math.pi / 8), atol=1e-4)


@pytest.mark.parametrize("factor", [3.0, -1.0, 0.0])
def test_a_way_along_one_direction_or_through_the_origin_is_straight(factor: float) -> None:
    one = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    way = between(one, factor * one, 3)
    assert torch.allclose(way[1], (one + factor * one)[0] / 2, atol=1e-6)


def test_a_walk_along_a_channel_changes_nothing_else() -> None:
    latent = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    walk = along(latent, 1, (-1.0, 2.0))
    assert torch.equal(walk[:, 1], torch.tensor([-1.0, 2.0])[:, None, None].expand(2, 2, 2))
    assert torch.equal(walk[:, [0, 2]], latent[:, [0, 2]].expand(2, 2, 2, 2))


def test_the_two_largest_groups_are_compared() -> None:
    assert two_groups(["c"] * 4 + ["b"] * 5 + ["a"] * 3) == ("b", "c")
    assert two_groups(["a"] * 9 + ["b"] * 2) is None


# Codes


def test_codes_are_counted_and_their_perplexity_is_their_number_when_they_are_used_alike() -> None:
    book = np.random.default_rng(0).normal(size=(8, 3))
    chosen = np.moveaxis(book[[[0, 1], [2, 3]]][None].repeat(5, axis=0), -1, 1)  # (5, 3, 2, 2)
    found = Codes.of(chosen, 8)
    assert (found.known, found.used, found.cells) == (8, 4, 20)
    assert found.perplexity == pytest.approx(4)

    chosen[:, :, 0, 0] = chosen[:, :, 0, 1]
    assert Codes.of(chosen, 8).perplexity == pytest.approx(math.exp(1.5 * math.log(2)))


# Diagnoses


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

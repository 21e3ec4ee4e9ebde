"""Distances between samples, ways through the latent, and the use of codes, against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from vae.diagnostics.channels import Codes
from vae.diagnostics.distances import frechet_distance, maximum_mean_discrepancy, principal_plane
from vae.diagnostics.walks import along, between, two_groups
from vae.errors import ShapeError

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

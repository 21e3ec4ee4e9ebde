"""The nearest latents, streamed: the same as from all of them at once, whatever the order and the batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae.similarity import Nearest, Neighbour, NothingLearned, Spread, averaged

SHAPE = (3, 2, 2)


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, dict[str, float]]:
    """Distances of the tiles of some scenes, many of them alike."""
    some = st.integers(0, 6).map(float) | st.just(np.inf) | st.just(np.nan)
    names = st.sampled_from("abcdefgh")
    return draw(st.dictionaries(st.sampled_from([f"here/{day}" for day in range(9)]), st.dictionaries(names, some)))


def at_once(found: dict[str, dict[str, float]], count: int, each: int) -> list[Neighbour]:
    everything = sorted(Neighbour(d, scene, tile) for scene, tiles in found.items() for tile, d in tiles.items())
    seen: Counter[str] = Counter()
    kept = []
    for one in everything:
        seen[one.tile_id] += 1
        if seen[one.tile_id] <= each:
            kept.append(one)
    return kept[:count]


@given(found=scenes(), count=st.integers(1, 12), each=st.integers(1, 4), order=st.randoms(use_true_random=False))
def test_streamed_in_any_order_they_are_those_of_a_search_through_all(
    found: dict[str, dict[str, float]], count: int, each: int, order
) -> None:
    found = {scene: {tile: d for tile, d in tiles.items() if not np.isnan(d)} for scene, tiles in found.items()}
    nearest, names = Nearest(count, each), list(found)
    order.shuffle(names)
    for scene in names:
        tiles, distances = list(found[scene]), np.array(list(found[scene].values()))
        near = nearest.candidates(distances)
        nearest.add(distances[near].tolist(), scene, [tiles[index] for index in near])
        assert len(nearest.found) <= count

    assert nearest.found == at_once(found, count, each)


def test_what_is_no_number_is_never_near() -> None:
    assert Nearest(2).candidates(np.array([np.nan, 1.0])).tolist() == [1]


@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_the_spread_of_batches_is_that_of_all_at_once(seed: int, sizes: list[int]) -> None:
    draw = np.random.default_rng(seed)
    latents = (draw.normal(size=(sum(sizes), 12)) * 3 + 1000).astype(np.float32)
    parts = np.split(latents, np.cumsum(sizes)[:-1])

    spread = Spread.of(parts[0], SHAPE)
    for part in parts[1:]:
        spread = spread.merge(Spread.of(part, SHAPE))

    assert spread.means.count == len(latents)
    np.testing.assert_allclose(spread.cells.variance, latents.astype(float).var(axis=0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(spread.means.variance, averaged(latents, SHAPE).var(axis=0), rtol=1e-6, atol=1e-9)


def test_a_channel_that_is_not_in_use_does_not_count_and_the_others_count_alike() -> None:
    draw = np.random.default_rng(0)
    latents = draw.normal(size=(500, *SHAPE)) * np.array([1, 100, 0.001])[:, None, None]
    flat = latents.reshape(500, -1).astype(np.float32)

    metric = Spread.of(flat, SHAPE).metric()

    assert metric.active.tolist() == [True, True, False]
    distances = np.concatenate([metric.distances(flat, to) for to in metric.point(flat[:50])])
    assert np.sqrt(np.square(distances).mean()) == pytest.approx(np.sqrt(2), rel=0.05)
    noisy = flat.reshape(500, *SHAPE).copy()
    noisy[:, 2] = draw.normal(size=noisy[:, 2].shape)
    np.testing.assert_array_equal(
        metric.distances(noisy.reshape(500, -1), metric.point(flat[:1])[0]),
        metric.distances(flat, metric.point(flat[:1])[0]),
    )


def test_where_in_the_tile_it_lies_does_not_matter() -> None:
    latents = np.random.default_rng(1).normal(size=(100, *SHAPE)).astype(np.float32)
    moved = latents[:1, :, ::-1, ::-1]
    metric = Spread.of(latents.reshape(100, -1), SHAPE).metric()

    distances = metric.distances(moved.reshape(1, -1), metric.point(latents[:1].reshape(1, -1))[0])

    assert distances == pytest.approx(0, abs=1e-6)


def test_when_no_channel_is_in_use_there_is_nothing_to_compare_by() -> None:
    with pytest.raises(NothingLearned, match="none of the 3 latent channels is in use"):
        Spread.of(np.full((50, 12), 0.2, np.float32), SHAPE).metric()

"""Our methods in the benchmark: the product's detector, given no more than the others are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.expecting import expected
from benchmarks.ours import DEFAULT, MOST_TILES, Ours, methods, training_tiles
from benchmarks.problems.common import Pair, place_tiles
from benchmarks.problems.oscd import TEN
from tasks.metrics import auroc

SIDE = 128
EVENT = np.s_[40:72, 48:96]
RNG = np.random.default_rng


def pair(seed: int) -> Pair:
    """A place of four surfaces in two lights, with new ground of another kind in the middle of the later one."""
    draw = RNG(seed)
    ground = draw.integers(0, 4, (SIDE // 4, SIDE // 4)).repeat(4, axis=0).repeat(4, axis=1)
    surfaces = draw.uniform(0.05, 0.35, (10, 4))
    before = surfaces[:, ground] + draw.normal(0, 0.003, (10, SIDE, SIDE))
    after = 0.9 * before + 0.01 + draw.normal(0, 0.003, before.shape)
    truth = np.zeros((SIDE, SIDE), dtype=bool)
    truth[EVENT] = True
    after[:, EVENT[0], EVENT[1]] = draw.uniform(0.1, 0.3, (10, 1, 1)) + draw.normal(0, 0.03, (10, 32, 48))
    valid = np.ones_like(truth)
    valid[:10, :50] = False
    tiles = place_tiles(valid)
    positive = np.array([truth[row : row + 32, col : col + 32].mean() > 0.1 for row, col in tiles], dtype=float)
    images = (np.where(valid, image, np.nan).astype(np.float32) for image in (before, after))
    return Pair(f"place {seed}", *images, valid, TEN, truth, tiles, positive, "made")


@pytest.fixture(scope="module")
def places() -> list[Pair]:
    return [pair(seed) for seed in range(3)]


@pytest.mark.parametrize("name", ["change", "aligned_difference", "texture_difference"])
def test_an_event_is_found_without_a_network(places: list[Pair], name: str) -> None:
    method = Ours("ours", {name: "shown"})
    method.fit(places[1:])

    scores = method.scores(places[0])

    assert set(scores) == {"shown"}
    assert auroc(scores["shown"], places[0].positive) > 0.95
    assert method.parameters > 10


def test_neither_the_truth_nor_the_place_itself_is_learned_from(places: list[Pair]) -> None:
    found = []
    for train in (places[1:], [replace(one, truth=~one.truth, positive=1 - one.positive) for one in places[1:]]):
        method = Ours("ours", {"change": "shown"})
        method.fit(train)
        found.append(method.score(places[0]))

    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_every_score_that_is_shown_gives_a_number_for_every_tile(places: list[Pair]) -> None:
    single = [replace(one, before=None) for one in places]
    for pairs, given in ((True, places), (False, single)):
        shown: set[str] = set()
        for method in methods(pairs, quick=True):
            method.fit(given[1:])
            for name, scores in method.scores(given[0]).items():
                assert np.isfinite(scores).all(), name
                shown.add(name)
            assert method.uses_before == pairs
        assert DEFAULT[pairs] in shown


def test_training_tiles_do_not_overlap_and_are_of_both_dates(places: list[Pair]) -> None:
    values, valid = training_tiles(places)

    assert len(values) == len(valid) == min(2 * 3 * 16, MOST_TILES)
    assert len({tile.tobytes() for tile in values}) == len(values)


def test_what_is_expected_follows_the_light_and_not_the_event(places: list[Pair]) -> None:
    one = places[0]

    past = expected(one.after, one.valid, one.before[None], one.valid[None], one.bands)

    assert past is not None
    assert past.witness is None
    same = one.valid & ~one.truth
    assert np.abs(past.values - one.after)[:, same].mean() < 0.006
    assert np.abs(past.values - one.after)[:, one.truth].mean() > 0.03
    np.testing.assert_array_equal(past.valid, one.valid)


def test_the_witness_is_held_against_an_expectation_of_its_own(places: list[Pair]) -> None:
    one, newest = places[0], np.float32(0.5) * places[0].before

    past = expected(one.after, one.valid, one.before[None], one.valid[None], one.bands, (newest, one.valid))

    assert past is not None
    np.testing.assert_array_equal(past.witness, newest)
    assert np.abs(past.witness_expected - newest)[:, one.valid].mean() < 0.003
    np.testing.assert_array_equal(past.witness_valid, one.valid)


def test_nothing_is_expected_of_a_place_by_another(places: list[Pair]) -> None:
    one, other = places[:2]

    assert expected(one.after, one.valid, other.before[None], other.valid[None], one.bands) is None

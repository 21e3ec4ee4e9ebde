"""Band statistics can be computed piece by piece, merged in any order, and are those of the whole."""

from __future__ import annotations

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imagery.statistics import BandStats

# From the smallest reflectance one could want to the largest digital number, on either side of zero.
MAGNITUDES = st.floats(1e-5, 1e6)
NUMBERS = MAGNITUDES | MAGNITUDES.map(lambda x: -x) | st.just(0.0)
SAMPLES = arrays(np.float64, st.integers(1, 60), elements=NUMBERS)
PIECES = st.lists(arrays(np.float64, st.integers(0, 30), elements=NUMBERS), min_size=1, max_size=6)


def merge_all(stats: list[BandStats]) -> BandStats:
    return reduce(BandStats.merge, stats, BandStats())


def close(a: float, b: float, scale: float) -> bool:
    return abs(a - b) <= 1e-9 * max(scale, 1e-300)


@given(pieces=PIECES, order=st.randoms(use_true_random=False))
def test_pieces_merged_in_any_order_are_the_whole(pieces: list[np.ndarray], order) -> None:
    whole = np.concatenate(pieces)
    shuffled = list(pieces)
    order.shuffle(shuffled)

    merged = merge_all([BandStats.of(piece) for piece in shuffled])

    assert merged.count == whole.size
    if not whole.size:
        return
    size = float(np.abs(whole).max())
    assert close(merged.mean, whole.mean(), size)
    assert close(merged.m2, np.square(whole - whole.mean()).sum(), size**2 * whole.size)
    assert close(merged.std, whole.std(), size) or merged.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-7 * size)
    assert merged.minimum == whole.min()
    assert merged.maximum == whole.max()
    assert (merged.sketch == BandStats.of(whole).sketch).all()


@given(pieces=PIECES)
def test_merging_in_pairs_is_merging_in_a_row(pieces: list[np.ndarray]) -> None:
    stats = [BandStats.of(piece) for piece in pieces]
    half = len(stats) // 2

    pairwise = merge_all(stats[:half]).merge(merge_all(stats[half:]))
    in_a_row = merge_all(stats)

    assert pairwise.count == in_a_row.count
    assert (pairwise.sketch == in_a_row.sketch).all()
    size = max(abs(in_a_row.minimum), abs(in_a_row.maximum)) if in_a_row.count else 0.0
    assert close(pairwise.mean, in_a_row.mean, size)
    assert close(pairwise.m2, in_a_row.m2, size**2 * max(in_a_row.count, 1))


@settings(max_examples=300)
@given(values=SAMPLES, per_million=st.integers(0, 1_000_000))
def test_a_percentile_is_right_to_half_a_percent_of_its_value(values: np.ndarray, per_million: int) -> None:
    exact = np.sort(values)[per_million * (values.size - 1) // 1_000_000]

    found = BandStats.of(values).percentile(per_million / 10_000)

    assert found == pytest.approx(exact, rel=0.005 * (1 + 1e-9), abs=0)


@pytest.mark.parametrize("shift", [0.0, -0.5, -2.0], ids=["positive", "mixed", "negative"])
def test_percentiles_of_many_pixels_are_those_of_numpy(shift: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, 0.2, 50_000) + shift
    stats = merge_all([BandStats.of(piece) for piece in np.array_split(values, 7)])

    for percent in (0, 0.5, 2, 25, 50, 75, 98, 99.5, 100):
        # A pixel that is there: numpy would interpolate between two of them.
        exact = np.percentile(values, percent, method="lower")
        assert stats.percentile(percent) == pytest.approx(exact, rel=0.00501, abs=0), percent


def test_extremes_are_exact_at_both_ends_of_the_percentiles() -> None:
    values = np.array([-3.25, 0.1, 7.0])
    stats = BandStats.of(values)

    assert stats.percentile(0) == pytest.approx(-3.25, rel=0.005)
    assert stats.percentile(100) == pytest.approx(7.0, rel=0.005)
    assert BandStats.of([0.123]).percentile(50) == 0.123


def test_numbers_far_beyond_any_reflectance_are_counted_and_keep_their_extremes() -> None:
    stats = BandStats.of([-1e12, 1e-9, 0.0, 1e12])

    assert stats.sketch.sum() == stats.count == 4
    assert (stats.minimum, stats.maximum) == (-1e12, 1e12)
    assert stats.percentile(50) == pytest.approx(0.0, abs=1e-6)


def test_no_pixel_gives_no_number_and_changes_nothing() -> None:
    empty, some = BandStats.of(np.zeros((0, 5))), BandStats.of([1.0, 2.0])

    assert np.isnan(empty.std)
    assert np.isnan(empty.percentile(50))
    assert merge_all([]).count == 0
    for merged in (empty.merge(some), some.merge(empty)):
        assert (merged.count, merged.mean, merged.m2) == (some.count, some.mean, some.m2)


@given(values=arrays(np.float64, st.integers(0, 60), elements=NUMBERS))
def test_statistics_survive_the_way_through_json_exactly(values: np.ndarray) -> None:
    stats = BandStats.of(values)

    text = json.dumps(stats.to_record(), allow_nan=False)
    again = BandStats.from_record(json.loads(text))

    assert (again.count, again.mean, again.m2) == (stats.count, stats.mean, stats.m2)
    assert (again.minimum, again.maximum) == (stats.minimum, stats.maximum)
    assert (again.sketch == stats.sketch).all()


@given(values=SAMPLES)
def test_single_precision_pixels_are_summed_in_double(values: np.ndarray) -> None:
    single = values.astype(np.float32)

    assert BandStats.of(single).mean == pytest.approx(single.astype(np.float64).mean(), rel=1e-12)

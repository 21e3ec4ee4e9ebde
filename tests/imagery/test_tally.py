"""What is counted of a band in compiled code is what numpy finds in its valid pixels, tile by tile and all together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.masks import Cause
from imagery.statistics import BandStats, bucket_of
from imagery.tally import BucketTable, Tally, count_causes, joined, tally

DTYPES = ["uint8", "int16", "uint16", "int32", "float32"]
# Reflectance of Sentinel-2 before and after 2022, brightness of Landsat's thermal band, and numbers as they are.
SCALES = [(1e-4, 0.0), (1e-4, -0.1), (0.00341802, 149.0), (1.0, 0.0)]


def numbers_of(dtype: str, shape: tuple[int, int], seed: int, wide: bool) -> np.ndarray:
    """Numbers of one kind of ground, or over all that the type holds."""
    draw = np.random.default_rng(seed)
    if dtype == "float32":
        return (draw.normal(0.2, 0.1, shape) * (10 ** draw.uniform(-3, 5, shape) if wide else 1)).astype(dtype)
    limits = np.iinfo(dtype)
    least, most = max(limits.min, -900_000_000), min(limits.max, 900_000_000)  # beyond, percentiles are not exact
    if wide:
        return draw.integers(least, most, shape, dtype=dtype, endpoint=True)
    return draw.normal(0.3 * most, 0.01 * most, shape).astype(dtype)


def windows_of(height: int, width: int, size: int) -> np.ndarray:
    tops, lefts = np.arange(0, height, size), np.arange(0, width, size)
    return np.array([(top, left, min(size, height - top), min(size, width - left)) for top in tops for left in lefts])


def tally_of(numbers: np.ndarray, causes: np.ndarray, windows: np.ndarray, scaling: tuple[float, float]) -> Tally:
    valid = count_causes(causes, windows)[:, Cause.VALID]
    return tally(numbers, causes, windows, valid, BucketTable.of(numbers.dtype, *scaling))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Numbers, causes, the windows of tiles, and the scaling."""
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed = draw(st.integers(0, 10_000))
    numbers = numbers_of(draw(st.sampled_from(DTYPES)), shape, seed, draw(st.booleans()))
    share = draw(st.sampled_from([0.0, 0.3, 0.98, 1.0]))
    causes = np.where(np.random.default_rng(seed).random(shape) < share, Cause.CLOUD, Cause.VALID).astype(np.uint8)
    return numbers, causes, windows_of(*shape, draw(st.sampled_from([5, 8, 64]))), draw(st.sampled_from(SCALES))


@settings(max_examples=200, deadline=None)
@given(scene=scenes(), order=st.randoms(use_true_random=False))
def test_tiles_counted_and_joined_in_any_order_are_the_statistics_of_the_whole(scene: Any, order: Any) -> None:
    numbers, causes, windows, scaling = scene
    rows = [windows[windows[:, 0] == top] for top in np.unique(windows[:, 0])]
    order.shuffle(rows)

    stats = joined([tally_of(numbers, causes, row, scaling) for row in rows]).stats()

    expected = BandStats.of(numbers[causes == 0].astype(np.float64) * scaling[0] + scaling[1])
    assert (stats.count, stats.minimum, stats.maximum) == (expected.count, expected.minimum, expected.maximum)
    assert (stats.sketch == expected.sketch).all()
    if expected.count:
        size = max(abs(expected.minimum), abs(expected.maximum))
        assert abs(stats.mean - expected.mean) <= 1e-9 * size
        assert abs(stats.m2 - expected.m2) <= 1e-9 * size**2 * expected.count
        for percent in (0, 2, 50, 98, 100):
            assert stats.percentile(percent) == expected.percentile(percent)


@settings(max_examples=100, deadline=None)
@given(scene=scenes())
def test_each_tile_is_described_as_numpy_describes_its_valid_pixels(scene: Any) -> None:
    numbers, causes, windows, scaling = scene

    described = tally_of(numbers, causes, windows, scaling).described()

    assert described.dtype == np.float32
    for (top, left, height, width), row in zip(windows, described, strict=True):
        inside = np.s_[top : top + height, left : left + width]
        good = np.sort(numbers[inside][causes[inside] == 0].astype(np.float64) * scaling[0] + scaling[1])
        if not good.size:
            assert np.isnan(row).all()
            continue
        size = np.abs(good).max()
        np.testing.assert_allclose(row[:2], [good.mean(), good.std()], rtol=1e-6, atol=1e-7 * size)
        exact = [good[percent * (good.size - 1) // 100] for percent in (2, 98)]
        np.testing.assert_allclose(row[2:], exact, rtol=0.00501, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(scene=scenes(), seed=st.integers(0, 99))
def test_numbers_under_the_mask_are_never_looked_at(scene: Any, seed: int) -> None:
    numbers, causes, windows, scaling = scene
    other = numbers_of(str(numbers.dtype), numbers.shape, seed, wide=True)
    if numbers.dtype.kind == "f":
        other = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 0, 3e38], numbers.shape).astype("float32")
    changed = np.where(causes == 0, numbers, other)

    one, another = (tally_of(stored, causes, windows, scaling) for stored in (numbers, changed))

    np.testing.assert_array_equal(one.tiles, another.tiles)
    np.testing.assert_array_equal(one.sketch, another.sketch)


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint16", 0, 65535), ("int16", -32768, 32767), ("uint8", 0, 255)])
def test_the_largest_tile_of_the_most_different_numbers_is_summed_exactly(dtype: str, low: int, high: int) -> None:
    numbers = np.where(np.arange(512) % 2, low, high).astype(dtype) * np.ones((512, 1), dtype)

    stats = tally_of(numbers, np.zeros((512, 512), np.uint8), windows_of(512, 512, 512), (1.0, 0.0)).stats()

    assert stats.mean == (low + high) / 2
    assert stats.std == (high - low) / 2


@pytest.mark.parametrize("shift", [0.0, 1e4, 1e6])
def test_a_small_spread_around_a_large_number_does_not_cancel_out(shift: float) -> None:
    numbers = (np.random.default_rng(0).normal(0, 1, (512, 512)) + shift).astype(np.float32)

    stats = tally_of(numbers, np.zeros((512, 512), np.uint8), windows_of(512, 512, 512), (1.0, 0.0)).stats()

    assert stats.std == pytest.approx(numbers.astype(np.float64).std(), rel=1e-10)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), size=st.sampled_from([3, 8, 64]))
def test_every_cause_is_counted_in_every_tile(seed: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    causes = draw.integers(0, len(Cause), (draw.integers(1, 40), draw.integers(1, 40)), dtype=np.uint8)
    windows = windows_of(*causes.shape, size)

    counts = count_causes(causes, windows)

    for (top, left, height, width), row in zip(windows, counts, strict=True):
        inside = causes[top : top + height, left : left + width]
        np.testing.assert_array_equal(row, np.bincount(inside.ravel(), minlength=len(Cause)))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_the_table_of_buckets_holds_every_number_of_its_type(dtype: str) -> None:
    limits = np.iinfo(dtype)
    table = BucketTable.of(np.dtype(dtype), 1e-4, -0.1)

    numbers = np.arange(limits.min, limits.max + 1)
    assert table.buckets.size == numbers.size
    assert table.first == limits.min
    for number in (limits.min, -1, 0, 1, 1000, limits.max):
        if limits.min <= number <= limits.max:
            assert table.buckets[number - table.first] == bucket_of(number * 1e-4 - 0.1)

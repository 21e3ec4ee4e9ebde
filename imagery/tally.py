"""The one pass over the pixels of a scene: what is counted of them, tile by tile, in compiled code.

Everything that is known of a tile or a scene afterwards (mean, spread, percentiles, histogram) comes from these counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imagery.masks import Cause, Causes
from imagery.statistics import ALL_BUCKETS, BandStats, bucket_of, bucket_values, buckets_of

LOW, HIGH = 0.02, 0.98  # the percentiles of a tile that the catalog keeps
NUMBERS = 7  # columns of what is found of a tile: count, mean, m2, minimum, maximum, bucket of LOW, bucket of HIGH


@dataclass(frozen=True)
class Tally:
    """What was counted of one band in some tiles.

    Attributes:
        tiles: (N, NUMBERS) count, mean, m2, minimum, maximum, and the buckets of the LOW and HIGH percentiles of the
            valid pixels, physical units; NaN where a tile has none.
        sketch: (ALL_BUCKETS,) how many valid pixels of all tiles fall into each bucket.
    """

    tiles: NDArray[np.float64]
    sketch: NDArray[np.int64]

    def described(self) -> NDArray[np.float32]:
        """(N, 4) mean, standard deviation, LOW and HIGH percentile of each tile."""
        count, mean, m2, minimum, maximum, low, high = self.tiles.T
        percentiles = [np.clip(_value(buckets), minimum, maximum) for buckets in (low, high)]
        return np.stack([mean, np.sqrt(m2 / count), *percentiles], axis=1).astype(np.float32)

    def stats(self) -> BandStats:
        """Statistics of the valid pixels of all tiles together; tiles must not overlap."""
        count, mean, m2, minimum, maximum = self.tiles[self.tiles[:, 0] > 0, :5].T
        total = int(count.sum())
        if not total:
            return BandStats()
        centre = float((count * mean).sum() / total)
        spread = float((m2 + count * np.square(mean - centre)).sum())
        return BandStats(total, centre, spread, float(minimum.min()), float(maximum.max()), self.sketch)


@dataclass(frozen=True)
class BucketTable:
    """The bucket of every number that a band can store.

    Attributes:
        buckets: (65536,) uint16, or (0,) for types with too many numbers: then buckets are computed pixel by pixel.
        first: The stored number of the first entry.
        scale: Stored number × scale + offset = physical value.
        offset: See `scale`.
    """

    buckets: NDArray[np.uint16]
    first: int
    scale: float
    offset: float

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, dtype: np.dtype[Any], scale: float, offset: float) -> BucketTable:
        """The table for a type of stored number."""
        if dtype.kind not in "ui" or dtype.itemsize > 2:
            return cls(np.zeros(0, np.uint16), 0, scale, offset)
        limits = np.iinfo(dtype)
        physical = np.arange(limits.min, limits.max + 1, dtype=np.float64) * scale + offset
        return cls(buckets_of(physical).astype(np.uint16), int(limits.min), scale, offset)


def tally(
    stored: NDArray[Any],
    causes: Causes,
    windows: NDArray[np.int64],
    valid: NDArray[np.int64],
    table: BucketTable,
) -> Tally:
    """Count a band.

    Args:
        stored: (H, W) stored numbers.
        causes: (H, W) only pixels without a cause count.
        windows: (N, 4) row, column, height and width of each tile.
        valid: (N,) number of valid pixels of each tile.
        table: What stored numbers mean.
    """
    found, sketch = np.empty((len(windows), NUMBERS)), np.zeros(ALL_BUCKETS, np.int64)
    numbers, causes = np.ascontiguousarray(stored), np.ascontiguousarray(causes)
    zero = np.int64(0) if len(table.buckets) else np.float64(0)
    _tally(numbers, causes, windows, valid, table.buckets, table.first, table.scale, table.offset, zero, found, sketch)
    return Tally(found, sketch)


def joined(parts: list[Tally]) -> Tally:
    """Tallies of different tiles as one, in the order given."""
    return Tally(np.concatenate([part.tiles for part in parts]), np.sum([part.sketch for part in parts], axis=0))


def count_causes(causes: Causes, windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, len(Cause)) how many pixels of each tile have each cause."""
    counts = np.zeros((len(windows), len(Cause)), np.int64)
    _count_causes(np.ascontiguousarray(causes), windows, counts)
    return counts


def _value(buckets: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(buckets), np.nan, bucket_values(np.nan_to_num(buckets).astype(np.int64)))


# Compiled for whatever types it is called with, so that annotations would say nothing true.
@njit(nogil=True, cache=True)
def _tally(stored, causes, windows, valid, table, first, scale, offset, zero, found, sketch):  # type: ignore[no-untyped-def]
    local = np.zeros(sketch.size, np.uint32)
    size = windows[:, 2].max() * windows[:, 3].max()
    stop = 0
    while stop < len(windows):
        start, stop = stop, _end_of_row(windows, stop)
        numbers = np.empty((stop - start, size), stored.dtype)
        masked = np.empty((stop - start, size), causes.dtype)
        areas = windows[start:stop, 2] * windows[start:stop, 3]
        _gather(stored, windows[start:stop], numbers)
        if (valid[start:stop] < areas).any():
            _gather(causes, windows[start:stop], masked)
        else:
            masked[:] = 0
        for tile in range(start, stop):
            area = areas[tile - start]
            tile_numbers, tile_masked = numbers[tile - start, :area], masked[tile - start, :area]
            found[tile, 0] = valid[tile]
            _tally_tile(tile_numbers, tile_masked, table, first, scale, offset, zero, found[tile], local, sketch)


@njit(nogil=True, cache=True)
def _end_of_row(windows, start):  # type: ignore[no-untyped-def]
    """The end of the run of tiles of the same rows."""
    stop = start
    while stop < len(windows) and windows[stop, 0] == windows[start, 0] and windows[stop, 2] == windows[start, 2]:
        stop += 1
    return stop


@njit(nogil=True, cache=True)
def _gather(image, windows, tiles):  # type: ignore[no-untyped-def]
    """Copy a row of tiles so that each is contiguous, reading the image in the order of memory: this is what counts."""
    row, height = windows[0, 0], windows[0, 2]
    for r in range(height):
        for tile in range(len(windows)):
            col, width = windows[tile, 1], windows[tile, 3]
            for c in range(width):
                tiles[tile, r * width + c] = image[row + r, col + c]


@njit(nogil=True, cache=True)
def _tally_tile(numbers, masked, table, first, scale, offset, zero, found, local, sketch):  # type: ignore[no-untyped-def]
    count = np.int64(found[0])
    if count == 0:
        found[1:] = np.nan
        return
    pivot = numbers[_first_valid(masked)]
    total, squares, smallest, largest = _sums(numbers, masked, pivot, zero)
    found[1] = (np.float64(pivot) + total / count) * scale + offset
    found[2] = max(squares - total * total / count, 0.0) * scale * scale
    found[3] = np.float64(smallest) * scale + offset
    found[4] = np.float64(largest) * scale + offset
    if table.size:
        _look_up(numbers, masked, count == numbers.size, table, first, local)
        lowest, highest = np.int64(table[np.int64(smallest) - first]), np.int64(table[np.int64(largest) - first])
    else:
        _compute(numbers, masked, scale, offset, local)
        lowest, highest = np.int64(bucket_of(found[3])), np.int64(bucket_of(found[4]))
    _ranks(local, lowest, highest, count, found)
    for bucket in range(lowest, highest + 1):
        sketch[bucket] += local[bucket]
        local[bucket] = 0


@njit(nogil=True, cache=True)
def _first_valid(masked):  # type: ignore[no-untyped-def]
    for index in range(masked.size):
        if masked[index] == 0:
            return index
    return 0


@njit(nogil=True, cache=True)
def _sums(numbers, masked, pivot, zero):  # type: ignore[no-untyped-def]
    """Sums of deviations from a pixel of the tile, which stay exact where sums of squares would cancel; extremes.

    Masked pixels are taken for the pivot, which changes none of them: without a branch, the loop is vectorised. `zero`
    is of the type to sum in.
    """
    base = zero + pivot
    total, squares, smallest, largest = zero, zero, pivot, pivot
    for index in range(numbers.size):
        number = numbers[index] if masked[index] == 0 else pivot
        deviation = (zero + number) - base
        total += deviation
        squares += deviation * deviation
        smallest, largest = min(smallest, number), max(largest, number)
    return np.float64(total), np.float64(squares), smallest, largest


@njit(nogil=True, cache=True)
def _look_up(numbers, masked, all_valid, table, first, local):  # type: ignore[no-untyped-def]
    for index in range(numbers.size):
        if all_valid or masked[index] == 0:
            local[table[np.int64(numbers[index]) - first]] += np.uint32(1)


@njit(nogil=True, cache=True)
def _compute(numbers, masked, scale, offset, local):  # type: ignore[no-untyped-def]
    for index in range(numbers.size):
        if masked[index] == 0:
            local[bucket_of(np.float64(numbers[index]) * scale + offset)] += np.uint32(1)


@njit(nogil=True, cache=True)
def _ranks(local, lowest, highest, count, found):  # type: ignore[no-untyped-def]
    """The buckets of the pixels of two ranks, each sought from its own end."""
    low, high = np.int64(LOW * (count - 1) + 1e-9), np.int64(HIGH * (count - 1) + 1e-9)
    bucket, below = lowest, np.int64(local[lowest])
    while below <= low and bucket < highest:
        bucket += 1
        below += local[bucket]
    found[5] = bucket
    bucket, not_above = highest, count - np.int64(local[highest])
    while not_above > high and bucket > lowest:
        bucket -= 1
        not_above -= local[bucket]
    found[6] = bucket


@njit(nogil=True, cache=True)
def _count_causes(causes, windows, counts):  # type: ignore[no-untyped-def]
    for tile in range(windows.shape[0]):
        row, col, height, width = windows[tile]
        for r in range(row, row + height):
            for c in range(col, col + width):
                counts[tile, causes[r, c]] += 1

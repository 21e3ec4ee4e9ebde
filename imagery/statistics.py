"""Statistics of a band that can be computed piece by piece and merged in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

# Buckets of a DDSketch (Masson, Rim & Lee, VLDB 2019): bucket i holds values in (GROWTH**(i-1), GROWTH**i], so every
# quantile is right to ACCURACY of its value whatever the range, and sketches merge by adding counts.
ACCURACY = 0.005
GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
LOG_GROWTH = math.log(GROWTH)
SMALLEST, LARGEST = 1e-6, 1e9
FIRST = int(np.floor(np.log(SMALLEST) / LOG_GROWTH))
BUCKETS = int(np.ceil(np.log(LARGEST) / LOG_GROWTH)) - FIRST + 1
ALL_BUCKETS = 2 * BUCKETS + 1  # negative values (largest magnitude first), zero, positive values


@dataclass(frozen=True)
class BandStats:
    """Count, mean, spread, extremes and distribution of the valid pixels of a band.

    Attributes:
        count: Number of pixels.
        mean: Their mean.
        m2: Sum of their squared deviations from the mean.
        minimum: The smallest.
        maximum: The largest.
        sketch: (ALL_BUCKETS,) int64 counts by bucket.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    sketch: NDArray[np.int64] = field(default_factory=lambda: np.zeros(ALL_BUCKETS, np.int64), repr=False)

    @classmethod
    def of(cls, values: ArrayLike) -> BandStats:
        """Statistics of an array of valid numbers of any shape."""
        numbers = np.asarray(values, dtype=np.float64).ravel()
        if numbers.size == 0:
            return cls()
        mean = float(numbers.mean())
        squares = float(np.square(numbers - mean).sum())
        sketch = np.bincount(buckets_of(numbers), minlength=ALL_BUCKETS)
        return cls(numbers.size, mean, squares, float(numbers.min()), float(numbers.max()), sketch)

    @property
    def std(self) -> float:
        """Standard deviation (of the population)."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else float("nan")

    @property
    def negative_fraction(self) -> float:
        """Share of the pixels that are below zero; NaN when there are none."""
        return float(self.sketch[:BUCKETS].sum() / self.count) if self.count else float("nan")

    def merge(self, other: BandStats) -> BandStats:
        """Statistics of both together (Chan, Golub & LeVeque 1983)."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        difference = other.mean - self.mean
        return BandStats(
            count,
            self.mean + difference * other.count / count,
            self.m2 + other.m2 + difference**2 * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.sketch + other.sketch,
        )

    def percentile(self, percent: float) -> float:
        """The value below which `percent` % of the pixels lie, to 0.5 % of itself; NaN when there are none."""
        if not self.count:
            return float("nan")
        rank = math.floor(percent / 100 * (self.count - 1) + 1e-9)  # a pixel that is there, not one in between
        bucket = np.searchsorted(np.cumsum(self.sketch), rank, side="right")
        return float(np.clip(bucket_values(bucket), self.minimum, self.maximum))

    def to_record(self) -> dict[str, Any]:
        """As JSON: only the buckets that are not empty."""
        filled = np.flatnonzero(self.sketch)
        return {
            "count": self.count,
            "mean": self.mean,
            "m2": self.m2,
            "minimum": self.minimum if self.count else None,
            "maximum": self.maximum if self.count else None,
            "buckets": filled.tolist(),
            "counts": self.sketch[filled].tolist(),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> BandStats:
        """The inverse of `to_record`."""
        if not record["count"]:
            return cls()
        sketch = np.zeros(ALL_BUCKETS, np.int64)
        sketch[record["buckets"]] = record["counts"]
        return cls(record["count"], record["mean"], record["m2"], record["minimum"], record["maximum"], sketch)


def bucket_values(buckets: ArrayLike) -> NDArray[np.float64]:
    """The value that stands for each bucket: no value in it differs by more than ACCURACY of itself."""
    offset = np.asarray(buckets) - BUCKETS
    magnitude = 2 * GROWTH ** (np.abs(offset) - 1.0 + FIRST) / (1 + GROWTH)
    return np.where(offset == 0, 0.0, np.sign(offset) * magnitude)


@njit(cache=True)
def bucket_of(value: float) -> int:
    """The bucket of a value."""
    magnitude = abs(value)
    if magnitude < SMALLEST:
        return BUCKETS
    index = int(min(max(math.ceil(math.log(magnitude) / LOG_GROWTH) - FIRST + 1, 1), BUCKETS))
    return BUCKETS - index if value < 0 else BUCKETS + index


@njit(nogil=True, cache=True)
def buckets_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bucket of each of (N,) values."""
    buckets = np.empty(values.size, np.int64)
    for index in range(values.size):
        buckets[index] = bucket_of(values[index])
    return buckets

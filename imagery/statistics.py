"""Statistics of a band that can be computed piece by piece and merged in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Buckets of a DDSketch (Masson, Rim & Lee, VLDB 2019): bucket i holds values in (GROWTH**(i-1), GROWTH**i], so every
# quantile is right to ACCURACY of its value whatever the range, and sketches merge by adding counts.
ACCURACY = 0.005
GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
SMALLEST, LARGEST = 1e-6, 1e9
FIRST = int(np.floor(np.log(SMALLEST) / np.log(GROWTH)))
BUCKETS = int(np.ceil(np.log(LARGEST) / np.log(GROWTH))) - FIRST + 1


@dataclass(frozen=True)
class BandStats:
    """Count, mean, spread, extremes and distribution of the valid pixels of a band.

    Attributes:
        count: Number of pixels.
        mean: Their mean.
        m2: Sum of their squared deviations from the mean.
        minimum: The smallest.
        maximum: The largest.
        sketch: (2 · BUCKETS + 1,) int64 counts: negative values (largest magnitude first), zero, positive values.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    sketch: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BUCKETS + 1, np.int64), repr=False)

    @classmethod
    def of(cls, values: ArrayLike) -> BandStats:
        """Statistics of an array of valid numbers of any shape."""
        numbers = np.asarray(values, dtype=np.float64).ravel()
        if numbers.size == 0:
            return cls()
        mean = float(numbers.mean())
        sketch = np.bincount(_bucket(numbers), minlength=2 * BUCKETS + 1)
        squares = float(np.square(numbers - mean).sum())
        return cls(numbers.size, mean, squares, float(numbers.min()), float(numbers.max()), sketch)

    @property
    def std(self) -> float:
        """Standard deviation (of the population)."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else float("nan")

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
        bucket = int(np.searchsorted(np.cumsum(self.sketch), rank, side="right"))
        magnitude = 2 * GROWTH ** (abs(bucket - BUCKETS) - 1 + FIRST) / (1 + GROWTH)
        value = 0.0 if bucket == BUCKETS else np.sign(bucket - BUCKETS) * magnitude
        return float(np.clip(value, self.minimum, self.maximum))

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
        sketch = np.zeros(2 * BUCKETS + 1, np.int64)
        sketch[record["buckets"]] = record["counts"]
        return cls(record["count"], record["mean"], record["m2"], record["minimum"], record["maximum"], sketch)


def merge_all(stats: list[BandStats]) -> BandStats:
    """Statistics of all together, in the order given."""
    return reduce(BandStats.merge, stats, BandStats())


def _bucket(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bucket of each value."""
    magnitude = np.abs(values)
    tiny = magnitude < SMALLEST
    index = np.ceil(np.log(np.where(tiny, 1.0, magnitude)) / np.log(GROWTH)).astype(np.int64) - FIRST + 1
    index = np.where(tiny, 0, np.clip(index, 1, BUCKETS))
    return BUCKETS + np.where(values < 0, -index, index)

"""Bootstrap intervals: what a number might have been, had other groups been seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPETITIONS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number and where it may lie.

    Attributes:
        value: The number itself; NaN where it is not defined.
        low: Lower end of the bootstrap interval; NaN with fewer than two groups.
        high: Its upper end.
        groups: How many groups were drawn from.
        defined: Share of the repetitions in which the number was defined; the ends are those of these alone.
    """

    value: float
    low: float
    high: float
    groups: int = 0
    defined: float = 1.0

    @property
    def excludes_zero(self) -> bool:
        """True when zero lies outside: of a difference, that it is not by chance."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def draws(groups: int, repetitions: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of some groups is drawn, with replacement, repetition by repetition.

    Args:
        groups: How many there are; of fewer than two nothing is drawn.
        repetitions: How often they are drawn.
        seed: The same seed and number of groups give the same draws.
    """
    draw = np.random.default_rng(seed)
    for _ in range(repetitions if groups > 1 else 0):
        yield np.bincount(draw.integers(0, groups, groups), minlength=groups)


def percentile_interval(value: float, drawn: Iterable[float], groups: int, level: float = LEVEL) -> Interval:
    """A number with the percentiles of what it was in the draws (Efron & Tibshirani 1993, chapter 13).

    Args:
        value: The number of all groups.
        drawn: The number of each repetition, NaN where it was not defined.
        groups: How many groups there are.
        level: Coverage of the interval, 0–1.
    """
    found = np.array(list(drawn), dtype=float)
    defined = found[np.isfinite(found)]
    if not len(defined) or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"), groups, 0.0)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), groups, len(defined) / len(found))

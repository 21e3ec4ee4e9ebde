"""P-values smaller than calibration can count: peaks over a threshold.

Excesses over a high score follow a generalised Pareto distribution (Pickands 1975, Annals of Statistics 3), here those
of the score's logarithm. The parameters are those of probability-weighted moments (Hosking & Wallis 1987,
Technometrics 29), which exist for any sample. A shape below 0 would put an end to what is possible, beyond which
p-values are 0; it is not believed, and an exponential tail taken instead, which makes p-values larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vae.calibration.robust import LARGEST, SMALLEST, Floats
from vae.errors import CalibrationError

EXCESSES = 50  # fewest; and as many as the rate leaves beyond the threshold, when these are more
LEAST_TILES = 4 * EXCESSES
STEEPEST_SHAPE = 0.9  # beyond, the mean of the tail is hardly one
LEAST_SHAPE = 1e-6
LEAST_P = 1e-300  # never 0


@dataclass(frozen=True)
class ParetoTail:
    """Survival of scores beyond `start`.

    Attributes:
        start: The score that it begins at.
        share: p-value there.
        shape: 0 or more.
        scale: Of the excess of the logarithm.
    """

    start: float
    share: float
    shape: float
    scale: float

    @property
    def exponential(self) -> bool:
        """Whether the shape is too small to divide by."""
        return self.shape < LEAST_SHAPE

    def p_values(self, scores: Floats) -> Floats:
        """(N,) p-values of scores beyond the start, never 0; `share` for smaller ones."""
        beyond = np.log(np.clip(scores, self.start, LARGEST)) - math.log(self.start)
        if self.exponential:
            return np.maximum(self.share * np.exp(-beyond / self.scale), LEAST_P)
        decay = np.log1p(self.shape * beyond / self.scale) / self.shape
        p_values: Floats = np.maximum(self.share * np.exp(-decay), LEAST_P)
        return p_values

    def score_of(self, p_value: float) -> float:
        """The score with this p-value, which is smaller than `share`."""
        decay = math.log(self.share / p_value)
        beyond = self.scale * (decay if self.exponential else math.expm1(self.shape * decay) / self.shape)
        return min(self.start * math.exp(min(beyond, 600.0)), LARGEST)

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ParetoTail:
        """The inverse of `to_dict`."""
        return cls(**content)


def excesses_for(tiles: int, rate: float) -> int:
    """How many of the highest scores the tail is fitted to.

    Raises:
        CalibrationError: Too few tiles to tell a tail from the rest.
    """
    if tiles < LEAST_TILES:
        raise CalibrationError(
            f"calibration.tail: pareto needs {LEAST_TILES} calibration tiles, there are {tiles}: add calibration "
            "dates, or set calibration.tail to empirical"
        )
    return min(max(EXCESSES, int(rate * (tiles + 1))), tiles // 4)


def fit_tail(highest: Floats, start: float, share: float) -> ParetoTail:
    """Fit the tail.

    Args:
        highest: (M,) scores beyond the start.
        start: Where it begins.
        share: p-value there.
    """
    excess = np.sort(np.log(highest) - math.log(max(start, SMALLEST)))
    count = len(excess)
    mean = float(excess.mean())
    # Mean of excess · (1 - F), with plotting positions of Hosking & Wallis.
    weighted = float((excess * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean())
    if mean <= 0 or weighted <= 0:  # all the same: nothing beyond has been seen
        return ParetoTail(start, share, 0.0, max(mean, SMALLEST))
    ratio = mean / (mean - 2 * weighted) if mean > 2 * weighted else math.inf
    shape = 2 - ratio if math.isfinite(ratio) else -math.inf
    if shape <= 0:
        return ParetoTail(start, share, 0.0, mean)
    shape = min(shape, STEEPEST_SHAPE)
    return ParetoTail(start, share, shape, mean * (1 - shape))

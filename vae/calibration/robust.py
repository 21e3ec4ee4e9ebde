"""Medians, spreads and logarithms that a few odd numbers do not move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST, LARGEST = 1e-12, 1e300  # a score above its least value is kept within these, so that its logarithm exists
MAD_TO_STD = 1.4826  # of a normal distribution
# Variance of a median and of the logarithm of a median absolute deviation, n values of a normal distribution with
# variance 1, times n: pi / 2 and 1 / (2 · 0.367) (Rousseeuw & Croux 1993, Alternatives to the Median Absolute
# Deviation, JASA 88).
MEDIAN_VARIANCE, LOG_MAD_VARIANCE = 1.5708, 1.3608


def log_scores(scores: Floats, least: float) -> Floats:
    """Logarithm of how far scores lie above their least value; NaN stays NaN."""
    above: Floats = np.asarray(scores, dtype=np.float64) - least
    logarithms: Floats = np.log(np.clip(above, SMALLEST, LARGEST))
    return logarithms


def spread(values: Floats) -> float:
    """Standard deviation about the median, by the median absolute deviation; 0 for a single value."""
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values))))


def groups(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Where each label 0, 1, … stands, in their order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []

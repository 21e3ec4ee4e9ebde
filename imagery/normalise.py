"""Limits of each band, from the statistics of the training scenes: what maps physical values to [-1, 1]."""

from __future__ import annotations

import math

import numpy as np

from configs.schema import DARKEST, NormaliseSettings
from imagery.errors import ImageryError
from imagery.statistics import BandStats, bucket_values

DEVIATIONS = 2.0  # of `standard`: limits lie so many standard deviations from the mean


def band_limits(stats: dict[str, BandStats], settings: NormaliseSettings) -> dict[str, tuple[float, float]]:
    """The physical values of each band that become -1 and 1.

    Args:
        stats: Statistics of the training scenes, by band.
        settings: The method, and the bands that have a range of their own.

    Returns:
        (low, high) of each band, low < high.

    Raises:
        ImageryError: A band without a pixel, or one that is constant.
    """
    limits = {}
    for band, stat in stats.items():
        if not stat.count:
            raise ImageryError(f"band {band} has no usable pixel in the training scenes")
        low, high = settings.ranges.get(band) or _limits(stat, settings)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ImageryError(
                f"band {band} is constant or out of range in the training scenes (from {low:g} to {high:g}, "
                f"normalise.method={settings.method}): check source.scale and source.offset, or leave the band out"
            )
        limits[band] = (low, high)
    return limits


def _limits(stat: BandStats, settings: NormaliseSettings) -> tuple[float, float]:
    if settings.method == "range":
        return settings.range
    if settings.method == "percentile":  # the same before and after a logarithm
        low, high = (stat.percentile(percent) for percent in settings.percentiles)
        return low, high
    mean, spread = _log_moments(stat) if settings.log else (stat.mean, stat.std)
    low, high = mean - DEVIATIONS * spread, mean + DEVIATIONS * spread
    return (math.exp(low), math.exp(high)) if settings.log else (low, high)


def _log_moments(stat: BandStats) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of at least DARKEST, each right to the sketch's 0.5 %: 0.005."""
    filled = np.flatnonzero(stat.sketch)
    logs = np.log(np.maximum(bucket_values(filled), DARKEST))
    counts = stat.sketch[filled] / stat.count
    mean = float(counts @ logs)
    return mean, math.sqrt(float(counts @ np.square(logs - mean)))

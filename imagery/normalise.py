"""Limits of each band, from the statistics of the training scenes: what maps physical values to [-1, 1]."""

from __future__ import annotations

import math

from configs.schema import NormaliseSettings
from imagery.errors import ImageryError
from imagery.statistics import BandStats


def band_limits(stats: dict[str, BandStats], settings: NormaliseSettings) -> dict[str, tuple[float, float]]:
    """The physical values of each band that become -1 and 1.

    Args:
        stats: Statistics of the training scenes, by band.
        settings: The method.

    Returns:
        (low, high) of each band, low < high.

    Raises:
        ImageryError: A band without a pixel, or one that is constant.
    """
    limits = {}
    for band, stat in stats.items():
        if not stat.count:
            raise ImageryError(f"band {band} has no usable pixel in the training scenes")
        if settings.method == "percentile":
            low, high = (stat.percentile(percent) for percent in settings.percentiles)
        elif settings.method == "standard":
            low, high = stat.mean - 2 * stat.std, stat.mean + 2 * stat.std
        else:
            low, high = settings.range
        if not (math.isfinite(low) and low < high):
            raise ImageryError(
                f"band {band} is constant or out of range in the training scenes (from {low:g} to {high:g}, "
                f"normalise.method={settings.method}): check source.scale and source.offset, or leave the band out"
            )
        limits[band] = (low, high)
    return limits

"""Masks: why a pixel does not count. Each pixel has one cause, the first that applies; 0 is none."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from configs.schema import MaskSettings

Causes = NDArray[np.uint8]

# Landsat Collection 2, QA_PIXEL (USGS LSDS-1619 and LSDS-1328): position of each bit.
QUALITY_BITS = {"fill": 0, "dilated_cloud": 1, "cirrus": 2, "cloud": 3, "cloud_shadow": 4, "snow": 5, "water": 7}


class Cause(IntEnum):
    """Why a pixel does not count; 0 when it does."""

    VALID = 0
    NODATA = 1
    BORDER = 2
    CLOUD = 3
    SHADOW = 4
    SNOW = 5
    CLASS = 6
    DILATED = 7
    JUDGED = 8  # by people, who saw no normal ground there


# Without data, as opposed to data that does not count.
EMPTY = (Cause.NODATA, Cause.BORDER)
CLOUDY = (Cause.CLOUD, Cause.SHADOW, Cause.DILATED)
QUALITY_CAUSES = {
    "fill": Cause.NODATA,
    "dilated_cloud": Cause.DILATED,
    "cirrus": Cause.CLOUD,
    "cloud": Cause.CLOUD,
    "cloud_shadow": Cause.SHADOW,
    "snow": Cause.SNOW,
    "water": Cause.CLASS,
}


def of_classes(classes: NDArray[Any], masks: MaskSettings) -> Causes:
    """Causes by a scene classification.

    Args:
        classes: (H, W) class numbers.
        masks: Which classes are bad, and which of these are cloud, shadow or snow.
    """
    names = {
        **dict.fromkeys(masks.bad_classes, Cause.CLASS),
        **dict.fromkeys(set(masks.snow_classes) & set(masks.bad_classes), Cause.SNOW),
        **dict.fromkeys(set(masks.shadow_classes) & set(masks.bad_classes), Cause.SHADOW),
        **dict.fromkeys(set(masks.cloud_classes) & set(masks.bad_classes), Cause.CLOUD),
    }
    causes = np.zeros(classes.shape, np.uint8)
    for number, cause in names.items():
        causes[classes == number] = cause
    return causes


def of_quality_bits(bits: NDArray[Any], masks: MaskSettings) -> Causes:
    """Causes by Landsat's QA_PIXEL; cloud comes before its shadow, and both before what was grown around them.

    Args:
        bits: (H, W) unsigned 16-bit numbers.
        masks: Which bits are bad.
    """
    causes = np.zeros(bits.shape, np.uint8)
    bad = set(masks.bad_bits)
    for name in ("water", "dilated_cloud", "snow", "cloud_shadow", "cirrus", "cloud", "fill"):  # the last one stays
        if name in bad:
            causes[(bits & (1 << QUALITY_BITS[name])) != 0] = QUALITY_CAUSES[name]
    return causes


def of_cloud(cloud: NDArray[Any], masks: MaskSettings) -> Causes:
    """Causes by a cloud mask or a cloud probability, (H, W) stored numbers."""
    return np.where(cloud > masks.cloud_above, np.uint8(Cause.CLOUD), np.uint8(Cause.VALID))


def first(causes: Causes, others: Causes) -> Causes:
    """`causes`, and those of `others` where it has none."""
    return np.where(causes == Cause.VALID, others, causes)


def dilated(causes: Causes, metres: float, pixel: tuple[float, float]) -> Causes:
    """Cloud and shadow grown over valid pixels; what was grown already is not grown again.

    Args:
        causes: (H, W).
        metres: Pixels whose centres lie this close to a cloud's or shadow's are masked as well.
        pixel: (height, width) of a pixel, metres.
    """
    cloudy = np.isin(causes, (Cause.CLOUD, Cause.SHADOW))
    if metres <= 0 or not cloudy.any():
        return causes
    near = distance_transform_edt(~cloudy, sampling=pixel) <= metres
    return np.where((causes == Cause.VALID) & near, np.uint8(Cause.DILATED), causes)

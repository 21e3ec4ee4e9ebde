"""Small made grounds for injections: woods with a lake and a bare strip, in the bands of Sentinel-2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagery.bands import find_common, find_wavelengths

TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
KNOTS = (490, 560, 665, 704, 740, 842, 1610, 2190)
WOODS = (0.020, 0.040, 0.025, 0.070, 0.210, 0.300, 0.150, 0.070)
LAKE = (0.060, 0.050, 0.030, 0.022, 0.018, 0.012, 0.005, 0.003)
BARE = (0.080, 0.110, 0.140, 0.160, 0.180, 0.220, 0.300, 0.260)

Pair = tuple[NDArray[np.float32], NDArray[np.bool_]]


def tile(seed: int = 0, side: int = 48, lake: float = 0.3, bare: float = 0.1, bands: tuple[str, ...] = TEN) -> Pair:
    """(C, H, W) reflectance and (H, W) mask; a few pixels are not valid and NaN.

    Args:
        seed: Of the grain, and of what is not valid.
        side: Rows and columns.
        lake: Share of the rows that is water, from the top.
        bare: Share of the rows that is bare, from the bottom.
        bands: Names of the bands, of one sensor.
    """
    draw = np.random.default_rng(seed)
    centres = [find_wavelengths(bands)[band] for band in bands]
    row = np.arange(side) / side
    where = np.where(row < lake, 0, np.where(row >= 1 - bare, 2, 1))
    spectra = np.stack([np.interp(centres, KNOTS, spectrum) for spectrum in (LAKE, WOODS, BARE)])
    values = spectra[where].T[:, :, None] * (1 + 0.08 * draw.standard_normal((side, side)))
    valid = draw.random((side, side)) > 0.03
    values[:, ~valid] = np.nan
    return values.astype(np.float32), valid


def index(values: NDArray[np.float32], one: str, other: str, bands: tuple[str, ...] = TEN) -> NDArray[np.float32]:
    """(H, W) normalised difference of two bands by their common names."""
    common = find_common(bands)
    first, second = (values[bands.index(common[name])] for name in (one, other))
    return (first - second) / (first + second)

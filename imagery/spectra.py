"""What grounds and waters reflect over the spectrum: typical, rounded reflectances at the surface.

They set the demo's events and the injected ones. Their order of magnitude and shape are those of the ECOSTRESS spectral
library (Meerdink et al. 2019); none is a measurement of one place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Blue, green, red, near infrared and both short-wave infrared bands, nanometres.
KNOTS = (490, 560, 665, 842, 1610, 2190)
DEMO = 5  # the demo's landscape has the first five

CHARCOAL = (0.028, 0.033, 0.042, 0.070, 0.155, 0.165)
MUD_WATER = (0.066, 0.088, 0.088, 0.046, 0.018, 0.012)
CUT_SOIL = (0.068, 0.092, 0.122, 0.190, 0.275, 0.235)
DRY_SOIL = (0.110, 0.150, 0.200, 0.270, 0.350, 0.310)
YARD = (0.095, 0.108, 0.124, 0.160, 0.195, 0.185)
ROOF = (0.340, 0.350, 0.355, 0.365, 0.330, 0.300)
OLD_SNOW = (0.720, 0.710, 0.690, 0.600, 0.090, 0.080)
CLOUD = (0.620, 0.610, 0.600, 0.600, 0.480, 0.380)

# A film of oil smooths the waves, so less light is scattered back: a share of the water's own reflectance is lost. As
# an emulsion it shines in the infrared.
FILM_LOSS = (0.42, 0.36, 0.24, 0.0, 0.0, 0.0)
FILM_SHEEN = (0.0, 0.002, 0.005, 0.020, 0.012, 0.008)


def at(spectrum: Sequence[float], wavelengths: Sequence[int]) -> NDArray[np.float32]:
    """A spectrum where bands see it: linear between the knots, level beyond them.

    Args:
        spectrum: Reflectance at `KNOTS`.
        wavelengths: Centres of the bands, nanometres.

    Returns:
        (C,) reflectance.
    """
    return np.interp(wavelengths, KNOTS, spectrum).astype(np.float32)

"""What each kind of ground reflects, by day of the year.

A cover is a mixture of pure surfaces whose weights follow the calendar: a wheat field is soil, then green leaf, then
ripe straw, then stubble. Reflectances (0 to 1) are typical of Sentinel-2 surface reflectance in central Europe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from imagery.simulate.noise import FloatArray, stream

BANDS = ("B02", "B03", "B04", "B08", "B11")

SURFACES: dict[str, tuple[float, ...]] = {
    "soil": (0.072, 0.096, 0.125, 0.185, 0.275),
    "leaf": (0.031, 0.059, 0.036, 0.420, 0.178),
    "beet leaf": (0.030, 0.068, 0.030, 0.480, 0.165),
    "straw": (0.078, 0.118, 0.150, 0.290, 0.300),
    "stubble": (0.084, 0.116, 0.150, 0.245, 0.310),
    "rape flower": (0.045, 0.132, 0.130, 0.430, 0.190),
    "sun flower": (0.040, 0.088, 0.068, 0.440, 0.190),
    "grass": (0.036, 0.070, 0.045, 0.370, 0.205),
    "dry grass": (0.062, 0.090, 0.098, 0.270, 0.265),
    "broadleaf": (0.021, 0.042, 0.022, 0.385, 0.150),
    "autumn leaf": (0.030, 0.052, 0.064, 0.270, 0.170),
    "bare branches": (0.040, 0.050, 0.056, 0.165, 0.165),
    "needles": (0.018, 0.031, 0.020, 0.215, 0.088),
    "river": (0.042, 0.058, 0.046, 0.022, 0.010),
    "lake": (0.026, 0.034, 0.021, 0.012, 0.006),
    "sea": (0.036, 0.033, 0.017, 0.009, 0.005),
    "sand": (0.150, 0.190, 0.230, 0.300, 0.350),
    "gravel": (0.110, 0.130, 0.152, 0.200, 0.245),
    "asphalt": (0.078, 0.084, 0.090, 0.112, 0.130),
    "concrete": (0.165, 0.182, 0.198, 0.235, 0.255),
    "tile roof": (0.080, 0.102, 0.152, 0.205, 0.240),
    "grey roof": (0.115, 0.122, 0.130, 0.158, 0.180),
    "bright roof": (0.270, 0.285, 0.295, 0.315, 0.300),
}

_GREEN = {"leaf", "beet leaf", "grass", "broadleaf", "needles", "rape flower", "sun flower"}
_YEAR = 365.0


@dataclass(frozen=True)
class Cover:
    """A kind of ground.

    Attributes:
        days: Days of the year at which the mixture is known; between them it is interpolated, over New Year as well.
        mixture: Weight of each surface at those days; the weights of one day sum to 1.
        patchiness: How strongly green cover varies within one parcel.
        texture: Standard deviation of the fine brightness pattern, as a share of the reflectance.
    """

    days: tuple[float, ...]
    mixture: dict[str, tuple[float, ...]]
    patchiness: float = 0.0
    texture: float = 0.02


def _always(surface: str, texture: float = 0.03) -> Cover:
    return Cover((1,), {surface: (1.0,)}, texture=texture)


COVERS: dict[str, Cover] = {
    "wheat": Cover(
        (20, 75, 115, 150, 168, 186, 200, 215, 258, 285, 318),
        {
            "soil": (0.60, 0.45, 0.12, 0.06, 0.06, 0.06, 0.10, 0.20, 0.70, 0.97, 0.75),
            "leaf": (0.40, 0.55, 0.88, 0.92, 0.66, 0.10, 0.03, 0.05, 0.10, 0.03, 0.25),
            "straw": (0.0, 0.0, 0.0, 0.02, 0.28, 0.84, 0.45, 0.0, 0.0, 0.0, 0.0),
            "stubble": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.42, 0.75, 0.20, 0.0, 0.0),
        },
        patchiness=0.13,
    ),
    "barley": Cover(
        (20, 75, 110, 140, 156, 172, 186, 202, 250, 280, 315),
        {
            "soil": (0.58, 0.42, 0.12, 0.06, 0.06, 0.06, 0.10, 0.18, 0.62, 0.97, 0.72),
            "leaf": (0.42, 0.58, 0.88, 0.92, 0.64, 0.10, 0.04, 0.10, 0.20, 0.03, 0.28),
            "straw": (0.0, 0.0, 0.0, 0.02, 0.30, 0.84, 0.44, 0.0, 0.0, 0.0, 0.0),
            "stubble": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.42, 0.72, 0.18, 0.0, 0.0),
        },
        patchiness=0.13,
    ),
    "rapeseed": Cover(
        (20, 75, 100, 112, 124, 140, 170, 190, 205, 240, 275, 310),
        {
            "soil": (0.45, 0.28, 0.10, 0.05, 0.05, 0.06, 0.08, 0.08, 0.20, 0.60, 0.65, 0.45),
            "leaf": (0.55, 0.72, 0.85, 0.25, 0.15, 0.88, 0.72, 0.22, 0.05, 0.22, 0.35, 0.55),
            "rape flower": (0.0, 0.0, 0.05, 0.70, 0.80, 0.06, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            "straw": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.20, 0.70, 0.30, 0.0, 0.0, 0.0),
            "stubble": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.45, 0.18, 0.0, 0.0),
        },
        patchiness=0.10,
    ),
    "maize": Cover(
        (1, 110, 140, 162, 185, 200, 235, 262, 280, 295, 320),
        {
            "soil": (0.88, 0.97, 0.93, 0.55, 0.15, 0.07, 0.07, 0.12, 0.30, 0.55, 0.80),
            "leaf": (0.02, 0.03, 0.07, 0.45, 0.85, 0.93, 0.90, 0.48, 0.10, 0.02, 0.02),
            "straw": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.40, 0.40, 0.03, 0.0),
            "stubble": (0.10, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.20, 0.40, 0.18),
        },
        patchiness=0.14,
    ),
    "sunflower": Cover(
        (1, 105, 135, 158, 180, 192, 206, 225, 255, 275, 300),
        {
            "soil": (0.92, 0.97, 0.90, 0.50, 0.16, 0.10, 0.10, 0.12, 0.25, 0.70, 0.90),
            "leaf": (0.02, 0.03, 0.10, 0.50, 0.84, 0.60, 0.50, 0.80, 0.30, 0.03, 0.02),
            "sun flower": (0.0, 0.0, 0.0, 0.0, 0.0, 0.30, 0.40, 0.04, 0.0, 0.0, 0.0),
            "straw": (0.06, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.04, 0.45, 0.27, 0.08),
        },
        patchiness=0.12,
    ),
    "sugar beet": Cover(
        (1, 95, 130, 155, 178, 215, 265, 285, 305),
        {
            "soil": (0.94, 0.97, 0.88, 0.45, 0.08, 0.04, 0.10, 0.55, 0.92),
            "beet leaf": (0.06, 0.03, 0.12, 0.55, 0.92, 0.96, 0.90, 0.45, 0.08),
        },
        patchiness=0.08,
    ),
    "meadow": Cover(
        (15, 75, 110, 145, 185, 225, 265, 305, 340),
        {
            "soil": (0.12, 0.10, 0.05, 0.03, 0.04, 0.06, 0.05, 0.07, 0.10),
            "grass": (0.48, 0.55, 0.85, 0.92, 0.78, 0.66, 0.76, 0.70, 0.55),
            "dry grass": (0.40, 0.35, 0.10, 0.05, 0.18, 0.28, 0.19, 0.23, 0.35),
        },
        patchiness=0.12,
        texture=0.035,
    ),
    "heath": Cover(
        (15, 80, 130, 190, 235, 280, 330),
        {
            "bare branches": (0.25, 0.22, 0.15, 0.12, 0.15, 0.20, 0.25),
            "grass": (0.25, 0.32, 0.60, 0.52, 0.42, 0.40, 0.28),
            "dry grass": (0.50, 0.46, 0.25, 0.36, 0.43, 0.40, 0.47),
        },
        patchiness=0.16,
        texture=0.06,
    ),
    "deciduous": Cover(
        (20, 92, 112, 130, 160, 225, 262, 288, 306, 322),
        {
            "bare branches": (0.93, 0.90, 0.60, 0.12, 0.02, 0.02, 0.06, 0.22, 0.60, 0.90),
            "broadleaf": (0.03, 0.06, 0.38, 0.87, 0.98, 0.96, 0.80, 0.28, 0.05, 0.03),
            "autumn leaf": (0.04, 0.04, 0.02, 0.01, 0.0, 0.02, 0.14, 0.50, 0.35, 0.07),
        },
        patchiness=0.03,
        texture=0.10,
    ),
    "conifer": Cover(
        (20, 140, 180, 320),
        {"needles": (0.92, 0.90, 0.93, 0.93), "broadleaf": (0.02, 0.07, 0.06, 0.02), "soil": (0.06, 0.03, 0.01, 0.05)},
        texture=0.12,
    ),
    "river": _always("river", 0.01),
    "lake": _always("lake", 0.01),
    "sea": _always("sea", 0.01),
    "beach": _always("sand", 0.05),
    "gravel": _always("gravel", 0.05),
    "asphalt": _always("asphalt"),
    "concrete": _always("concrete", 0.05),
    "tile roof": _always("tile roof", 0.08),
    "grey roof": _always("grey roof", 0.08),
    "bright roof": _always("bright roof", 0.06),
}

NAMES = tuple(COVERS)
CROPS = ("wheat", "barley", "rapeseed", "maize", "sunflower", "sugar beet")
FOREST = ("deciduous", "conifer")
WATER = ("river", "lake", "sea")


def codes(*names: str) -> list[int]:
    """Numbers of covers, as `Parcels.cover` holds them."""
    return [NAMES.index(name) for name in names]


@dataclass(frozen=True)
class Parcels:
    """All pieces of ground of one location, one entry a piece.

    Attributes:
        cover: Index into `NAMES`, of (pieces,).
        shift: Days by which this piece is later than its cover's calendar.
        soil: Factor on the reflectance of its bare soil.
        vigour: Factor on its green cover.
        brightness: Factor on everything.
    """

    cover: np.ndarray
    shift: np.ndarray
    soil: np.ndarray
    vigour: np.ndarray
    brightness: np.ndarray


def reflectances(parcels: Parcels, day: date, seed: int, place: str) -> tuple[FloatArray, FloatArray]:
    """Reflectance of every piece of ground on one day.

    Years differ by a few days for the whole location and by a few more for each piece; soils are darker when wet.

    Args:
        parcels: The pieces.
        day: Date of the acquisition.
        seed: Seed of the simulation.
        place: Name of the location.

    Returns:
        Mean reflectance, and how much it changes with one unit of patchiness, both of (bands, pieces).
    """
    count = len(parcels.cover)
    year = stream(seed, "year", place, day.year)
    late = float(np.clip(year.normal(0, 2.0), -4, 4)) + year.normal(0, 1.3, count)
    wetness = 1 + stream(seed, "soil moisture", place, day).normal(0, 0.03)
    days = day.timetuple().tm_yday - parcels.shift - late
    mean = np.zeros((len(BANDS), count))
    slope = np.zeros_like(mean)
    for index, name in enumerate(NAMES):
        mine = np.flatnonzero(parcels.cover == index)
        if not len(mine):
            continue
        cover = COVERS[name]
        bare = np.array(SURFACES["soil"])[:, None] * parcels.soil[mine] * wetness
        for surface, weights in cover.mixture.items():
            weight = np.interp(days[mine], cover.days, weights, period=_YEAR)
            pure = np.repeat(np.array(SURFACES[surface])[:, None], len(mine), axis=1)
            if surface in ("soil", "stubble"):
                pure = pure * parcels.soil[mine] * wetness
            if surface in _GREEN:
                spread = weight * (bare - pure)  # thinner green cover shows the soil below
                slope[:, mine] += cover.patchiness * spread
                if name not in FOREST:
                    mean[:, mine] += (1 - parcels.vigour[mine]) * spread
            mean[:, mine] += weight * pure
    return (mean * parcels.brightness).astype(np.float32), (slope * parcels.brightness).astype(np.float32)

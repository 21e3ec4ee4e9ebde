"""The sky over a scene: where the sun stands, haze, clouds and the shadows they throw."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy import ndimage

from imagery.simulate.noise import FloatArray, fractal, smoothstep, stream
from imagery.simulate.plan import Plan

BRIGHT = np.array((0.54, 0.53, 0.52, 0.54, 0.38), dtype=np.float32)  # thick cloud, by band
VEIL = np.array((0.34, 0.32, 0.31, 0.30, 0.17), dtype=np.float32)  # cirrus of optical thickness 1
SKYLIGHT = np.array((0.46, 0.39, 0.33, 0.25, 0.16), dtype=np.float32)  # what is left in the shadow
_MARGIN = 96  # pixels around the scene from which shadows may fall into it


@dataclass(frozen=True)
class Sky:
    """What lies between the ground and the sensor; arrays of (rows, columns).

    Attributes:
        cloud: Opacity of cloud, 0 to 1.
        shadow: Depth of cloud shadow, 0 to 1.
        cirrus: Optical thickness of thin high cloud.
        grain: Brightness pattern of the clouds, around 1.
    """

    cloud: FloatArray
    shadow: FloatArray
    cirrus: FloatArray
    grain: FloatArray


def sun(day: date, latitude: float) -> tuple[float, float]:
    """Elevation and azimuth (clockwise from north) of the sun in radians at about 10:50 solar time.

    Args:
        day: Date.
        latitude: Degrees north.
    """
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (day.timetuple().tm_yday + 10) / 365.25)
    hour = np.radians(15 * (10.85 - 12))
    phi = np.radians(latitude)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(hour)
    return float(np.arcsin(up)), float(np.arctan2(east, north) % (2 * np.pi))


def cover_on(plan: Plan, place: str, day: date) -> tuple[float, float]:
    """Share of the sky under cloud, and thickness of cirrus, at a location on a day."""
    rng = stream(plan.seed, "weather", place, day)
    draw, amount, veil = rng.random(3)
    if (place, day) in plan.clear_scenes:
        return 0.0, 0.0
    cirrus = float(0.25 * veil) if rng.random() < 0.15 else 0.0
    if day in plan.cloudy_nights:
        return 0.97 + 0.03 * float(amount), cirrus
    winter = 0.5 + 0.5 * np.cos(2 * np.pi * (day.timetuple().tm_yday - 15) / 365)
    if day > plan.calibrate_end:  # the nights are watched in a fair summer
        clear, partly = 0.58, 0.42
    else:
        clear, partly = 0.50 - 0.16 * winter, 0.27
    if draw < clear:
        return 0.0, cirrus
    if draw < clear + partly:
        return 0.04 + 0.42 * float(amount), cirrus
    return 0.65 + 0.35 * float(amount), cirrus


def sky(plan: Plan, place: str, day: date, size: int, latitude: float) -> Sky | None:
    """The clouds of one scene, or None under a clear sky.

    Args:
        plan: The plan, whose seed and cloudy nights decide.
        place: Name of the location.
        day: Date of the acquisition.
        size: Side of the scene in pixels.
        latitude: Degrees north.
    """
    share, veil = cover_on(plan, place, day)
    if share == 0 and veil == 0:
        return None
    rng = stream(plan.seed, "clouds", place, day)
    side = size + 2 * _MARGIN
    inner = slice(_MARGIN, _MARGIN + size)
    opacity: FloatArray = np.zeros((side, side), dtype=np.float32)
    if share > 0:
        puffs = fractal(rng, (side, side), largest=rng.uniform(30, 120), slope=rng.uniform(1.9, 2.3))
        threshold = float(np.quantile(puffs[inner, inner], max(1 - share, 0.0)))
        opacity = smoothstep(puffs, threshold - 0.22, threshold + 0.85)
        if share >= 0.97:
            opacity = np.maximum(opacity, smoothstep(puffs, threshold - 3.0, threshold + 0.6))
    elevation, azimuth = sun(day, latitude)
    reach = min(rng.uniform(35, 75) / np.tan(elevation), _MARGIN - 4.0)  # cloud height of 350 to 750 m
    down, right = np.cos(azimuth) * reach, -np.sin(azimuth) * reach
    thrown = ndimage.shift(opacity, (down, right), order=1, mode="nearest")[inner, inner]
    shadow = ndimage.gaussian_filter(thrown, 0.8)
    lumps = fractal(rng, (side, side), largest=18, slope=1.5)[inner, inner]
    # towards the sun a cloud is bright, away from it grey
    relief = opacity - ndimage.shift(opacity, (0.06 * down, 0.06 * right), order=1, mode="nearest")
    grain = np.clip(1 + 0.06 * lumps + 0.6 * relief[inner, inner], 0.7, 1.3)
    cirrus = np.zeros((size, size), dtype=np.float32)
    if veil > 0:
        wisps = fractal(rng, (side, side), largest=160, slope=2.2)[inner, inner]
        cirrus = (veil * smoothstep(wisps, -0.6, 2.2)).astype(np.float32)
    return Sky(opacity[inner, inner], shadow.astype(np.float32), cirrus, grain.astype(np.float32))


def shade(ground: FloatArray, above: Sky) -> FloatArray:
    """Put shadow, cloud and cirrus over reflectances of (bands, rows, columns)."""
    light = 1 - above.shadow[None] * (1 - SKYLIGHT[:, None, None])
    cloud = BRIGHT[:, None, None] * above.grain[None] * (0.60 + 0.40 * above.cloud[None])
    covered = ground * light * (1 - above.cloud[None]) + cloud * above.cloud[None]
    return covered * (1 - 0.4 * above.cirrus[None]) + VEIL[:, None, None] * above.cirrus[None]

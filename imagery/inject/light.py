"""What a scene itself says of light and ground: haze over dark ground, what lies bare, what is green, what is water.

A spectrum of the surface does not fit into a scene as it is. A level-1 scene has the atmosphere's own light in it, most
in the blue; ground is darker in the shade. Injected ground is brought into the light of the scene it lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imagery.bands import find_common, find_wavelengths
from imagery.errors import ImageryError
from imagery.spectra import CUT_SOIL, at

Floats = NDArray[np.float32]

GREEN = 0.35  # NDVI above which most of a pixel is green
BARE = 0.30  # NDVI below which ground counts as bare
DARK_WATER = 0.12  # reflectance in the near infrared: water absorbs it
MUDDY_WATER = 0.25  # in the near infrared: no water is as bright, however much silt it carries
SHADE = 0.08  # in the near infrared, below which nothing is known of the ground
WET = 0.05  # in the short-wave infrared: water is black there, silt or not
BLACK = 0.01  # what the darkest ground still reflects (Chavez 1988)
MOST_PATH = 0.09  # reflectance of the clear atmosphere at 490 nm, at most
RAYLEIGH = 3.0  # it falls with about this power of the wavelength: air with the fourth, the haze in it more slowly
SNOWY = 0.30  # reflectance in the visible above which a pixel is snow, cloud, or as bright as them
NUMBERS = 3.0  # no median reflectance is so high: these are stored numbers
FEW = 30  # pixels that a spectrum of bare ground is at least taken from
ABSORBED = (1340, 1460)  # nanometres: water vapour lets no light from the ground through


class CannotInject(ImageryError):
    """A kind that these bands cannot show, or that this ground has no place for. Leave the tile out."""


@dataclass(frozen=True)
class Light:
    """A scene's light, and its bare ground.

    Attributes:
        bands: Names of the bands.
        wavelengths: (C,) centres of the bands, nanometres.
        path: (C,) what the atmosphere adds to every pixel, reflectance.
        soil: (C,) what lies bare in the scene, as the sensor sees it. In winter that may be snow.
        seen: (C,) 1 where the sensor sees the ground, 0 in bands of water vapour.
    """

    bands: tuple[str, ...]
    wavelengths: tuple[int, ...]
    path: Floats
    soil: Floats
    seen: Floats

    @classmethod
    def of(cls, values: Floats, valid: NDArray[np.bool_], bands: Sequence[str]) -> Light:
        """Look at a scene, or at a tile where there is no more.

        Args:
            values: (C, H, W) reflectance, 0 to 1.
            valid: (H, W) bool.
            bands: Names of the bands.

        Raises:
            CannotInject: Bands whose wavelength is not known, no valid pixel, or numbers that are no reflectances.
        """
        centres = find_wavelengths(bands)
        unknown = [band for band in bands if band not in centres]
        if unknown:
            raise CannotInject(
                f"nobody knows how the ground looks in the band(s) {', '.join(unknown)}: name bands as Sentinel-2, "
                "Landsat or STAC do, or inject only kinds that need no spectrum"
            )
        pixels = values[:, valid]
        if not pixels.size:
            raise CannotInject("no pixel of the tile is valid: nothing can be injected")
        if (middle := float(np.median(pixels))) > NUMBERS:
            raise CannotInject(f"the values are no reflectances (median {middle:.4g}): set source.scale")
        wavelengths = tuple(centres[band] for band in bands)
        nanometres = np.array(wavelengths, np.float32)
        path = _path(pixels, nanometres)
        seen = ((nanometres < ABSORBED[0]) | (nanometres > ABSORBED[1])).astype(np.float32)
        soil = _bare_ground(pixels, path, bands)
        return cls(tuple(bands), wavelengths, path, at(CUT_SOIL, wavelengths) + path if soil is None else soil, seen)

    def under(self, spectrum: Sequence[float]) -> Floats:
        """(C,) a spectrum of the surface, at `imagery.spectra.KNOTS`, as the sensor sees it in this light."""
        return at(spectrum, self.wavelengths) + self.path

    def ground(self, values: Floats) -> Ground:
        """Indices of the surface. NaN pixels are nothing of all that."""
        surface = _by_name(values, self.path, self.bands)
        visible = np.stack([surface[name] for name in ("blue", "green", "red") if name in surface]).mean(axis=0)
        water = np.zeros(values.shape[1:], bool)
        if {"nir", "green"} <= surface.keys():
            water = (surface["green"] > surface["nir"]) & (surface["nir"] < DARK_WATER)
        bright = np.asarray(visible > SNOWY)
        green = np.zeros(values.shape[1:], bool)
        if {"nir", "red"} <= surface.keys():
            green = (_ratio(surface["nir"], surface["red"]) > GREEN) & (surface["nir"] > SHADE) & ~bright
        return Ground(green, water, bright, visible)


@dataclass(frozen=True)
class Ground:
    """What the pixels are.

    Attributes:
        green: (H, W) bool, mostly plants.
        water: (H, W) bool, open and dark.
        bright: (H, W) bool, snow or as bright as snow.
        visible: (H, W) mean reflectance of the visible bands at the surface.
    """

    green: NDArray[np.bool_]
    water: NDArray[np.bool_]
    bright: NDArray[np.bool_]
    visible: Floats


def shading(values: Floats, valid: NDArray[np.bool_], reach: float = 2.5) -> Floats:
    """(H, W) how bright each pixel is beside those around it, damped: relief and canopy show in what replaces them.

    Args:
        values: (C, H, W).
        valid: (H, W) bool.
        reach: Standard deviation of the neighbourhood, pixels.
    """
    brightness = np.where(valid, np.nan_to_num(values).mean(axis=0), 0)
    around = ndimage.gaussian_filter(brightness, reach)
    weight = ndimage.gaussian_filter(valid.astype(np.float32), reach)
    ratio = brightness * weight / np.maximum(around, 1e-6)
    return np.where(valid, np.clip(np.maximum(ratio, 0) ** 0.6, 0.7, 1.4), 1).astype(np.float32)


def _path(pixels: Floats, nanometres: Floats) -> Floats:
    """(C,) what the atmosphere adds, from the darkest ground there is (dark object subtraction, Chavez 1988).

    The shortest wave decides, where ground is darkest and the air brightest: no ground may be dark in the infrared.
    """
    darkest = np.clip(np.percentile(pixels, 1, axis=1) - BLACK, 0, MOST_PATH * (490 / nanometres) ** RAYLEIGH)
    first = int(np.argmin(nanometres))
    most = darkest[first] * (nanometres[first] / nanometres) ** RAYLEIGH
    return np.minimum(darkest, most).astype(np.float32)


def _bare_ground(pixels: Floats, path: Floats, bands: Sequence[str]) -> Floats | None:
    """(C,) median of the least green twentieth of the land, as seen; None where nothing is bare."""
    surface = _by_name(pixels, path, bands)
    if not {"red", "nir"} <= surface.keys():
        return None
    nir = surface["nir"]
    ndvi = _ratio(nir, surface["red"])
    # Rivers full of silt are as bright as dark ground, but not in the infrared.
    wet = surface["green"] > nir if "green" in surface else np.zeros(nir.shape, bool)
    if "swir16" in surface:
        wet |= surface["swir16"] < WET
    land = (nir > SHADE) & (~wet | (nir > MUDDY_WATER))
    if land.sum() < FEW:
        return None
    limit = np.percentile(ndvi[land], 5)
    bare = land & (ndvi <= limit)
    if limit > BARE or bare.sum() < FEW:
        return None
    return np.median(pixels[:, bare], axis=1).astype(np.float32)


def _by_name(values: Floats, path: Floats, bands: Sequence[str]) -> dict[str, Floats]:
    """Reflectance at the surface, by the common name of the band; never 0, so that it can be divided by."""
    return {
        name: np.maximum(np.nan_to_num(values[bands.index(band)]) - path[bands.index(band)], 0.001)
        for name, band in find_common(bands).items()
    }


def _ratio(one: Floats, other: Floats) -> Floats:
    """Normalised difference."""
    return (one - other) / (one + other)

"""Radiometric alignment: the reference of a place brought to the light, air and season of a scene.

An affine map over all bands, scene ≈ matrix · reference + offset, is fitted on the pixels that are valid in both. What
changed must not enter it, or the map learns the event and hides it: see `imagery.robust` for how that is kept out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import AlignmentSettings
from imagery.robust import Fit, Floats, PixelPairs, deviation, evenly, robust_fit

INLIER = 8.0  # a pixel fits when it is not further off than so many times the closest quarter of the pixels
# Below this, reference and scene have nothing in common. Mean over the bands, measured: 0.16 and more for 97 pairs of
# the same ground, across seasons, haze and snow; 0.13 and less for 20 pairs of different towns.
LEAST_EXPLAINED = 0.15
ROUNDING = 0.01  # scales: where two images are the same, what is left of them is no difference
ARRAYS = ("matrix", "offset", "gain", "residual", "unaligned", "explained")


@dataclass(frozen=True)
class Alignment:
    """The map from a reference to a scene, and whether to trust it.

    Attributes:
        bands: Names of the C bands.
        matrix: (C, C), scene ≈ matrix · reference + offset; (C, P) of a map from P predictors (`imagery.expected`).
        offset: (C,), physical units.
        gain: (C,) slope of each band of the scene against the same band of the reference.
        residual: (C,) robust standard deviation of scene minus mapped reference, physical units.
        unaligned: (C,) the same of scene minus reference as it is.
        explained: (C,) share of the scene's robust variance that the mapped reference explains; NaN without contrast.
        inliers: Share of the pixels that fit the map.
        pixels: Number of pixels it was fitted on.
        reason: Why it is not to be trusted, in words; None when it is.
    """

    bands: tuple[str, ...]
    matrix: Floats
    offset: Floats
    gain: Floats
    residual: Floats
    unaligned: Floats
    explained: Floats
    inliers: float
    pixels: int
    reason: str | None

    def apply(self, reference: NDArray[np.float32]) -> NDArray[np.float32]:
        """The reference as it would look in the scene's radiometry; as it is when the map is not trusted.

        Args:
            reference: (C, …) physical units; a pixel with NaN in any band becomes NaN in all.
        """
        if self.reason is not None:
            return reference
        flat = reference.reshape(len(self.bands), -1)
        mapped = self.matrix.astype(np.float32) @ flat + self.offset.astype(np.float32)[:, None]
        return mapped.reshape(reference.shape)

    def to_record(self) -> dict[str, Any]:
        """As JSON; what could not be measured is null."""
        return {
            "bands": list(self.bands),
            **{name: _numbers(getattr(self, name)) for name in ARRAYS},
            "inliers": _numbers(self.inliers),
            "pixels": self.pixels,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Alignment:
        """The inverse of `to_record`."""
        arrays: dict[str, Any] = {name: np.array(record[name], dtype=float) for name in ARRAYS}
        inliers = float("nan") if record["inliers"] is None else record["inliers"]
        return cls(**record | arrays | {"bands": tuple(record["bands"]), "inliers": inliers})


def align(
    reference: NDArray[np.float32],
    scene: NDArray[np.float32],
    reference_valid: NDArray[np.bool_],
    scene_valid: NDArray[np.bool_],
    bands: Sequence[str],
    settings: AlignmentSettings,
) -> Alignment:
    """Fit the map from a reference to a scene.

    Args:
        reference: (C, H, W), physical units.
        scene: (C, H, W), physical units.
        reference_valid: (H, W), True where the reference has values.
        scene_valid: (H, W), True where the scene's pixel counts.
        bands: Names of the C bands.
        settings: How many pixels are needed and used, and which gains are trusted.
    """
    common = np.flatnonzero(reference_valid & scene_valid)
    before, after = (image.reshape(len(bands), -1)[:, common] for image in (reference, scene))
    return align_pixels(before, after, bands, settings)


def align_pixels(
    reference: NDArray[np.floating[Any]],
    scene: NDArray[np.floating[Any]],
    bands: Sequence[str],
    settings: AlignmentSettings,
    baseline: Floats | None = None,
) -> Alignment:
    """Fit the map on pixels that were picked already.

    Args:
        reference: (C, N) pixels valid in both, physical units; those with NaN are left out. Or (P, N) predictors.
        scene: (C, N) the same pixels of the scene.
        bands: Names of the C bands.
        settings: How many pixels are needed and used, and which gains are trusted.
        baseline: (C, P) which predictors are the bands themselves: baseline · predictors is the reference as it is.
    """
    finite = np.flatnonzero(np.isfinite(reference).all(axis=0) & np.isfinite(scene).all(axis=0))
    if len(finite) < settings.min_pixels:
        reason = f"only {len(finite)} pixels are valid in both scene and reference, {settings.min_pixels} are needed"
        return _identity(tuple(bands), len(finite), reason, np.eye(len(bands)) if baseline is None else baseline)
    picked = finite[evenly(len(finite), settings.max_pixels)]
    pixels = PixelPairs(reference[:, picked].astype(np.float64), scene[:, picked].astype(np.float64), baseline)
    fit, scale = robust_fit(pixels)
    return _judged(tuple(bands), pixels, fit, scale, settings)


def _judged(
    bands: tuple[str, ...], pixels: PixelPairs, fit: Fit, scale: Floats, settings: AlignmentSettings
) -> Alignment:
    """The map in the images' own units, what it leaves over, and whether it is to be trusted."""
    distance = np.sqrt(pixels.distance(fit, scale))
    left, contrast = deviation(pixels.residual(fit)), deviation(pixels.scene)
    reference_centre, scene_centre = pixels.centres
    between = scene_centre - pixels.baseline @ reference_centre
    unaligned = deviation(pixels.scene - pixels.baseline @ pixels.reference + between[:, None])
    explained = np.where(contrast > 0, 1 - np.square(left / np.where(contrast > 0, contrast, 1)), np.nan)
    # Measured from the closest quarter: a scale of the closest half would always find half of the pixels within it.
    inliers = float((distance <= INLIER * max(np.quantile(distance, 0.25), ROUNDING)).mean())
    offset = scene_centre + fit.offset - fit.matrix @ reference_centre
    found = Alignment(
        bands, fit.matrix, offset, fit.gain, left, unaligned, explained, inliers, pixels.count, reason=None
    )
    return replace(found, reason=_reason(found, scale, settings.max_gain))


def _reason(found: Alignment, scale: Floats, max_gain: float) -> str | None:
    """Why a map is not to be trusted; None when it is.

    A small gain, or one below zero, is no reason: leaves level the contrast of a forest floor, and snow inverts it.
    """
    wild = np.abs(found.gain) > max_gain
    if wild.any():
        which = _words([band for band, large in zip(found.bands, wild, strict=True) if large], found.gain[wild])
        return f"the gain of {which} is larger than {max_gain:g} (alignment.max_gain): it would magnify noise"
    contrasts = found.explained[np.isfinite(found.explained)]
    if not contrasts.size or contrasts.mean() < LEAST_EXPLAINED:
        share = max(contrasts.mean(), 0) if contrasts.size else 0
        return (
            f"the reference explains {share:.0%} of what is seen in the scene, {LEAST_EXPLAINED:.0%} are needed: they "
            "have little in common (cloud, haze, other ground, or no contrast at all)"
        )
    if np.square(found.residual / scale).sum() > np.square(found.unaligned / scale).sum() + ROUNDING**2:
        was, is_now = _words(found.bands, found.unaligned), _words(found.bands, found.residual)
        return f"mapped, the reference differs more from the scene ({is_now}) than as it is ({was})"
    if found.inliers < 0.5:
        return f"only {found.inliers:.0%} of the pixels fit one map: most of the scene changed, or in several ways"
    return None


def _identity(bands: tuple[str, ...], pixels: int, reason: str, baseline: Floats) -> Alignment:
    """No map at all."""
    channels = len(bands)
    unknown = np.full(channels, np.nan)
    one, none = np.ones(channels), np.zeros(channels)
    return Alignment(bands, baseline, none, one, unknown, unknown, unknown, float("nan"), pixels, reason)


def _words(bands: Sequence[str], values: Floats) -> str:
    return ", ".join(f"{band} {value:.2g}" for band, value in zip(bands, values, strict=True))


def _numbers(values: Floats | float) -> Any:
    """Numbers as JSON knows them: what is not finite becomes null."""
    numbers = np.array(values, dtype=object)
    numbers[~np.isfinite(np.asarray(values, dtype=float))] = None
    return numbers.tolist()

"""Radiometric alignment: the reference of a place brought to the light, air and season of a scene.

An affine map over all bands, scene ≈ matrix · reference + offset, is fitted on the pixels that are valid in both. What
changed must not enter it, or the map learns the event and hides it: see `imagery.robust` for how that is kept out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import AlignmentSettings
from imagery.robust import Fit, Floats, PixelPairs, deviation, evenly, robust_fit

INLIER = 8.0  # a pixel fits when it is not further off than so many times the closest quarter of the pixels
ARRAYS = ("matrix", "offset", "gain", "residual", "unaligned")


@dataclass(frozen=True)
class Alignment:
    """The map from a reference to a scene, and whether to trust it.

    Attributes:
        bands: Names of the C bands.
        matrix: (C, C), scene ≈ matrix · reference + offset.
        offset: (C,), physical units.
        gain: (C,) slope of each band of the scene against the same band of the reference.
        residual: (C,) robust standard deviation of scene minus mapped reference, physical units.
        unaligned: (C,) the same of scene minus reference as it is.
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
) -> Alignment:
    """Fit the map on pixels that were picked already.

    Args:
        reference: (C, N) pixels valid in both, physical units; those with NaN are left out.
        scene: (C, N) the same pixels of the scene.
        bands: Names of the C bands.
        settings: How many pixels are needed and used, and which gains are trusted.
    """
    finite = np.flatnonzero(np.isfinite(reference).all(axis=0) & np.isfinite(scene).all(axis=0))
    if len(finite) < settings.min_pixels:
        reason = f"only {len(finite)} pixels are valid in both scene and reference, {settings.min_pixels} are needed"
        return _identity(tuple(bands), len(finite), reason)
    picked = finite[evenly(len(finite), settings.max_pixels)]
    pixels = PixelPairs(reference[:, picked].astype(np.float64), scene[:, picked].astype(np.float64))
    fit, scale = robust_fit(pixels)
    return _judged(tuple(bands), pixels, fit, scale, settings)


def _judged(
    bands: tuple[str, ...], pixels: PixelPairs, fit: Fit, scale: Floats, settings: AlignmentSettings
) -> Alignment:
    """The map in the images' own units, what it leaves over, and whether it is to be trusted."""
    distance = np.sqrt(pixels.distance(fit, scale))
    left = deviation(pixels.residual(fit))
    reference_centre, scene_centre = pixels.centres
    unaligned = deviation(pixels.scene - pixels.reference + (scene_centre - reference_centre)[:, None])
    # Measured from the closest quarter: a scale of the closest half would always find half of the pixels within it.
    inliers = float((distance <= INLIER * np.quantile(distance, 0.25)).mean())
    reason = _reason(bands, fit.gain, settings.max_gain)
    if reason is None and np.square(left / scale).sum() > np.square(unaligned / scale).sum():
        was, is_now = _words(bands, unaligned), _words(bands, left)
        reason = f"mapped, the reference differs more from the scene ({is_now}) than as it is ({was})"
    if reason is None and inliers < 0.5:
        reason = f"only {inliers:.0%} of the pixels fit one map: most of the scene changed, or in several ways"
    offset = scene_centre + fit.offset - fit.matrix @ reference_centre
    return Alignment(bands, fit.matrix, offset, fit.gain, left, unaligned, inliers, pixels.count, reason)


def _reason(bands: tuple[str, ...], gains: Floats, limit: float) -> str | None:
    """Why the gains are not to be trusted; None when they are."""
    wild = [f"{band} {gain:.2f}" for band, gain in zip(bands, gains, strict=True) if not 1 / limit <= gain <= limit]
    if not wild:
        return None
    return (
        f"the gain of {', '.join(wild)} is not between {1 / limit:.2f} and {limit:.2f} (alignment.max_gain): scene and "
        "reference have little in common"
    )


def _identity(bands: tuple[str, ...], pixels: int, reason: str) -> Alignment:
    """No map at all."""
    channels = len(bands)
    unknown = np.full(channels, np.nan)
    return Alignment(
        bands, np.eye(channels), np.zeros(channels), np.ones(channels), unknown, unknown, float("nan"), pixels, reason
    )


def _words(bands: tuple[str, ...], values: Floats) -> str:
    return ", ".join(f"{band} {value:.2g}" for band, value in zip(bands, values, strict=True))


def _numbers(values: Floats | float) -> Any:
    """Numbers as JSON knows them: what is not finite becomes null."""
    numbers = np.array(values, dtype=object)
    numbers[~np.isfinite(np.asarray(values, dtype=float))] = None
    return numbers.tolist()

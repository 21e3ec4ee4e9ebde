"""A robust affine map from some images to one of the same ground, whatever became of a third of its pixels.

An MM-estimator (Yohai 1987). It starts from the best of a few trimmed fits (least trimmed squares with concentration
steps, Rousseeuw & Van Driessen 2006), which fixes the scale of the residuals, and is refined with redescending weights
(Geman & McClure 1987), under which pixels that do not fit count for nothing. Least squares as a start is not enough:
where a third of a scene changed alike, the weights would settle between the two surfaces. What no such fit can tell
from radiometry is an event that hit all pixels of one kind alike, since a map over all bands can follow it.

What a band is predicted from may be the same bands of one earlier image, or many more: the bands of several images, and
what surrounds a pixel. The *baseline* says which of these are the band itself.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CORE = 0.5  # share of the pixels that a trimmed fit keeps: up to the other half may have changed
SOFTNESS = 1.5  # in scales of the core's residuals: the weight of a pixel so far off is a quarter
RIDGE = 1e-3  # share of a band's variance; directions below it are shrunk towards the bands' own gains
START, MIDDLE = 3000, 20_000  # pixels of the trimmed fits, and of the first refinement
TOLERANCE = 1e-3  # in scales of the residuals: a fit that moves predictions by less has converged
MAD_TO_STD = 1.4826  # of a normal distribution
CHUNK = 8192  # pixels weighed at a time: they stay in the processor's cache


def robust_fit(pixels: PixelPairs) -> tuple[Fit, Floats]:
    """The map that most of the pixels follow.

    Returns:
        The map, and the (C,) scale of the residuals of the half that follows it best.
    """
    fit, scale = _trimmed(pixels.thinned(START))
    for size in (MIDDLE, pixels.count):
        fit = _refined(pixels.thinned(size), fit, scale)
    return fit, scale


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the indices below `count`, evenly spread; all of them where there are no more."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def deviation(values: Floats) -> Floats:
    """(C,) standard deviation from zero of (C, N) values, whatever a few of them are."""
    return MAD_TO_STD * np.median(np.abs(values), axis=1)


@dataclass(frozen=True)
class Fit:
    """A map of centred pixels.

    Attributes:
        matrix: (C, P), scene ≈ matrix · reference + offset.
        offset: (C,).
        gain: (C,) slope of each band on its baseline alone.
    """

    matrix: Floats
    offset: Floats
    gain: Floats


class PixelPairs:
    """Pixels of both images, less their medians: sums of squares then lose no digits.

    Args:
        reference: (P, N) what the scene is predicted from.
        scene: (C, N).
        baseline: (C, P), baseline · reference is what each band looked like before; None when the reference has just
            the scene's bands. Maps are shrunk towards it.
    """

    def __init__(self, reference: Floats, scene: Floats, baseline: Floats | None = None) -> None:
        self.baseline = np.eye(len(scene)) if baseline is None else baseline
        self.centres = np.median(reference, axis=1), np.median(scene, axis=1)
        self.reference, self.scene = reference - self.centres[0][:, None], scene - self.centres[1][:, None]
        # Where the images are the same, any difference is an outlier, but its scale must be something to divide by.
        self.smallest_scale = np.maximum(1e-6 * deviation(self.scene), 1e-9)

    @property
    def count(self) -> int:
        """N."""
        return self.reference.shape[1]

    def some(self, chosen: NDArray[np.intp] | slice) -> PixelPairs:
        """A choice of them, with the same centres."""
        part = copy(self)
        part.reference, part.scene = self.reference[:, chosen], self.scene[:, chosen]
        return part

    def thinned(self, most: int) -> PixelPairs:
        """At most so many of them, evenly chosen."""
        return self if self.count <= most else self.some(evenly(self.count, most))

    def residual(self, fit: Fit) -> Floats:
        """(C, N) scene minus mapped reference."""
        return self.scene - fit.matrix @ self.reference - fit.offset[:, None]

    def distance(self, fit: Fit, scale: Floats) -> Floats:
        """(N,) mean over the bands of the squared residual in scales."""
        return np.square(self.residual(fit) / scale[:, None]).mean(axis=0)

    def scale(self, residual: Floats) -> Floats:
        """(C,) robust standard deviation of residuals, at least what can be divided by."""
        return np.maximum(deviation(residual), self.smallest_scale)


class _Moments:
    """Weighted sums of pixels, added up piece by piece."""

    def __init__(self, baseline: Floats) -> None:
        self.baseline, size = baseline, sum(baseline.shape)
        self.weight, self.sums, self.products = 0.0, np.zeros(size), np.zeros((size, size))

    def add(self, pixels: PixelPairs, weights: Floats) -> Self:
        """Add pixels with their (N,) weights."""
        both = np.concatenate([pixels.reference, pixels.scene])
        self.weight += float(weights.sum())
        self.sums += both @ weights
        both *= np.sqrt(weights)
        self.products += both @ both.T  # of a matrix with itself: half of the work
        return self

    def fit(self) -> Fit:
        """The least-squares map, shrunk towards a gain of each band on its baseline.

        Bands are often nearly collinear; the map is then not unique, and without a bound its entries would be large,
        of both signs, and no use beyond the pixels it was fitted on.
        """
        baseline, predictors = self.baseline, self.baseline.shape[1]
        mean = self.sums / self.weight
        covariance = self.products / self.weight - np.outer(mean, mean)
        within, across = covariance[:predictors, :predictors], covariance[predictors:, :predictors]
        variance = np.diagonal(within)
        own, shared = ((baseline @ within) * baseline).sum(axis=1), (across * baseline).sum(axis=1)
        gain = np.where(_varies(own), shared / np.where(_varies(own), own, 1), 1.0)
        start = gain[:, None] * baseline
        ridge = np.diag(np.where(_varies(variance), RIDGE * variance, 1.0))  # a constant band explains nothing
        matrix = start + np.linalg.solve(within + ridge, (across - start @ within).T).T
        return Fit(matrix, mean[predictors:] - matrix @ mean[:predictors], gain)


def _varies(variance: Floats) -> NDArray[np.bool_]:
    """Which of some variances are more than rounding."""
    return variance > 1e-12 * max(variance.max(), 1e-12)


def _trimmed(pixels: PixelPairs) -> tuple[Fit, Floats]:
    """The best trimmed fit from several starts, and the (C,) scale of the residuals of the core that it keeps."""
    fit, core, _ = min((_concentrated(pixels, start) for start in _starts(pixels)), key=lambda found: found[2])
    return fit, pixels.scale(core.residual(fit))


def _starts(pixels: PixelPairs) -> list[Fit]:
    """Maps to start from: the same contrast, that of the quartiles, and least squares."""
    baseline, channels = pixels.baseline, len(pixels.scene)
    one, none = np.ones(channels), np.zeros(channels)
    both = baseline @ pixels.reference, pixels.scene
    widths = [np.subtract(*np.quantile(image, (0.75, 0.25), axis=1)) for image in both]
    contrast = np.where(widths[0] > 0, widths[1] / np.where(widths[0] > 0, widths[0], 1), 1.0)
    everything = _Moments(baseline).add(pixels, np.ones(pixels.count)).fit()
    return [Fit(baseline, none, one), Fit(contrast[:, None] * baseline, none, contrast), everything]


def _concentrated(pixels: PixelPairs, fit: Fit, steps: int = 20) -> tuple[Fit, PixelPairs, float]:
    """Concentration steps: fit the half of the pixels that fits best, again and again.

    Returns:
        The fit, the half it was made of, and the logarithm of the volume of that half's residuals.
    """
    size, core, volume = int(CORE * pixels.count), pixels, np.inf
    for _ in range(steps):
        distance = pixels.distance(fit, pixels.scale(pixels.residual(fit)))
        core = pixels.some(np.argpartition(distance, size)[:size])
        fit = _Moments(pixels.baseline).add(core, np.ones(size)).fit()
        width = np.sqrt(np.square(core.residual(fit)).mean(axis=1))
        before, volume = volume, float(np.log(np.maximum(width, pixels.smallest_scale)).sum())
        if before - volume < TOLERANCE:
            break
    return fit, core, volume


def _refined(pixels: PixelPairs, fit: Fit, scale: Floats, steps: int = 50) -> Fit:
    """Iteratively reweighted least squares with redescending weights, the scale staying as it is."""
    few = pixels.thinned(START)
    for _ in range(steps):
        moments = _Moments(pixels.baseline)
        for start in range(0, pixels.count, CHUNK):
            part = pixels.some(slice(start, start + CHUNK))
            moments.add(part, 1 / np.square(1 + part.distance(fit, scale) / SOFTNESS**2))
        before, fit = fit, moments.fit()
        moved = (few.residual(fit) - few.residual(before)) / scale[:, None]
        if np.sqrt(np.square(moved).mean(axis=1)).max() < TOLERANCE:
            break
    return fit

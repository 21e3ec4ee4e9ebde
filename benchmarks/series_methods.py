"""Methods for a series of one place: the expected image of a date out of the dates before it, and what is left of it.

An expected image is made in one of two ways:

- `median`: the median of the last clear dates, mapped to the date by the product's own robust affine map;
- `regression`: the last clear dates and those nearest in day of the year, each band of each a regressor of one robust
  redescending fit over the pixels of the date (as `imagery.robust`, with more bands in than out).

What is left is smoothed, and whitened by its own robust covariance. `tonight` scores that alone. `confirmed` scores
what is left on this date and was left on the pixel's last one, with the same sign: haze, the rims of clouds and shadows
are gone by the next clear date, what lies on the ground is not. For that, the date is compared a second time, with an
expected image that does not know the last clear date.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from benchmarks.problems.romania import Altered, Bools, Floats, Scores, Series, clear_images, pooled
from configs.schema import AlignmentSettings
from imagery.alignment import align

DARK = 0.02  # reflectance added before the logarithm: haze over dark ground is a large ratio of nothing
RIDGE = 1e-3  # of a regressor's own variance
SOFTNESS = 1.5  # in scales of the core's residuals, as in `imagery.robust`
START = 3000  # pixels of the trimmed start
FEWEST = 500  # pixels without which nothing is fitted
LEAST_HISTORY = 3  # clear dates without which nothing is expected
SMOOTH = 1.5  # pixels
YEAR = 365.25
FILL = 12  # dates whose median stands where a regressor is masked
NORMAL = 1.3  # brings the weighted covariance of a normal distribution back to its own


class Method(ABC):
    """Something that scores a series, dates by tiles."""

    name: str
    family: str

    @abstractmethod
    def learn(self, series: Series) -> Mapping[str, Scores]:
        """(T, N) scores of the untouched series by name, each date by earlier ones alone; NaN where there is none."""

    @abstractmethod
    def scores(self, altered: Altered) -> Mapping[str, Scores]:
        """The same of a copy with events, from the first date that differs to the last that is asked for."""

    def close(self) -> None:
        """The end of what `learn` began."""
        return


class Left(NamedTuple):
    """What is left of a date when the expected image is taken away: (C, H, W), whitened; NaN where it is unknown.

    Attributes:
        now: By all dates before it.
        older: By all clear dates before it but the last.
    """

    now: Floats
    older: Floats


@dataclass
class Expected(Method):
    """The method of this module.

    Args:
        name: Of its scores.
        recent: How many of the last clear dates are regressors.
        seasonal: How many of those nearest in day of the year, of earlier seasons, are.
        median: Map the median of the recent dates instead.
    """

    name: str
    recent: int
    seasonal: int = 0
    median: bool = False
    family: str = "ours"

    def learn(self, series: Series) -> Mapping[str, Scores]:
        self._memory: list[Floats] = []
        self._scores = {f"{self.name}, {kind}": _nothing(series) for kind in ("tonight", "confirmed")}
        self._run(series, range(len(series.days)), self._scores, self._memory)
        return self._scores

    def scores(self, altered: Altered) -> Mapping[str, Scores]:
        found = {name: scores.copy() for name, scores in self._scores.items()}
        for scores in found.values():
            scores[altered.since :] = np.nan
        self._run(altered.series, range(altered.since, altered.until + 1), found, self._memory[: altered.since])
        return found

    def _run(self, series: Series, dates: range, found: Mapping[str, Scores], memory: list[Floats]) -> None:
        """Score dates in turn. The memory holds, after each, what was left at the last look at each pixel."""
        logs = np.log(np.maximum(series.values, 0) + np.float32(DARK))
        shape = series.values.shape[1:]
        last = memory[-1] if memory else np.full(shape, np.nan, dtype=np.float32)
        tonight, confirmed = found.values()
        for date in dates:
            left = self._left(series, logs, date)
            if left is not None:
                tonight[date] = pooled(magnitude(left.now))
                confirmed[date] = pooled(magnitude(agreed(left.older, last)))
                last = np.where(np.isfinite(left.now), left.now, last)
            memory.append(last)

    def _left(self, series: Series, logs: Floats, date: int) -> Left | None:
        known = clear_images(series, date)
        if date not in series.looked_at or len(known) < LEAST_HISTORY:
            return None
        now, older = (self._residual(series, logs, date, known[: len(known) - lag]) for lag in (0, 1))
        return Left(whitened(smoothed(now)), whitened(smoothed(older)))

    def _residual(self, series: Series, logs: Floats, date: int, known: Sequence[int]) -> Floats:
        recent = known[-self.recent :]
        if self.median:
            return _unmapped(median(logs[recent]), logs[date], series.bands)
        fill = median(logs[known[-FILL:]])
        chosen = [*recent, *nearest_season(series, date, [one for one in known if one not in recent], self.seasonal)]
        images = [np.where(np.isfinite(logs[one]), logs[one], fill) for one in chosen]
        return regressed(np.concatenate(images), logs[date])


def nearest_season(series: Series, date: int, among: Sequence[int], count: int) -> list[int]:
    """The dates nearest in day of the year, of those more than half a year old."""
    days = {one: int((series.days[date] - series.days[one]).astype(int)) for one in among}
    old = [(abs(age - max(1, round(age / YEAR)) * YEAR), one) for one, age in days.items() if age > YEAR / 2]
    return [one for _, one in sorted(old)[:count]]


def median(images: Floats) -> Floats:
    """(C, H, W) the median of (T, C, H, W) where it has numbers; NaN where none has."""
    ranked = np.sort(images, axis=0)  # NaN last
    count = np.isfinite(images).sum(axis=0)
    low, high = (np.maximum(rank, 0)[None] for rank in ((count - 1) // 2, np.minimum(count // 2, len(images) - 1)))
    middle = np.take_along_axis(ranked, low, axis=0)[0] + np.take_along_axis(ranked, high, axis=0)[0]
    return (middle / 2).astype(np.float32)


def regressed(regressors: Floats, image: Floats) -> Floats:
    """(C, H, W) an image less what (P, H, W) regressors say of it, by a redescending fit; NaN where they say nothing.

    Starts from the half of the pixels that fits best (concentration steps), which fixes the scale, and goes on with
    Geman–McClure weights. Without the ridge, two alike dates make the map wild.
    """
    known = np.isfinite(regressors).all(axis=0) & np.isfinite(image).all(axis=0)
    left = np.full_like(image, np.nan)
    if known.sum() < FEWEST:
        return left
    given, wanted = regressors[:, known].T.astype(np.float32), image[:, known].T
    given = (given - np.median(given, axis=0)).astype(np.float32)
    given /= 1.4826 * np.median(np.abs(given), axis=0) + np.float32(1e-6)
    given = np.column_stack([given, np.ones(len(given), dtype=np.float32)])
    wanted = (wanted - np.median(wanted, axis=0)).astype(np.float32)
    some = slice(None, None, max(1, len(given) // START))
    matrix, scale = _core_fit(given[some], wanted[some])
    for _ in range(12):
        distance = np.square((wanted - given @ matrix) / scale).mean(axis=1)
        before, matrix = matrix, _weighted_fit(given, wanted, 1 / np.square(1 + distance / SOFTNESS**2))
        if np.abs(given[::50] @ (matrix - before) / scale).max() < 3e-3:
            break
    left[:, known] = (wanted - given @ matrix).T
    return left


def _core_fit(given: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """The fit of the half of the pixels that fits best, and the scale of what that leaves over, a band."""
    core = np.arange(len(given))
    for _ in range(9):
        matrix = _weighted_fit(given[core], wanted[core], np.ones(len(core), dtype=np.float32))
        left = wanted - given @ matrix
        scale = np.maximum(1.4826 * np.median(np.abs(left[core]), axis=0), np.float32(1e-5))
        distance = np.square(left / np.maximum(1.4826 * np.median(np.abs(left), axis=0), 1e-5)).mean(axis=1)
        core = np.argpartition(distance, len(left) // 2)[: len(left) // 2]
    return matrix, scale


def _weighted_fit(given: Floats, wanted: Floats, weights: Floats) -> Floats:
    """(P + 1, C) weighted least squares with a ridge; the last row is the offset."""
    weighted = given * weights[:, None]
    ridge = np.full(given.shape[1], RIDGE * float(weights.sum()))
    ridge[-1] = 0
    normal = (weighted.T @ given).astype(np.float64) + np.diag(ridge)
    return np.linalg.solve(normal, (weighted.T @ wanted).astype(np.float64)).astype(np.float32)


def _unmapped(reference: Floats, image: Floats, bands: tuple[str, ...]) -> Floats:
    """An image less a reference that the product's affine map brought to it."""
    known: list[Bools] = [np.asarray(np.isfinite(one).all(axis=0)) for one in (reference, image)]
    aligned = align(reference, image, known[0], known[1], bands, AlignmentSettings())
    return image - aligned.apply(reference)


def smoothed(left: Floats) -> Floats:
    """(C, H, W) Gaussian mean over the pixels that have a number; NaN where the pixel itself has none."""
    known = np.isfinite(left)
    total = np.stack([ndimage.gaussian_filter(band, SMOOTH) for band in np.where(known, left, 0)])
    weight = np.stack([ndimage.gaussian_filter(band, SMOOTH) for band in known.astype(np.float32)])
    return np.where(known, total / np.maximum(weight, 1e-3), np.nan).astype(np.float32)


def whitened(left: Floats) -> Floats:
    """(C, H, W) in units of the robust covariance of most of the scene, symmetrically: a band stays what it is."""
    known = np.isfinite(left).all(axis=0)
    if known.sum() < FEWEST:
        return np.full_like(left, np.nan)
    pixels = left[:, known].astype(np.float64)
    covariance = np.diag(np.square(1.4826 * np.median(np.abs(pixels), axis=1)) + 1e-12)
    for _ in range(4):
        distance = np.einsum("in,ij,jn->n", pixels, np.linalg.inv(covariance), pixels) / len(pixels)
        weights = 1 / np.square(1 + distance / SOFTNESS**2)
        covariance = NORMAL * (pixels * weights) @ pixels.T / weights.sum() + 1e-8 * np.eye(len(pixels))
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors / np.sqrt(values)) @ vectors.T
    return np.einsum("ij,jhw->ihw", root, left).astype(np.float32)


def agreed(left: Floats, last: Floats) -> Floats:
    """(C, H, W) the smaller of two where they have the same sign, else 0; NaN where either is unknown."""
    smaller = np.sign(left) * np.minimum(np.abs(left), np.abs(last))
    unknown = np.isnan(left) | np.isnan(last)
    return np.where(unknown, np.nan, np.where(np.sign(left) == np.sign(last), smaller, 0)).astype(np.float32)


def magnitude(left: Floats) -> Floats:
    """(H, W) root mean square over the bands."""
    return np.sqrt(np.square(left).mean(axis=0))


def _nothing(series: Series) -> Scores:
    return np.full(series.clear.shape, np.nan)

"""Peers that need linear algebra only: change vectors, IR-MAD, principal components and RX.

All work on log reflectance, scaled as `Scaling` does, since all of them gain by it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks.problems.common import PERCENTILE, Floats, Method, Pair, Scaling

Doubles = NDArray[np.float64]

BLOCK = 8  # pixels a side of the patches whose principal components are learned
KEPT = 0.95  # share of the patches' variance that the components hold
PATCHES = 20_000  # patches that they are learned from
TINY = 1e-9


class Scaled(Method):
    """A method whose only learned numbers are the limits of the bands."""

    def fit(self, train: Sequence[Pair]) -> None:
        self.scaling = Scaling.of(train)
        self.parameters = 2 * len(train[0].bands)

    def images(self, pair: Pair) -> tuple[Floats, Floats]:
        """(C, H, W) both dates, scaled."""
        assert pair.before is not None
        return self.scaling.apply(pair.before), self.scaling.apply(pair.after)


class ChangeVector(Scaled):
    """Change vector analysis (Malila 1980): the squared length of the difference.

    Args:
        aligned: Map the earlier date to the later one by least squares over all bands first.
        percentile: Of the pixels of a tile; None for their mean.
    """

    def __init__(self, aligned: bool, percentile: float | None) -> None:
        pooling = "mean" if percentile is None else f"p{percentile:.0f}"
        self.name = f"{'aligned ' if aligned else ''}CVA, {pooling}"
        self.family = "change vector"
        self._aligned, self._percentile = aligned, percentile

    def score(self, pair: Pair) -> Doubles:
        before, after = self.images(pair)
        difference = aligned_difference(before, after, pair) if self._aligned else after - before
        return pair.pooled(np.square(difference).mean(axis=0), self._percentile)


class IRMAD(Scaled):
    """Iteratively reweighted multivariate alteration detection (Nielsen 2007), the chi-squared statistic."""

    name, family = "IR-MAD", "change vector"
    iterations, settled = 30, 1e-3

    def score(self, pair: Pair) -> Doubles:
        before, after = (image[:, pair.valid].astype(float) for image in self.images(pair))
        statistic = self._statistic(before, after)
        return pair.pooled(as_map(statistic, pair))

    def _statistic(self, before: Doubles, after: Doubles) -> Doubles:
        """(P,) sum of the squared standardised MAD variates of (C, P) pixels."""
        channels = len(before)
        weights, last = np.ones(before.shape[1]), np.zeros(channels)
        for _ in range(self.iterations):
            mean, covariance = moments(np.concatenate([before, after]), weights)
            one, cross, other = (
                covariance[:channels, :channels], covariance[:channels, channels:], covariance[channels:, channels:]
            )  # fmt: skip
            through = scipy.linalg.solve(other, cross.T, assume_a="pos")
            squared, left = scipy.linalg.eigh(cross @ through, one)  # each column has unit variance
            correlation = np.sqrt(np.clip(squared, 0, 1 - TINY))
            right = through @ left / np.maximum(correlation, TINY)  # unit variance, correlated positively with the left
            mad = left.T @ (before - mean[:channels, None]) - right.T @ (after - mean[channels:, None])
            statistic = (np.square(mad) / (2 * (1 - correlation))[:, None]).sum(axis=0)
            if np.abs(correlation - last).max() < self.settled:
                break
            weights, last = chi2.sf(statistic, channels), correlation
        return statistic


class StackedPCA(Scaled):
    """Principal components of both dates together (Fung & LeDrew 1987): what the minor half of them holds."""

    name, family = "PCA of both dates", "PCA"

    def score(self, pair: Pair) -> Doubles:
        both = np.concatenate([image[:, pair.valid] for image in self.images(pair)]).astype(float)
        both /= both.std(axis=1, keepdims=True) + TINY
        mean, covariance = moments(both)
        minor = np.linalg.eigh(covariance)[1][:, : len(both) // 2]
        return pair.pooled(as_map(np.square(minor.T @ (both - mean[:, None])).sum(axis=0), pair))


class PatchPCA(Scaled):
    """Reconstruction error of small patches by the principal components of other places' patches.

    Args:
        view: "after" for the later date alone, "difference" for the aligned difference of both.
    """

    def __init__(self, view: str) -> None:
        self.name, self.family, self.uses_before = f"PCA ({view})", "PCA", view == "difference"
        self._view = view

    def fit(self, train: Sequence[Pair]) -> None:
        super().fit(train)
        patches = np.concatenate([_patches(seen_as(self._view, pair, self.scaling)) for pair in train])
        patches = patches[:: -(-len(patches) // PATCHES)].astype(float)
        self._mean, covariance = moments(patches.T)
        variance, axes = np.linalg.eigh(covariance)
        share = np.cumsum(variance[::-1]) / variance.sum()
        self._axes = axes[:, ::-1][:, : 1 + int(np.searchsorted(share, KEPT))].astype(np.float32)
        self.parameters += self._axes.size + self._mean.size

    def score(self, pair: Pair) -> Doubles:
        image = seen_as(self._view, pair, self.scaling)
        patches = _patches(image) - self._mean.astype(np.float32)
        left = np.square(patches - (patches @ self._axes) @ self._axes.T)
        _, height, width = image.shape
        rows, cols = height // BLOCK, width // BLOCK
        error = left.reshape(rows, cols, -1, BLOCK, BLOCK).mean(axis=2).swapaxes(1, 2).reshape(rows * BLOCK, -1)
        edges = (0, height - rows * BLOCK), (0, width - cols * BLOCK)  # less than a patch: as the nearest one
        return pair.pooled(np.pad(error, edges, mode="edge"))


class RX(Scaled):
    """The Mahalanobis distance of each pixel in its scene (Reed & Yu 1990), global covariance.

    Args:
        view: "after" for the later date alone; "difference" for the plain difference; "chronochrome" for what a linear
            map leaves of it (Schaum & Stocker 1997).
    """

    def __init__(self, view: str) -> None:
        self.name, self.family, self.uses_before = f"RX ({view})", "RX", view != "after"
        self._view = view

    def score(self, pair: Pair) -> Doubles:
        if self._view == "difference":
            before, after = self.images(pair)
            image = after - before
        else:
            image = seen_as("after" if self._view == "after" else "difference", pair, self.scaling)
        pixels = image[:, pair.valid].astype(float)
        mean, covariance = moments(pixels)
        whitened = scipy.linalg.solve_triangular(
            np.linalg.cholesky(covariance), pixels - mean[:, None], lower=True, overwrite_b=True
        )
        return pair.pooled(as_map(np.square(whitened).sum(axis=0), pair))


def seen_as(view: str, pair: Pair, scaling: Scaling) -> Floats:
    """(C, H, W) what a method for single images is given: the later date, or the aligned difference of both."""
    after = scaling.apply(pair.after)
    if view == "after":
        return after
    assert pair.before is not None
    return aligned_difference(scaling.apply(pair.before), after, pair)


def aligned_difference(before: Floats, after: Floats, pair: Pair) -> Floats:
    """(C, H, W) what the best affine map over all bands leaves, by least squares over the valid pixels."""
    x, y = before[:, pair.valid].astype(float), after[:, pair.valid].astype(float)
    channels = len(x)
    mean, covariance = moments(np.concatenate([x, y]))
    matrix = np.linalg.solve(covariance[:channels, :channels], covariance[:channels, channels:]).T
    offset = mean[channels:] - matrix @ mean[:channels]
    flat = before.reshape(channels, -1)
    mapped = matrix.astype(np.float32) @ flat + offset.astype(np.float32)[:, None]
    left: Floats = after - mapped.reshape(after.shape)
    return left


def moments(values: Doubles, weights: Doubles | None = None) -> tuple[Doubles, Doubles]:
    """Mean (C,) and covariance (C, C) of (C, P) values, with a trace of ridge."""
    weights = np.ones(values.shape[1]) if weights is None else weights
    mean = values @ weights / weights.sum()
    centred = values - mean[:, None]
    covariance = (centred * weights) @ centred.T / weights.sum()
    return mean, covariance + TINY * np.trace(covariance) * np.eye(len(values))


def as_map(values: Doubles, pair: Pair) -> Doubles:
    """(H, W) of (P,) values of the valid pixels."""
    heatmap = np.full(pair.valid.shape, np.nan)
    heatmap[pair.valid] = values
    return heatmap


def _patches(image: Floats) -> Floats:
    """(P, C · BLOCK²) the whole patches of an image, row by row."""
    channels, height, width = image.shape
    rows, cols = height // BLOCK, width // BLOCK
    cut = image[:, : rows * BLOCK, : cols * BLOCK].reshape(channels, rows, BLOCK, cols, BLOCK)
    return np.ascontiguousarray(cut.transpose(1, 3, 0, 2, 4)).reshape(rows * cols, -1)


def methods(pairs: bool) -> list[Method]:
    """Those for two dates, or those for one."""
    single: list[Method] = [PatchPCA("after"), RX("after")]
    if not pairs:
        return single
    vectors = [ChangeVector(aligned, percentile) for aligned in (False, True) for percentile in (None, PERCENTILE)]
    return [
        *vectors, IRMAD(), StackedPCA(), PatchPCA("difference"), RX("difference"), RX("chronochrome"), *single
    ]  # fmt: skip

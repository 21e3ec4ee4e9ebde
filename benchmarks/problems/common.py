"""What every method of the benchmark is given, and what it gives: image pairs with tiles, and scores of the tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

TILE, STRIDE = 32, 16
CHANGED = 0.1  # a tile is positive when a greater share of its pixels changed
LEAST_VALID = 0.5  # tiles with fewer valid pixels are left out
PERCENTILE = 90.0  # of the valid pixels of a tile: what changed often fills a part of it only
DARKEST = 1e-4  # reflectance, before a logarithm
LIMITS = (0.5, 99.5)  # percentiles that are mapped to -1 and 1
EVERY = 11  # a pixel of so many is enough for percentiles


@dataclass(frozen=True)
class Pair:
    """A scene, with an earlier one of the same place where the problem has one, and its tiles with the truth.

    Attributes:
        name: Of the place.
        before: (C, H, W) float32 reflectance; None where there is only one date.
        after: (C, H, W) float32 reflectance.
        valid: (H, W) True where every band of both has data.
        bands: Names of the C bands.
        truth: (H, W) True where something changed.
        tiles: (N, 2) first row and column of each tile.
        positive: (N,) 1 for a tile with an event, 0 for one without, NaN where neither can be said.
        condition: What was done to the scene: part of the benchmark, kind and share of what was injected.
        kinds: (N,) what was injected into the tile, "" for nothing; None where there is nothing to tell apart.
    """

    name: str
    before: Floats | None
    after: Floats
    valid: Bools
    bands: tuple[str, ...]
    truth: Bools
    tiles: NDArray[np.int64]
    positive: NDArray[np.float64]
    condition: str
    kinds: NDArray[np.str_] | None = None

    def crops(self, image: NDArray[np.float32]) -> Floats:
        """(N, C, TILE, TILE) the tiles of a (C, H, W) image."""
        windows = sliding_window_view(image, (TILE, TILE), axis=(1, 2))
        return np.ascontiguousarray(windows[:, self.tiles[:, 0], self.tiles[:, 1]].swapaxes(0, 1))

    def pooled(self, heatmap: NDArray[np.floating], percentile: float | None = PERCENTILE) -> NDArray[np.float64]:
        """(N,) percentile of a (H, W) map over the valid pixels of each tile; their mean when it is None."""
        masked = np.where(self.valid, heatmap, np.nan).astype(np.float32)
        pixels = self.crops(masked[None]).reshape(len(self.tiles), -1)
        whole = np.isfinite(pixels).all(axis=1)
        found = np.empty(len(pixels))
        for rows, percentile_of, mean_of in ((whole, np.percentile, np.mean), (~whole, np.nanpercentile, np.nanmean)):
            if rows.any() and percentile is None:
                found[rows] = mean_of(pixels[rows], axis=1)
            elif rows.any():
                found[rows] = percentile_of(pixels[rows], percentile, axis=1)
        return found


def place_tiles(valid: Bools) -> NDArray[np.int64]:
    """(N, 2) first row and column of the tiles that have enough valid pixels, row by row."""
    height, width = valid.shape
    share = sliding_window_view(valid, (TILE, TILE))[::STRIDE, ::STRIDE].mean(axis=(2, 3))
    assert share.shape == ((height - TILE) // STRIDE + 1, (width - TILE) // STRIDE + 1)
    return np.argwhere(share >= LEAST_VALID) * STRIDE


def changed_share(truth: Bools, valid: Bools, tiles: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) share of the valid pixels of each tile that changed."""

    def counted(mask: Bools) -> NDArray[np.float64]:
        return sliding_window_view(mask, (TILE, TILE))[tiles[:, 0], tiles[:, 1]].sum(axis=(1, 2), dtype=float)

    return counted(truth & valid) / counted(valid)


def injected_pair(pair: Pair, after: Floats, mask: Bools, condition: str) -> Pair:
    """A pair whose scene was changed on purpose.

    Tiles with a little of the change, and those that really changed, are neither positive nor negative.

    Args:
        pair: The untouched pair.
        after: (C, H, W) the changed scene.
        mask: (H, W) True where it was changed.
        condition: What was done.
    """
    share = changed_share(mask, pair.valid, pair.tiles)
    really = changed_share(pair.truth, pair.valid, pair.tiles) > 0
    positive = np.where(share > CHANGED, 1.0, np.where((share > 0) | really, np.nan, 0.0))
    return replace(pair, after=after, truth=mask, positive=positive, condition=condition)


class Method(ABC):
    """Something that scores the tiles of a pair.

    Attributes:
        name: In tables and plots; unique.
        family: Methods of a family share a colour.
        uses_before: Whether it needs the earlier date.
        parameters: Numbers that were learned from the training cities, once `fit` has run.
        extra_megabytes: Peak memory in processes of its own.
    """

    name: str
    family: str
    uses_before: bool = True
    parameters: int = 0
    extra_megabytes: float = 0.0

    def start(self) -> None:
        """What is done once and is no part of the cost: starting a process, loading a library."""
        return

    def fit(self, train: Sequence[Pair]) -> None:
        """Learn from other places, without their truth. Everything of an earlier fit is forgotten."""
        return

    @abstractmethod
    def score(self, pair: Pair) -> NDArray[np.float64]:
        """(N,) a score a tile, higher = more anomalous."""

    def scores(self, pair: Pair) -> dict[str, NDArray[np.float64]]:
        """Scores by name; a method that gives several from one fit overrides this."""
        return {self.name: self.score(pair)}

    def close(self) -> None:
        """The end of what `start` began."""
        return


@dataclass(frozen=True)
class Scaling:
    """Reflectance to what is compared: its logarithm, with the 0.5 and 99.5 percentiles at -1 and 1.

    Attributes:
        centre: (C, 1, 1).
        half: (C, 1, 1).
    """

    centre: Floats
    half: Floats

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Scaling:
        """The percentiles of all dates of some places."""
        images = ((pair, image) for pair in pairs for image in (pair.before, pair.after) if image is not None)
        pixels = [image[:, pair.valid][:, ::EVERY] for pair, image in images]
        low, high = np.percentile(_logarithm(np.concatenate(pixels, axis=1)), LIMITS, axis=1).astype(np.float32)
        return cls(((high + low) / 2)[:, None, None], ((high - low) / 2)[:, None, None])

    def apply(self, image: Floats) -> Floats:
        """(C, H, W) reflectance to (C, H, W) numbers about -1 to 1."""
        scaled: Floats = (_logarithm(image) - self.centre) / self.half
        return scaled


def _logarithm(values: Floats) -> Floats:
    """What has no number becomes the darkest: it is never counted."""
    return np.log(np.maximum(np.nan_to_num(values, nan=0.0), np.float32(DARKEST)))

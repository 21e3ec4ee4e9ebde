"""What a pixel of tonight is predicted from: the same pixel of some earlier scenes, and what surrounds it.

Each band of each earlier scene is a predictor of its own, since single dates say more than their median does: one is
nearer in season, another in light. Local mean and spread of the median of the scenes tell surfaces apart that a pixel
alone does not, and forgive what lies half a pixel off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from configs.schema import DARKEST, NormaliseSettings
from imagery.median import masked_median
from imagery.robust import Floats

HALO = 2  # pixels around one that count as what surrounds it: 5 × 5
BLOCK = 512  # pixels mapped side by side: they stay in the first cache

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Transform:
    """The units that surfaces are compared in: log(max(x, DARKEST) + offset), or x itself.

    Attributes:
        log: Whether the logarithm is taken.
        offset: Added before it, physical units.
    """

    log: bool
    offset: float

    @classmethod
    def of(cls, settings: NormaliseSettings) -> Self:
        """The one that settings ask for."""
        return cls(settings.log, settings.log_offset)

    def forward(self, values: Values) -> Values:
        """Physical values, of any shape, in units of comparison."""
        if not self.log:
            return values
        return np.log(np.maximum(values, np.float32(DARKEST)) + np.float32(self.offset))

    def inverse(self, values: Values) -> Values:
        """Physical values; `DARKEST` and more where logarithms were taken."""
        if not self.log:
            return values
        with np.errstate(over="ignore"):
            return np.maximum(np.exp(values) - np.float32(self.offset), np.float32(DARKEST))


def features(images: Values, valid: Mask) -> tuple[Values, Mask]:
    """What earlier images say of each pixel.

    Args:
        images: (K, C, H, W) in units of comparison; finite where valid.
        valid: (K, H, W) True where the pixel of the image counts.

    Returns:
        (P, H, W), P = K · C + 2 · C: the bands of each image, where it is masked the median of the others; then mean
        and standard deviation, over the 5 × 5 pixels around that are known, of the median of the images. All are 0
        where no image is valid. And (H, W) where at least one is.
    """
    count, channels, *shape = images.shape
    own = count * channels
    median, _ = masked_median(images.reshape(count, channels, -1), valid.reshape(count, -1))
    usable: Mask = np.logical_or.reduce(valid)
    middle = np.where(usable, median.reshape(channels, *shape), np.float32(0))
    found = np.empty((own + 2 * channels, *shape), np.float32)
    for image, known, row in zip(images, valid, range(0, own, channels), strict=True):
        np.copyto(found[row : row + channels], middle)
        np.copyto(found[row : row + channels], image, where=known)
    _surroundings(middle, usable, found[own : own + channels], found[own + channels :])
    return found, usable


def baseline(count: int, channels: int) -> Floats:
    """(C, P) the predictors that are the band itself: their mean over K images is what it looked like."""
    own = np.tile(np.eye(channels), count) / count
    return np.concatenate([own, np.zeros((channels, 2 * channels))], axis=1)


def mapped(matrix: Floats, offset: Floats, predictors: Values) -> Values:
    """Predictors mapped by matrix · predictors + offset, with a pixel's number the same whatever lies beside it.

    Args:
        matrix: (C, P).
        offset: (C,).
        predictors: (P, H, W).

    Returns:
        (C, H, W).
    """
    out = np.empty((len(matrix), *predictors.shape[1:]), np.float32)
    _map(np.ascontiguousarray(matrix), offset, predictors.reshape(len(predictors), -1), out.reshape(len(out), -1))
    return out


# Compiled for whatever types it is called with, so that annotations would say nothing true.
@njit(nogil=True, cache=True)
def _map(matrix, offset, predictors, out):  # type: ignore[no-untyped-def]
    channels, count = matrix.shape
    row = np.empty(BLOCK)
    for first in range(0, out.shape[1], BLOCK):
        size = min(BLOCK, out.shape[1] - first)
        for channel in range(channels):
            row[:] = offset[channel]
            for predictor in range(count):
                weight = matrix[channel, predictor]
                values = predictors[predictor, first : first + size]
                for pixel in range(size):
                    row[pixel] += weight * values[pixel]
            for pixel in range(size):
                out[channel, first + pixel] = row[pixel]


@njit(nogil=True, cache=True)
def _surroundings(values, known, mean, spread):  # type: ignore[no-untyped-def]
    """Sums over rows and then columns, always in the same order: a strip gives what the whole gives."""
    channels, height, width = values.shape
    count, total, squares = np.empty(width), np.empty(width), np.empty(width)
    for channel in range(channels):
        for row in range(height):
            count[:], total[:], squares[:] = 0, 0, 0
            for near in range(max(row - HALO, 0), min(row + HALO + 1, height)):
                for column in range(width):
                    value = np.float64(values[channel, near, column])  # 0 where it is not known
                    count[column] += known[near, column]
                    total[column] += value
                    squares[column] += value * value
            for column in range(width):
                if not known[row, column]:
                    mean[channel, row, column] = spread[channel, row, column] = 0
                    continue
                number, first, second = 0.0, 0.0, 0.0
                for near in range(max(column - HALO, 0), min(column + HALO + 1, width)):
                    number += count[near]
                    first += total[near]
                    second += squares[near]
                middle = first / number
                mean[channel, row, column] = middle
                spread[channel, row, column] = np.sqrt(max(second / number - middle * middle, 0.0))

"""The median over the scenes of a stack, of the valid pixels only, in compiled code.

All pixels of a block are sorted side by side by the same comparisons (merge exchange, Batcher 1968; Knuth, TAOCP 3,
5.2.2 M). No comparison depends on the numbers, so the processor does eight or sixteen pixels at a time.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 256  # pixels sorted side by side: those of 60 scenes fit into the first cache


def masked_median(
    stack: NDArray[np.float32], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The median of each pixel and band over the scenes in which the pixel is valid.

    Args:
        stack: (K, C, P) values of K scenes; finite where valid.
        valid: (K, P) True where the pixel of the scene counts.

    Returns:
        (C, P) the middle value, or the mean of the two middle ones; NaN where no scene is valid. And (P,) how many are.
    """
    count = valid.sum(axis=0)
    median = np.empty(stack.shape[1:], np.float32)
    _median(stack, valid, count, _comparisons(len(stack)), median)
    return median, count


@lru_cache
def _comparisons(size: int) -> NDArray[np.int64]:
    """(N, 2) places to compare and exchange, one after the other, so that `size` values come in order."""
    pairs: list[tuple[int, int]] = []
    top = 1 << max((size - 1).bit_length() - 1, 0)
    step = top
    while step:
        within, start, distance = top, 0, step
        while True:
            pairs += [(place, place + distance) for place in range(size - distance) if place & step == start]
            if within == step:
                break
            distance, within, start = within - step, within >> 1, step
        step >>= 1
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


# Compiled for whatever types it is called with, so that annotations would say nothing true.
@njit(nogil=True, cache=True)
def _median(stack, valid, count, comparisons, median):  # type: ignore[no-untyped-def]
    scenes, channels, pixels = stack.shape
    column = np.empty((scenes, BLOCK), np.float32)
    for first in range(0, pixels, BLOCK):
        last = min(first + BLOCK, pixels)
        for channel in range(channels):
            for scene in range(scenes):
                _take(stack[scene, channel, first:last], valid[scene, first:last], column[scene])
            _sort(column, comparisons, last - first)
            _middle(column, count[first:last], median[channel, first:last])


@njit(nogil=True, cache=True)
def _take(values, valid, row):  # type: ignore[no-untyped-def]
    """What does not count is put last."""
    for pixel in range(len(values)):
        row[pixel] = values[pixel] if valid[pixel] else np.float32(np.inf)


@njit(nogil=True, cache=True)
def _sort(column, comparisons, width):  # type: ignore[no-untyped-def]
    for index in range(len(comparisons)):
        low, high = column[comparisons[index, 0]], column[comparisons[index, 1]]
        for pixel in range(width):
            one, other = low[pixel], high[pixel]
            low[pixel] = one if one < other else other
            high[pixel] = other if one < other else one


@njit(nogil=True, cache=True)
def _middle(column, count, median):  # type: ignore[no-untyped-def]
    for pixel in range(len(count)):
        found = count[pixel]
        if found:
            both = column[(found - 1) // 2, pixel] + column[found // 2, pixel]
            median[pixel] = both * np.float32(0.5)
        else:
            median[pixel] = np.float32(np.nan)

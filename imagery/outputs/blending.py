"""Overlapping tiles to one picture without seams, some rows at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagery.grid import Grid, Tile

Rows = tuple[int, NDArray[np.float32]]  # first row of the grid, (H, width) values


def blend_window(size: int) -> NDArray[np.float64]:
    """(size, size) weights of a tile's pixels: a raised cosine, greatest in the middle, small at the edge, never zero.

    Where a tile ends its weight has all but vanished, so what lies beneath takes over without a step.
    """
    side = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return np.outer(side, side)


class RowBlender:
    """The weighted mean of tiles that come row by row, held for as many rows as a tile has.

    A pixel that no tile has a number for is NaN; one tile's NaN takes nothing from the others.

    Args:
        grid: What the tiles lie on.
        size: Side of a tile, pixels.
        stride: From one tile to the next, pixels; None is `size`, and leaves the tiles as they are.
    """

    def __init__(self, grid: Grid, size: int, stride: int | None = None) -> None:
        self._window = np.ones((size, size)) if stride is None or stride == size else blend_window(size)
        self._top, self._height = 0, grid.height
        self._sums, self._weights = np.zeros((2, size, grid.width))

    def add(self, tile: Tile, values: NDArray[np.float32]) -> Rows | None:
        """Take a tile, and give the rows that no further tile can reach.

        Args:
            tile: Where it lies; its row is that of the tile before or lies below.
            values: (S, S) of which the tile's height and width count; NaN where there is no number.

        Raises:
            ValueError: A tile above the one before.
        """
        if tile.row_off < self._top:
            raise ValueError(f"a tile at row {tile.row_off} comes after one at row {self._top}: give them row by row")
        done = self._advance(tile.row_off) if tile.row_off > self._top else None
        columns = slice(tile.col_off, tile.col_off + tile.width)
        numbers = values[: tile.height, : tile.width].astype(np.float64)
        weights = np.where(np.isnan(numbers), 0, self._window[: tile.height, : tile.width])
        self._sums[: tile.height, columns] += np.where(weights > 0, numbers, 0) * weights
        self._weights[: tile.height, columns] += weights
        return done

    def rest(self) -> Rows:
        """The rows that are still held."""
        return self._mean(min(len(self._sums), self._height - self._top))

    def _advance(self, row: int) -> Rows:
        """Give the rows above `row` and move down to it."""
        count = min(row - self._top, len(self._sums))
        done = self._mean(count)
        for held in (self._sums, self._weights):
            held[:-count] = held[count:]
            held[-count:] = 0
        self._top = row
        return done

    def _mean(self, count: int) -> Rows:
        with np.errstate(invalid="ignore"):
            return self._top, (self._sums[:count] / self._weights[:count]).astype(np.float32)

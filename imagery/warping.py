"""Warping: where the pixels of a grid lie in a raster with other pixels, and what is found there.

Done here and not by GDAL's warper, because what is masked must be exactly what is masked without warping. Through
rasterio, GDAL takes "no data" in one band only for data, knows a single number for it, changes true numbers that equal
it by one, and its results depend on the window that is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window

from imagery.grid import Grid

# Places are computed exactly at every so many pixels, and interpolated in between where that is exact enough.
STEPS = (32, 16, 8, 4, 2, 1)
EXACT_ENOUGH = 0.01  # pixels of the raster
SAMPLES = 16  # cells along each side of the grid on which that is tried
TIE = 1e-6  # pixels: a place so close to a pixel's edge is on it, however its computation was rounded

MISSING, PRESENT, APART = 0, 1, 2  # a pixel without data, with data, and with data that must not be mixed with others


@dataclass(frozen=True)
class Warp:
    """Where the pixels of a grid lie in a raster.

    Attributes:
        grid: The grid.
        shape: (rows, columns) of the raster.
        to_pixels: From coordinates of the raster's CRS to its (column, row).
        transformer: From the grid's CRS to the raster's; None when they are the same.
        turn: A full turn in units of the raster's CRS, where that is longitude and latitude; else infinite.
        step: Places are computed at every so many pixels of the grid.
        density: (rows, columns) pixels of the raster to one of the grid.
    """

    grid: Grid
    shape: tuple[int, int]
    to_pixels: Affine
    transformer: Transformer | None
    turn: float = math.inf
    step: int = 1
    density: tuple[float, float] = (1.0, 1.0)

    @property
    def reach(self) -> tuple[float, float]:
        """(rows, columns) how far pixels of the raster count: one pixel, or one of the grid where that is larger."""
        rows, columns = (max(1.0, round(density, 1)) for density in self.density)
        return rows, columns

    def places(self, window: Window) -> NDArray[np.float64]:
        """(2, H, W) row and column in the raster of the pixels of a window of the grid; not finite where there is none.

        They are the same in whatever window a pixel is asked for.
        """
        start = np.array([window.row_off, window.col_off], np.int64)
        sides = (int(window.height), int(window.width))
        rows, columns = (
            np.arange(first // self.step, (first + side - 1) // self.step + 2) * self.step
            for first, side in zip(start.tolist(), sides, strict=True)
        )
        found = np.full((2, *sides), np.nan)
        turn = self.turn / abs((~self.to_pixels).a) if math.isfinite(self.turn) else math.inf
        _interpolate(self.computed(rows, columns), start, self.step, turn, found)
        return found

    def computed(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
        """(2, R, C) row and column in the raster of the centres of some pixels of the grid, without interpolation.

        Args:
            rows: (R,) of the grid.
            columns: (C,) of the grid.
        """
        a, _, c, _, e, f = self.grid.transform
        x, y = np.meshgrid(c + a * (columns + 0.5), f + e * (rows + 0.5))
        if self.transformer is not None:
            x, y = self.transformer.transform(x, y)
        if math.isfinite(self.turn):
            middle = (~self.to_pixels @ (self.shape[1] / 2, self.shape[0] / 2))[0]
            x = x + self.turn * np.round((middle - x) / self.turn)
        a, b, c, d, e, f = tuple(self.to_pixels)[:6]
        with np.errstate(invalid="ignore"):
            return np.stack([d * x + e * y + f, a * x + b * y + c])

    def source(self, places: NDArray[np.float64]) -> Window | None:
        """The window of the raster that is needed for places; None when they all lie outside."""
        limits = []
        inside = np.ones(places.shape[1:], bool)
        for place, length in zip(places, self.shape, strict=True):
            inside &= (place > -1) & (place < length + 1)
        if not inside.any():
            return None
        for place, reach, length in zip(places, self.reach, self.shape, strict=True):
            margin = math.ceil(reach) + 1
            low, high = place.min(where=inside, initial=np.inf), place.max(where=inside, initial=-np.inf)
            limits.append((max(0, math.floor(low) - margin), min(length, math.ceil(high) + margin)))
        (top, bottom), (left, right) = limits
        return Window(left, top, right - left, bottom - top)

    def resample(
        self,
        stored: NDArray[Any],
        states: NDArray[np.uint8],
        source: Window,
        places: NDArray[np.float64],
        nearest: bool,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What is found at places of the raster.

        The nearest pixel says whether there is data. Where it is data that may be mixed, the number is that of all such
        pixels within reach, weighed by their closeness: bilinear interpolation, in a raster as fine as the grid or
        coarser.

        Args:
            stored: (h, w) stored numbers of a window of the raster.
            states: (h, w) MISSING, PRESENT or APART.
            source: The window; `source` gave it.
            places: (2, H, W) as `places` gave them.
            nearest: Mix nothing.

        Returns:
            (H, W) stored numbers and (H, W) bool, True where there is data.
        """
        shape = places.shape[1:]
        found, has_data = np.zeros(shape, stored.dtype), np.zeros(shape, bool)
        offset = (int(source.row_off), int(source.col_off))
        rasters = np.ascontiguousarray(stored), states, offset, self.shape, places
        if nearest:
            _nearest(*rasters, found, has_data)
        elif self.reach == (1, 1):
            _bilinear(*rasters, stored.dtype.kind != "f", found, has_data)
        else:
            _triangles(*rasters, self.reach, stored.dtype.kind != "f", found, has_data)
        return found, has_data


def warp_onto(grid: Grid, raster: Affine, crs: CRS, height: int, width: int) -> Warp | None:
    """Find out where the pixels of a grid lie in a raster.

    Args:
        grid: The grid.
        raster: The raster's geotransform.
        crs: The raster's CRS.
        height: Its rows.
        width: Its columns.

    Returns:
        None when no place of the grid has one in the raster's CRS.
    """
    ours = CRS.from_string(grid.crs)
    transformer = None if ours == crs else Transformer.from_crs(grid.crs, crs.to_wkt(), always_xy=True)
    plain = Warp(grid, (height, width), ~raster, transformer, full_turn(crs))
    found = [(step, *_errors(plain, step)) for step in STEPS]
    step, _, density = next((one for one in found if one[1] <= EXACT_ENOUGH), found[-1])
    if density is None:
        return None
    return Warp(grid, plain.shape, plain.to_pixels, transformer, plain.turn, step, density)


def full_turn(crs: CRS) -> float:
    """360° in units of a CRS of longitude and latitude; infinite for any other."""
    return 2 * math.pi / float(crs.units_factor[1]) if crs.is_geographic else math.inf


def _errors(warp: Warp, step: int) -> tuple[float, tuple[float, float] | None]:
    """How far the centres of cells of `step` pixels lie from where they are interpolated, and the density there."""
    sides = (warp.grid.height, warp.grid.width)
    starts = [np.unique(np.linspace(0, max(side - step, 0), SAMPLES).astype(int)) for side in sides]
    rows, columns = ((start[:, None] + np.array([0, step / 2, step])).ravel() for start in starts)
    places = warp.computed(rows, columns).reshape(2, len(starts[0]), 3, len(starts[1]), 3)
    with np.errstate(invalid="ignore"):
        corners = places[:, :, ::2, :, ::2].mean(axis=(2, 4))
        off = np.abs(corners - places[:, :, 1, :, 1]).max(axis=0)
        down, across = ((places[:, :, 2, :, 0] - places[:, :, 0, :, 0]), (places[:, :, 0, :, 2] - places[:, :, 0, :, 0]))
    known = np.isfinite(off)
    if not known.any():
        return math.inf, None
    # Of rows and columns of the raster, along both sides of a pixel of the grid.
    sizes = np.hypot(down, across)[:, known] / step
    rows_per_pixel, columns_per_pixel = np.median(sizes, axis=1)
    return float(off[known].max()), (float(rows_per_pixel), float(columns_per_pixel))


@njit(nogil=True, cache=True)
def _interpolate(nodes, start, step, turn, found):  # type: ignore[no-untyped-def]
    """Fill in the places between those that were computed, cell by cell."""
    first_row, first_column = start // step
    for r in range(found.shape[1]):
        row, down = (start[0] + r) // step - first_row, (start[0] + r) % step / step
        for column in range(nodes.shape[2] - 1):
            cell = nodes[:, row : row + 2, column : column + 2]
            if step > 1 and cell[1].max() - cell[1].min() > turn / 2:
                continue  # the two ends of the raster's longitudes meet within the cell
            left = (first_column + column) * step - start[1]
            for axis in range(2):
                at_left, at_right = _between(cell[axis, :, 0], down), _between(cell[axis, :, 1], down)
                for c in range(max(0, left), min(found.shape[2], left + step)):
                    across = (c - left) / step
                    found[axis, r, c] = at_left if across == 0 else at_left + across * (at_right - at_left)


@njit(nogil=True, cache=True)
def _between(ends, share):  # type: ignore[no-untyped-def]
    return ends[0] if share == 0 else ends[0] + share * (ends[1] - ends[0])


@njit(nogil=True, cache=True)
def _pixel(row, column, shape):  # type: ignore[no-untyped-def]
    """The pixel of the raster that a place lies in; (-1, -1) outside of it, and for what is no place."""
    if 0 <= row + TIE < shape[0] and 0 <= column + TIE < shape[1]:
        return int(row + TIE), int(column + TIE)
    return -1, -1


@njit(nogil=True, cache=True)
def _nearest(stored, states, offset, shape, places, found, has_data):  # type: ignore[no-untyped-def]
    for r in range(found.shape[0]):
        for c in range(found.shape[1]):
            row, column = _pixel(places[0, r, c], places[1, r, c], shape)
            if row >= 0 and states[row - offset[0], column - offset[1]] != MISSING:
                has_data[r, c] = True
                found[r, c] = stored[row - offset[0], column - offset[1]]


@njit(nogil=True, cache=True)
def _bilinear(stored, states, offset, shape, places, whole, found, has_data):  # type: ignore[no-untyped-def]
    _nearest(stored, states, offset, shape, places, found, has_data)
    last_row, last_column = stored.shape[0] - 1, stored.shape[1] - 1
    for r in range(found.shape[0]):
        for c in range(found.shape[1]):
            row, column = _pixel(places[0, r, c], places[1, r, c], shape)
            if row < 0 or states[row - offset[0], column - offset[1]] != PRESENT:
                continue
            down, across = places[0, r, c] - 0.5, places[1, r, c] - 0.5  # the centre of a pixel is whole
            top, left = math.floor(down), math.floor(across)
            down, across = down - top, across - left
            top, left = top - offset[0], left - offset[1]
            bottom, right = min(top + 1, last_row), min(left + 1, last_column)
            top, left = max(top, 0), max(left, 0)
            total, weights = 0.0, 0.0
            for y, row_weight in ((top, 1 - down), (bottom, down)):
                for x, weight in ((left, row_weight * (1 - across)), (right, row_weight * across)):
                    if states[y, x] == PRESENT:
                        total += weight * stored[y, x]
                        weights += weight
            found[r, c] = math.floor(total / weights + 0.5) if whole else total / weights


@njit(nogil=True, cache=True)
def _triangles(stored, states, offset, shape, places, reach, whole, found, has_data):  # type: ignore[no-untyped-def]
    """The same in a raster that is finer than the grid: by more than the four pixels around a place."""
    _nearest(stored, states, offset, shape, places, found, has_data)
    for r in range(found.shape[0]):
        for c in range(found.shape[1]):
            row, column = _pixel(places[0, r, c], places[1, r, c], shape)
            if row < 0 or states[row - offset[0], column - offset[1]] != PRESENT:
                continue
            down, across = places[0, r, c] - 0.5 - offset[0], places[1, r, c] - 0.5 - offset[1]
            top, bottom = max(0, math.ceil(down - reach[0])), min(stored.shape[0] - 1, math.floor(down + reach[0]))
            left, right = max(0, math.ceil(across - reach[1])), min(stored.shape[1] - 1, math.floor(across + reach[1]))
            total, weights = 0.0, 0.0
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    if states[y, x] == PRESENT:
                        weight = (1 - abs(y - down) / reach[0]) * (1 - abs(x - across) / reach[1])
                        total += weight * stored[y, x]
                        weights += weight
            found[r, c] = math.floor(total / weights + 0.5) if whole else total / weights

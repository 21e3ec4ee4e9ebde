"""Warping: where the pixels of a grid lie in a raster with other pixels, and what is found there.

Done here and not by GDAL's warper, because what is masked must be exactly what is masked without warping. Through
rasterio, GDAL takes "no data" in one band only for data, knows a single number for it, and changes true numbers that
equal it by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window

from imagery.grid import Grid

Shift = tuple[float, float]

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
        shift: (rows, columns) that the raster is moved by, pixels of the grid, positive down and right.
        to_pixels: From coordinates of the raster's CRS to its (column, row).
        to_crs: From the grid's CRS to the raster's; None when they are the same.
        turn: A full turn in units of the raster's CRS, where that is longitude and latitude; else infinite.
        step: Places are computed at every so many pixels of the grid.
        density: (rows, columns) pixels of the raster to one of the grid.
    """

    grid: Grid
    shape: tuple[int, int]
    shift: Shift
    to_pixels: Affine
    to_crs: Transformer | None
    turn: float = math.inf
    step: int = 1
    density: tuple[float, float] = (1.0, 1.0)

    @property
    def spread(self) -> tuple[float, float]:
        """(rows, columns) of the raster over which it is averaged; none where it is as fine as the grid or coarser."""
        rows, columns = (max(0.0, round(density - 1, 1)) for density in self.density)
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
        _interpolate(self.computed(rows, columns), start, self.step, turn, self.shape[1] / 2, found)
        return found

    def computed(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
        """(2, R, C) row and column in the raster of the centres of some pixels of the grid, without interpolation.

        Args:
            rows: (R,) of the grid.
            columns: (C,) of the grid.
        """
        a, _, c, _, e, f = self.grid.transform
        down, right = self.shift
        x, y = np.meshgrid(c + a * (columns + 0.5 - right), f + e * (rows + 0.5 - down))
        if self.to_crs is not None:
            x, y = self.to_crs.transform(x, y)
        a, b, c, d, e, f = tuple(self.to_pixels)[:6]
        with np.errstate(invalid="ignore"):  # infinite where there is none
            if math.isfinite(self.turn):
                middle = (~self.to_pixels @ (self.shape[1] / 2, self.shape[0] / 2))[0]
                x = x + self.turn * np.round((middle - x) / self.turn)
            return np.stack([d * x + e * y + f, a * x + b * y + c])

    def source(self, places: NDArray[np.float64]) -> Window | None:
        """The window of the raster that is needed for places; None when they all lie outside."""
        limits = []
        inside = np.ones(places.shape[1:], bool)
        for place, length in zip(places, self.shape, strict=True):
            inside &= (place > -1) & (place < length + 1)
        if not inside.any():
            return None
        for place, spread, length in zip(places, self.spread, self.shape, strict=True):
            margin = math.ceil(spread / 2) + 2
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

        The nearest pixel says whether there is data. Where it is data that may be mixed, the number is interpolated
        between such pixels (bilinear); in a raster finer than the grid, it is the mean of what is interpolated around.

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
        elif max(self.spread) == 0:
            _bilinear(*rasters, stored.dtype.kind != "f", found, has_data)
        else:
            _averaged(*rasters, self.spread, stored.dtype.kind != "f", found, has_data)
        return found, has_data


def warp_onto(grid: Grid, raster: Affine, crs: CRS, shape: tuple[int, int], shift: Shift = (0, 0)) -> Warp | None:
    """Find out where the pixels of a grid lie in a raster.

    Args:
        grid: The grid.
        raster: The raster's geotransform.
        crs: The raster's CRS.
        shape: Its rows and columns.
        shift: (rows, columns) that it is moved by, pixels of the grid, positive down and right.

    Returns:
        None when no place of the grid has one in the raster's CRS.

    Raises:
        ProjError: The two CRSs have nothing to do with each other.
    """
    to_crs = None if CRS.from_string(grid.crs) == crs else transformer(grid.crs, crs.to_wkt())
    plain = Warp(grid, shape, shift, ~raster, to_crs, full_turn(crs))
    for step in STEPS:
        error, density = _errors(plain, step)
        if error <= EXACT_ENOUGH:
            break
    return None if density is None else replace(plain, step=step, density=density)


def transformer(crs: str, other: str) -> Transformer:
    """From coordinates (x, y) of one CRS to those of another.

    Raises:
        ProjError: There is no way.
    """
    return Transformer.from_crs(crs, other, always_xy=True)


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
        corner = places[:, :, 0, :, 0]
        down, across = places[:, :, 2, :, 0] - corner, places[:, :, 0, :, 2] - corner
    known = np.isfinite(off)
    if not known.any():
        return math.inf, None
    # Of rows and columns of the raster, along both sides of a pixel of the grid.
    sizes = np.hypot(down, across)[:, known] / step
    rows_per_pixel, columns_per_pixel = np.median(sizes, axis=1)
    return float(off[known].max()), (float(rows_per_pixel), float(columns_per_pixel))


# Compiled for whatever types it is called with, so that annotations would say nothing true.
@njit(nogil=True, cache=True)
def _interpolate(nodes, start, step, turn, middle, found):  # type: ignore[no-untyped-def]
    """Fill in the places between those that were computed, cell by cell."""
    first_row, first_column = start // step
    for r in range(found.shape[1]):
        row, down = (start[0] + r) // step - first_row, (start[0] + r) % step / step
        for column in range(nodes.shape[2] - 1):
            cell = nodes[:, row : row + 2, column : column + 2]
            ends_meet = step > 1 and cell[1].max() - cell[1].min() > turn / 2  # those of the raster's longitudes
            if ends_meet:
                cell = cell.copy()
                for corner in range(4):
                    cell[1].flat[corner] -= turn * round((cell[1].flat[corner] - cell[1, 0, 0]) / turn)
                if cell[1].max() - cell[1].min() > turn / 2:
                    continue  # a pole
            left = (first_column + column) * step - start[1]
            for axis in range(2):
                at_left, at_right = _between(cell[axis, :, 0], down), _between(cell[axis, :, 1], down)
                for c in range(max(0, left), min(found.shape[2], left + step)):
                    across = (c - left) / step
                    found[axis, r, c] = at_left if across == 0 else at_left + across * (at_right - at_left)
                    if ends_meet and axis == 1:
                        found[axis, r, c] -= turn * round((found[axis, r, c] - middle) / turn)


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
def _averaged(stored, states, offset, shape, places, spread, whole, found, has_data):  # type: ignore[no-untyped-def]
    """The mean of the interpolated raster over some pixels: of twice the grid's fineness, the mean of the four."""
    _nearest(stored, states, offset, shape, places, found, has_data)
    row_weights, column_weights = np.empty(int(spread[0]) + 4), np.empty(int(spread[1]) + 4)
    for r in range(found.shape[0]):
        for c in range(found.shape[1]):
            row, column = _pixel(places[0, r, c], places[1, r, c], shape)
            if row < 0 or states[row - offset[0], column - offset[1]] != PRESENT:
                continue
            top, rows = _weights(places[0, r, c] - 0.5 - offset[0], spread[0], stored.shape[0], row_weights)
            left, columns = _weights(places[1, r, c] - 0.5 - offset[1], spread[1], stored.shape[1], column_weights)
            total, weights = 0.0, 0.0
            for y in range(rows):
                for x in range(columns):
                    if states[top + y, left + x] == PRESENT:
                        weight = row_weights[y] * column_weights[x]
                        total += weight * stored[top + y, left + x]
                        weights += weight
            found[r, c] = math.floor(total / weights + 0.5) if whole else total / weights


@njit(nogil=True, cache=True)
def _weights(place, spread, length, weights):  # type: ignore[no-untyped-def]
    """The first pixel that counts along one side, how many do, and their weights; a pixel's centre is whole."""
    first = max(0, math.ceil(place - spread / 2 - 1))
    last = min(length - 1, math.floor(place + spread / 2 + 1))
    for pixel in range(first, last + 1):
        away = place - pixel
        if spread > 0:
            weights[pixel - first] = (_integral(away + spread / 2) - _integral(away - spread / 2)) / spread
        else:
            weights[pixel - first] = 1 - abs(away)
    return first, last - first + 1


@njit(nogil=True, cache=True)
def _integral(end):  # type: ignore[no-untyped-def]
    """Of the weight that a pixel has in linear interpolation, 1 - |x|, from -1 to an end."""
    end = min(max(end, -1.0), 1.0)
    return (1 + end) ** 2 / 2 if end < 0 else 1 - (1 - end) ** 2 / 2

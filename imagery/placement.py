"""Bringing a band onto its location's grid: at an offset where its pixels are those of the grid, else warped."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from configs.schema import GridSettings
from imagery.errors import SceneMismatch, SceneUnreadable
from imagery.grid import Grid
from imagery.opening import Band, in_words

Stored = NDArray[Any]
Shift = tuple[float, float]


@dataclass(frozen=True)
class PlacedBand:
    """A band as seen from the grid.

    Attributes:
        band: What is read.
        dataset: Where from: the band's own dataset, or a view of it that is warped onto the grid.
        alpha: Which band of `dataset` is an alpha band, if one is.
        row_off: Row of the grid where the dataset's first row lies.
        col_off: Column of the grid where its first column lies.
        flipped: The dataset's last row is its northernmost.
    """

    band: Band
    dataset: DatasetReader | WarpedVRT
    alpha: int | None
    row_off: int = 0
    col_off: int = 0
    flipped: bool = False

    @property
    def block_rows(self) -> int:
        """Rows of the grid that are best read at once."""
        return int(self.dataset.block_shapes[self.band.index - 1][0])

    def read(self, window: Window) -> tuple[Stored, NDArray[np.bool_] | None]:
        """Stored numbers of a window of the grid, and where there are any.

        Returns:
            (H, W) stored numbers, and (H, W) bool, True where there is data; None when there is data everywhere.

        Raises:
            SceneUnreadable: A block that cannot be read, with the file's name.
        """
        rows, row_pad = _overlap(int(window.row_off) - self.row_off, int(window.height), self.dataset.height)
        cols, col_pad = _overlap(int(window.col_off) - self.col_off, int(window.width), self.dataset.width)
        height, width = rows[1] - rows[0], cols[1] - cols[0]
        if height <= 0 or width <= 0:
            shape = (int(window.height), int(window.width))
            return np.zeros(shape, self.dataset.dtypes[self.band.index - 1]), np.zeros(shape, bool)
        top = self.dataset.height - rows[1] if self.flipped else rows[0]
        stored, has_data = self._read(Window(cols[0], top, width, height))
        if self.flipped:
            stored, has_data = stored[::-1], None if has_data is None else has_data[::-1]
        if any(row_pad) or any(col_pad):
            has_data = np.ones(stored.shape, bool) if has_data is None else has_data
            stored, has_data = np.pad(stored, (row_pad, col_pad)), np.pad(has_data, (row_pad, col_pad))
        return stored, has_data

    def _read(self, window: Window) -> tuple[Stored, NDArray[np.bool_] | None]:
        index = self.band.index
        try:
            stored: Stored = self.dataset.read(index, window=window)
            has_data = self._mask(stored, window)
            if self.alpha is not None:
                opaque = self.dataset.read(self.alpha, window=window) > 0
                has_data = opaque if has_data is None else has_data & opaque
        except RasterioError as error:
            what = f"band {self.band.name} of {self.band.dataset.name}"
            raise SceneUnreadable(f"{what} cannot be read: {in_words(error)}") from error
        if stored.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what is too large for float32 is no number
                numbers = stored.astype(np.float32, copy=False)
            finite = np.isfinite(numbers)
            return numbers, finite if has_data is None else has_data & finite
        return stored, has_data

    def _mask(self, stored: Stored, window: Window) -> NDArray[np.bool_] | None:
        """Where there is data, by what the file declares. GDAL would read again to tell, so integers are compared."""
        flags = self.dataset.mask_flag_enums[self.band.index - 1]
        if flags == [MaskFlags.all_valid]:
            return None
        if flags == [MaskFlags.nodata] and stored.dtype.kind in "ui":
            nodata = whole_number(self.dataset.nodatavals[self.band.index - 1], stored.dtype)
            return None if nodata is None else stored != nodata
        return np.asarray(self.dataset.read_masks(self.band.index, window=window) > 0)


def place(
    band: Band,
    grid: Grid,
    settings: GridSettings,
    stack: ExitStack,
    location: str,
    classes: bool,
    nodata: float | None,
    shift: Shift = (0.0, 0.0),
) -> PlacedBand:
    """Bring a band onto a grid.

    A band whose pixels are those of the grid, to within `grid.tolerance` of a pixel everywhere, is read as it is, at an
    offset of whole pixels. Any other one is warped: data bilinear, classes nearest neighbour.

    Args:
        band: What is to be placed.
        grid: The grid of its location.
        settings: The tolerance, and whether bands may be warped.
        stack: Closes the view of a warped band.
        location: Its name, for messages.
        classes: It holds classes, between which nothing can be interpolated.
        nodata: Stored number that means "no data" when the file does not declare one; needed for warping.
        shift: (rows, columns) that the scene is moved by, pixels of the grid, positive down and right.

    Raises:
        SceneMismatch: It covers nothing of the location, or would have to be warped and may not be.
    """
    dataset, crs = band.dataset, CRS.from_string(grid.crs)
    if dataset.crs is None:
        raise SceneMismatch(f"{dataset.name} has no coordinate reference system")
    same_crs = dataset.crs == crs
    move = Affine.translation(shift[1] * grid.resolution, -shift[0] * grid.resolution)
    transform = move @ dataset.transform
    if same_crs:
        offset = _whole_offset(dataset, transform, grid, settings.tolerance)
        if offset is not None:
            row_off, col_off = offset
            _check_overlap(dataset, grid, location, _span(row_off, col_off, dataset, grid))
            return PlacedBand(band, dataset, band.alpha, row_off, col_off, flipped=transform.e > 0)
    bounds = _bounds(dataset, transform, crs, same_crs)
    _check_overlap(dataset, grid, location, bounds)
    coarser = same_crs and _nests(dataset, transform, grid, settings.tolerance)
    if settings.on_mismatch == "refuse" and not coarser:
        off = max(abs(a - b) for a, b in zip(bounds, grid.bounds, strict=True)) / grid.resolution
        where = f"its corners are {off:.1f} pixels off" if same_crs else f"it is in {dataset.crs.to_string()}"
        raise SceneMismatch(
            f"{dataset.name} is not on the grid of {location} ({_words(grid)}): {where}. Warp it, or set "
            "grid.on_mismatch=warp"
        )
    return _warped(band, transform, grid, crs, stack, classes, band.nodata if band.nodata is not None else nodata)


def whole_number(value: float | None, dtype: np.dtype[Any]) -> int | None:
    """A nodata value as an integer of a type; None when no such number can be stored."""
    if value is None or not np.isfinite(value) or value != int(value):
        return None
    limits = np.iinfo(dtype)
    return int(value) if limits.min <= value <= limits.max else None


def _overlap(start: int, length: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The part of a span that lies within 0 … size, and what is missing of it before and after."""
    stop = start + length
    inside = max(start, 0), min(stop, size)
    return inside, (inside[0] - start, stop - inside[1])


def _whole_offset(dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float) -> tuple[int, int] | None:
    """(row, column) of the grid where a dataset begins; None when its pixels are not those of the grid."""
    a, b, c, d, e, f = tuple(transform)[:6]
    resolution = grid.resolution
    if transform.is_identity or b or d or a <= 0:
        return None
    north = f if e < 0 else f + e * dataset.height
    columns, rows = (c - grid.bounds[0]) / resolution, (grid.bounds[3] - north) / resolution
    col_off, row_off = round(columns), round(rows)
    # An error of the pixel size adds up from one end of the raster to the other.
    stretch = max(abs(a / resolution - 1) * dataset.width, abs(abs(e) / resolution - 1) * dataset.height)
    off = max(abs(columns - col_off), abs(rows - row_off)) + stretch
    return (row_off, col_off) if off <= tolerance else None


def _nests(dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float) -> bool:
    """Whether the pixels of a dataset of another resolution are nevertheless in line with the grid.

    Such is a 20 m band of a 10 m grid: bringing it onto the grid is no mismatch.
    """
    a, b, c, d, e, f = tuple(transform)[:6]
    if transform.is_identity or b or d or a <= 0 or e >= 0:
        return False
    coarsest = max(a, grid.resolution)
    offsets = ((c - grid.bounds[0]) / coarsest, (grid.bounds[3] - f) / coarsest)
    return a != grid.resolution and all(abs(offset - round(offset)) <= max(tolerance, 0.5) for offset in offsets)


def _span(row_off: int, col_off: int, dataset: DatasetReader, grid: Grid) -> tuple[float, float, float, float]:
    left, top = grid.affine @ (col_off, row_off)
    right, bottom = grid.affine @ (col_off + dataset.width, row_off + dataset.height)
    return left, bottom, right, top


def _bounds(dataset: DatasetReader, transform: Affine, crs: CRS, same_crs: bool) -> tuple[float, float, float, float]:
    corners = [transform @ corner for corner in ((0, 0), (dataset.width, 0), (0, dataset.height))]
    corners.append(transform @ (dataset.width, dataset.height))
    xs, ys = zip(*corners, strict=True)
    bounds = (min(xs), min(ys), max(xs), max(ys))
    if same_crs:
        return bounds
    try:
        left, bottom, right, top = transform_bounds(dataset.crs, crs, *bounds)
    except RasterioError as error:
        raise SceneMismatch(
            f"{dataset.name} cannot be brought onto the grid of its location: {in_words(error)}"
        ) from error
    return left, bottom, right, top


def _check_overlap(
    dataset: DatasetReader, grid: Grid, location: str, bounds: tuple[float, float, float, float]
) -> None:
    left, bottom, right, top = grid.bounds
    if bounds[0] >= right or bounds[2] <= left or bounds[1] >= top or bounds[3] <= bottom:
        raise SceneMismatch(f"{dataset.name} covers nothing of {location} ({_words(grid)})")


def _words(grid: Grid) -> str:
    corner = f"{grid.bounds[0]:.10g}, {grid.bounds[3]:.10g} in {grid.crs}"
    return f"{grid.width} x {grid.height} px of {grid.resolution:g} from {corner}"


def _warped(
    band: Band, transform: Affine, grid: Grid, crs: CRS, stack: ExitStack, classes: bool, nodata: float | None
) -> PlacedBand:
    dataset = band.dataset
    # Without a number for it, where the scene does not reach is told by an alpha band.
    alpha = {"src_alpha": band.alpha, "dst_alpha": band.alpha} if band.alpha else {"add_alpha": nodata is None}
    moved = {} if transform == dataset.transform else {"src_transform": transform}
    try:
        warped = WarpedVRT(
            dataset,
            crs=crs,
            transform=grid.affine,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.nearest if classes else Resampling.bilinear,
            src_nodata=nodata,
            **alpha,
            **moved,
        )
    except RasterioError as error:
        raise SceneMismatch(
            f"{dataset.name} cannot be brought onto the grid of its location: {in_words(error)}"
        ) from error
    stack.enter_context(warped)
    return PlacedBand(band, warped, band.alpha or (warped.count if nodata is None else None))

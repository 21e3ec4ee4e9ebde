"""Bringing a band onto its location's grid: at an offset where its pixels are those of the grid, else warped."""

from __future__ import annotations

from collections.abc import Sequence
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

from configs.schema import GridSettings, MaskSettings
from imagery.errors import SceneMismatch, SceneUnreadable
from imagery.grid import Grid
from imagery.opening import Band, in_words

Stored = NDArray[Any]
Part = tuple[Stored, NDArray[np.bool_] | None]
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
        undeclared: Stored numbers that mean "no data" although the file does not declare them.
    """

    band: Band
    dataset: DatasetReader | WarpedVRT
    alpha: int | None
    row_off: int = 0
    col_off: int = 0
    flipped: bool = False
    undeclared: tuple[float, ...] = ()

    @property
    def dtype(self) -> str:
        """Type of its stored numbers."""
        return str(self.dataset.dtypes[self.band.index - 1])

    def reads_like(self, other: PlacedBand) -> bool:
        """Whether both can be read at once."""
        return self.dataset is other.dataset and self.dtype == other.dtype

    @property
    def block_rows(self) -> int:
        """Rows of the grid that are best read at once."""
        return int(self.dataset.block_shapes[self.band.index - 1][0])

    def read(self, window: Window) -> Part:
        """Stored numbers of a window of the grid, and where there are any; see `read_together`."""
        return read_together([self], window)[0]

    def _part(self, stored: Stored, window: Window) -> Part:
        """Stored numbers of a window of the dataset with where they are data."""
        has_data = self._mask(stored, window)
        if self.alpha is not None:
            has_data = _both(has_data, self.dataset.read(self.alpha, window=window) > 0)
        if stored.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what is too large for float32 is no number
                stored = stored.astype(np.float32, copy=False)
            has_data = _both(has_data, np.isfinite(stored))
        for nodata in self.undeclared:
            has_data = _both(has_data, _differs(stored, nodata))
        return stored, has_data

    def _mask(self, stored: Stored, window: Window) -> NDArray[np.bool_] | None:
        """Where there is data, by what the file declares. GDAL would read again to tell, so integers are compared."""
        flags = self.dataset.mask_flag_enums[self.band.index - 1]
        if flags == [MaskFlags.all_valid]:
            return None
        if flags == [MaskFlags.nodata] and stored.dtype.kind in "ui":
            return _differs(stored, self.dataset.nodatavals[self.band.index - 1])
        return np.asarray(self.dataset.read_masks(self.band.index, window=window) > 0)


def read_together(bands: Sequence[PlacedBand], window: Window) -> list[Part]:
    """Stored numbers of a window of the grid, and where there are any.

    Bands of one file are read at once, which is what GDAL is fastest at where a block holds them all.

    Args:
        bands: What to read.
        window: Pixels of the grid.

    Returns:
        For each band (H, W) stored numbers, and (H, W) bool, True where there is data; None when there is everywhere.

    Raises:
        SceneUnreadable: A block that cannot be read, with the file's name.
    """
    parts: dict[int, Part] = {}
    for place, group in enumerate(bands):
        if place in parts:
            continue
        same = [other for other, band in enumerate(bands) if band.reads_like(group)]
        parts |= dict(zip(same, _read([bands[other] for other in same], window), strict=True))
    return [parts[place] for place in range(len(bands))]


def _read(bands: list[PlacedBand], window: Window) -> list[Part]:
    """The same for bands of one file that lie alike."""
    first = bands[0]
    dataset = first.dataset
    rows, row_pad = _overlap(int(window.row_off) - first.row_off, int(window.height), dataset.height)
    cols, col_pad = _overlap(int(window.col_off) - first.col_off, int(window.width), dataset.width)
    height, width = rows[1] - rows[0], cols[1] - cols[0]
    if height <= 0 or width <= 0:
        shape = (int(window.height), int(window.width))
        return [(np.zeros(shape, first.dtype), np.zeros(shape, bool)) for _ in bands]
    top = dataset.height - rows[1] if first.flipped else rows[0]
    inside = Window(cols[0], top, width, height)
    try:
        numbers = dataset.read([band.band.index for band in bands], window=inside)
        parts = [band._part(stored, inside) for band, stored in zip(bands, numbers, strict=True)]
    except RasterioError as error:
        what = f"band {', '.join(band.band.name for band in bands)} of {first.band.dataset.name}"
        raise SceneUnreadable(f"{what} cannot be read: {in_words(error)}") from error
    if first.flipped:
        parts = [(stored[::-1], None if has_data is None else has_data[::-1]) for stored, has_data in parts]
    if any(row_pad) or any(col_pad):
        parts = [_padded(part, (row_pad, col_pad)) for part in parts]
    return parts


def _padded(part: Part, pads: tuple[tuple[int, int], tuple[int, int]]) -> Part:
    """A part with what the file does not reach added as missing."""
    stored, has_data = part
    return np.pad(stored, pads), np.pad(np.ones(stored.shape, bool) if has_data is None else has_data, pads)


def place(
    band: Band,
    grid: Grid,
    settings: GridSettings,
    stack: ExitStack,
    location: str,
    classes: bool,
    masks: MaskSettings,
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
        masks: Which stored numbers mean "no data" although the file does not declare them.
        shift: (rows, columns) that the scene is moved by, pixels of the grid, positive down and right.

    Raises:
        SceneMismatch: It covers nothing of the location, or would have to be warped and may not be.
    """
    dataset, crs = band.dataset, CRS.from_string(grid.crs)
    if dataset.crs is None:
        raise SceneMismatch(f"{dataset.name} has no coordinate reference system")
    same_crs = dataset.crs == crs
    across, down = grid.transform[0], grid.transform[4]
    move = Affine.translation(shift[1] * across, shift[0] * down)
    transform = move @ dataset.transform
    if same_crs:
        offset = _whole_offset(dataset, transform, grid, settings.tolerance)
        if offset is not None:
            row_off, col_off = offset
            _check_overlap(dataset, grid, location, _span(row_off, col_off, dataset, grid))
            undeclared = tuple(number for number in (masks.nodata, band.undeclared) if number is not None)
            return PlacedBand(band, dataset, band.alpha, row_off, col_off, transform.e > 0, undeclared)
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
    known = (band.nodata, band.undeclared, masks.nodata, masks.border)
    nodata = next((number for number in known if number is not None), None)
    return _warped(band, transform, grid, crs, stack, classes, nodata)


def _differs(stored: Stored, nodata: float) -> NDArray[np.bool_] | None:
    """(H, W) where stored numbers are not `nodata`; None when the type cannot even store it."""
    if stored.dtype.kind == "f":
        return np.asarray(stored != stored.dtype.type(nodata))
    limits = np.iinfo(stored.dtype)
    if not (limits.min <= nodata <= limits.max and nodata == int(nodata)):
        return None
    return np.asarray(stored != int(nodata))


def _both(one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Where both have data; None is everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _overlap(start: int, length: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The part of a span that lies within 0 … size, and what is missing of it before and after."""
    stop = start + length
    inside = max(start, 0), min(stop, size)
    return inside, (inside[0] - start, stop - inside[1])


def _whole_offset(dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float) -> tuple[int, int] | None:
    """(row, column) of the grid where a dataset begins; None when its pixels are not those of the grid."""
    a, b, c, d, e, f = tuple(transform)[:6]
    across, down = grid.transform[0], -grid.transform[4]
    if transform.is_identity or b or d or a <= 0:
        return None
    north = f if e < 0 else f + e * dataset.height
    columns, rows = (c - grid.bounds[0]) / across, (grid.bounds[3] - north) / down
    col_off, row_off = round(columns), round(rows)
    # An error of the pixel size adds up from one end of the raster to the other.
    stretch = max(abs(a / across - 1) * dataset.width, abs(abs(e) / down - 1) * dataset.height)
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

"""Reading bands as seen from their location's grid: at an offset, or warped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from imagery.errors import SceneUnreadable
from imagery.opening import Band, in_words
from imagery.warping import APART, MISSING, PRESENT, Warp

Stored = NDArray[Any]
Part = tuple[Stored, NDArray[np.bool_] | None]
KnownPart = tuple[Stored, NDArray[np.bool_]]

# A window that is warped is read in pieces, if it has or needs more pixels than this; down to so small a side.
MOST_PIXELS, LEAST_SIDE = 1 << 20, 32


@dataclass(frozen=True)
class Offset:
    """Where a raster lies whose pixels are those of the grid.

    Attributes:
        row: Row of the grid of its northernmost row.
        column: Column of the grid of its first column.
        flipped: Its last row is the northernmost.
    """

    row: int
    column: int
    flipped: bool


@dataclass(frozen=True)
class PlacedBand:
    """A band as seen from the grid.

    Attributes:
        band: What is read.
        place: How its pixels lie to those of the grid.
        nodata: Stored numbers that mean "no data" although the file does not declare them.
        border: Stored number of an undeclared border, which is not mixed with other numbers.
        classes: It holds classes, or bits: numbers that are not mixed at all.
    """

    band: Band
    place: Offset | Warp
    nodata: tuple[float, ...] = ()
    border: float | None = None
    classes: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers that are given; those of double precision are given in single precision."""
        kind = np.dtype(self.band.dataset.dtypes[self.band.index - 1])
        return np.dtype(np.float32) if kind.kind == "f" else kind

    @property
    def block_rows(self) -> int:
        """Rows of the grid that are best read at once: those of a block of the file."""
        rows = int(self.band.dataset.block_shapes[self.band.index - 1][0])
        return max(1, round(rows / self.place.density[0])) if isinstance(self.place, Warp) else rows

    def read(self, window: Window) -> Part:
        """Stored numbers of a window of the grid, and where there are any; see `read_together`."""
        return read_together([self], window)[0]

    def part(self, stored: Stored, window: Window) -> Part:
        """Stored numbers that were read of a window of the file, with where they are data."""
        has_data = self._mask(stored, window)
        if self.band.alpha is not None:
            has_data = _both(has_data, self.band.dataset.read(self.band.alpha, window=window) > 0)
        if stored.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what is too large for float32 is no number
                stored = stored.astype(np.float32, copy=False)
            has_data = _both(has_data, np.isfinite(stored))
        for nodata in self.nodata:
            has_data = _both(has_data, differs(stored, nodata))
        return stored, has_data

    def _mask(self, stored: Stored, window: Window) -> NDArray[np.bool_] | None:
        """Where there is data, by what the file declares. GDAL would read again to tell, so integers are compared."""
        dataset, index = self.band.dataset, self.band.index
        flags = dataset.mask_flag_enums[index - 1]
        if flags == [MaskFlags.all_valid]:
            return None
        if flags == [MaskFlags.nodata] and stored.dtype.kind in "ui":
            return differs(stored, dataset.nodatavals[index - 1])
        return np.asarray(dataset.read_masks(index, window=window) > 0)


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
    groups: dict[tuple[int, np.dtype[Any]], list[int]] = {}
    for index, band in enumerate(bands):
        groups.setdefault((id(band.band.dataset), band.dtype), []).append(index)
    parts: dict[int, Part] = {}
    for indices in groups.values():
        group = [bands[index] for index in indices]
        place = group[0].place
        found: Sequence[Part] = (
            _read_warped(group, place, window) if isinstance(place, Warp) else _read(group, place, window)
        )
        parts |= dict(zip(indices, found, strict=True))
    return [parts[index] for index in range(len(bands))]


def differs(stored: Stored, number: float) -> NDArray[np.bool_] | None:
    """(H, W) where stored numbers are not `number`; None when that is everywhere, for the type cannot store it."""
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(stored != stored.dtype.type(number))
    limits = np.iinfo(stored.dtype)
    if not (limits.min <= number <= limits.max and number == int(number)):
        return None
    return np.asarray(stored != int(number))


def _read(bands: list[PlacedBand], place: Offset, window: Window) -> list[Part]:
    """Bands of one file whose pixels are those of the grid."""
    dataset = bands[0].band.dataset
    rows, row_pad = _overlap(int(window.row_off) - place.row, int(window.height), dataset.height)
    columns, column_pad = _overlap(int(window.col_off) - place.column, int(window.width), dataset.width)
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    if height <= 0 or width <= 0:
        return [*_nothing(bands, window)]
    top = dataset.height - rows[1] if place.flipped else rows[0]
    parts = _read_file(bands, Window(columns[0], top, width, height))
    if place.flipped:
        parts = [(stored[::-1], None if has_data is None else has_data[::-1]) for stored, has_data in parts]
    if any(row_pad) or any(column_pad):
        parts = [_padded(part, (row_pad, column_pad)) for part in parts]
    return parts


def _read_warped(bands: list[PlacedBand], warp: Warp, window: Window) -> list[KnownPart]:
    """Bands of one file whose pixels are not those of the grid."""
    divisible = max(window.width, window.height) > LEAST_SIDE
    if divisible and window.width * window.height > MOST_PIXELS:
        return _read_in_halves(bands, warp, window)
    places = warp.places(window)
    source = warp.source(places)
    if source is None:
        return _nothing(bands, window)
    if divisible and source.width * source.height > 4 * MOST_PIXELS:
        return _read_in_halves(bands, warp, window)
    parts = []
    for band, (stored, has_data) in zip(bands, _read_file(bands, source), strict=True):
        states = np.full(stored.shape, PRESENT, np.uint8)
        if band.border is not None:
            inner = differs(stored, band.border)
            if inner is not None:
                states[~inner] = APART
        if has_data is not None:
            states[~has_data] = MISSING
        parts.append(warp.resample(stored, states, source, places, band.classes))
    return parts


def _read_in_halves(bands: list[PlacedBand], warp: Warp, window: Window) -> list[KnownPart]:
    """The same for a window in two parts, above one another or side by side."""
    row, column, height, width = (int(n) for n in (window.row_off, window.col_off, window.height, window.width))
    if height >= width:
        axis, half = 0, height // 2
        halves = Window(column, row, width, half), Window(column, row + half, width, height - half)
    else:
        axis, half = 1, width // 2
        halves = Window(column, row, half, height), Window(column + half, row, width - half, height)
    ones, others = (_read_warped(bands, warp, part) for part in halves)
    return [
        (np.concatenate([one, other], axis), np.concatenate([has_data, other_has_data], axis))
        for (one, has_data), (other, other_has_data) in zip(ones, others, strict=True)
    ]


def _read_file(bands: list[PlacedBand], window: Window) -> list[Part]:
    """Bands of one file in a window of it.

    Raises:
        SceneUnreadable: A block that cannot be read.
    """
    dataset = bands[0].band.dataset
    try:
        numbers = dataset.read([band.band.index for band in bands], window=window)
        return [band.part(stored, window) for band, stored in zip(bands, numbers, strict=True)]
    except RasterioError as error:
        what = f"band {', '.join(band.band.name for band in bands)} of {dataset.name}"
        raise SceneUnreadable(f"{what} cannot be read: {in_words(error)}") from error


def _nothing(bands: list[PlacedBand], window: Window) -> list[KnownPart]:
    """What there is where a file does not reach."""
    shape = (int(window.height), int(window.width))
    return [(np.zeros(shape, band.dtype), np.zeros(shape, bool)) for band in bands]


def _padded(part: Part, pads: tuple[tuple[int, int], tuple[int, int]]) -> Part:
    """A part with what the file does not reach added as missing."""
    stored, has_data = part
    return np.pad(stored, pads), np.pad(np.ones(stored.shape, bool) if has_data is None else has_data, pads)


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

"""One pass over a scene: what its tiles and bands hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.windows import Window

from imagery.grid import Grid, tile_ids
from imagery.masks import CLOUDY, EMPTY, Cause
from imagery.reading import SceneReader
from imagery.statistics import BandStats
from imagery.tally import BucketTable, Tally, count_causes, joined, tally

# Rows of a block are read by one thread, some columns at a time: few enough pixels to stay in the processor's cache.
PIXELS_AT_ONCE, MOST_ROWS = 1 << 20, 2048


@dataclass(frozen=True)
class Survey:
    """What one pass over a scene gives.

    Attributes:
        tiles: Its tiles, one a row.
        stats: Statistics of the valid pixels, by band.
        valid_fraction: Share of pixels that count.
        data_fraction: Share of pixels with data, cloudy or not.
        cloud_fraction: Share of the pixels with data that are cloud or its shadow.
        masked: Share of pixels that do not count, by cause; causes that do not occur are left out.
    """

    tiles: gpd.GeoDataFrame
    stats: dict[str, BandStats]
    valid_fraction: float
    data_fraction: float
    cloud_fraction: float
    masked: dict[str, float]


@dataclass(frozen=True)
class _Part:
    """Some rows of tiles: causes and bands tile by tile, and pixel by pixel where tiles overlap."""

    causes: NDArray[np.int64]
    bands: tuple[Tally, ...]
    pixel_causes: NDArray[np.int64]
    pixel_bands: tuple[Tally, ...]


def survey(
    open_reader: Callable[[], SceneReader],
    bands: tuple[str, ...],
    tile_size: int,
    stride: int | None = None,
    threads: int | None = None,
) -> Survey:
    """Read a scene once, some rows of tiles at a time, and describe its tiles and bands.

    Args:
        open_reader: Opens the scene; called once by each thread.
        bands: Names of its bands.
        tile_size: Side of a tile, pixels.
        stride: Pixels from one tile to the next; None is `tile_size`.
        threads: How many read side by side; None is one a core.

    Returns:
        Tiles with `tile_id, row_off, col_off, height, width, geometry` (EPSG:4326), `valid_fraction`,
        `cloud_fraction` and per band `<band>_mean, _std, _p02, _p98` of the valid pixels (NaN without any). Percentiles
        are right to 0.5 % of their value. The result does not depend on the number of threads.

    Raises:
        SceneUnreadable: A block that cannot be read.
    """
    with open_reader() as reader:
        grid, location = reader.grid, reader.scene.location
        steps = list(_row_groups(grid, tile_size, stride, reader.block_rows))
        count = min(threads or _cores(), len(steps))
        if count == 1:
            parts = [_survey_rows(reader, bands, rows, tile_size, stride) for rows in steps]
    if count > 1:
        parts = _side_by_side(open_reader, bands, steps, tile_size, stride, count)
    tiles = tuple(joined([part.bands[channel] for part in parts]) for channel in range(len(bands)))
    pixels = tuple(joined([part.pixel_bands[channel] for part in parts]) for channel in range(len(bands)))
    frame = _frame(grid, location, bands, np.concatenate([part.causes for part in parts]), tiles, tile_size, stride)
    causes = np.sum([part.pixel_causes.sum(axis=0) for part in parts], axis=0)
    size, empty = grid.width * grid.height, int(causes[list(EMPTY)].sum())
    return Survey(
        frame,
        {band: counted.stats() for band, counted in zip(bands, pixels, strict=True)},
        valid_fraction=float(causes[Cause.VALID] / size),
        data_fraction=(size - empty) / size,
        cloud_fraction=float(causes[list(CLOUDY)].sum() / max(size - empty, 1)),
        masked={cause.name.lower(): float(causes[cause] / size) for cause in Cause if cause and causes[cause]},
    )


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _row_groups(grid: Grid, tile_size: int, stride: int | None, block_rows: int) -> Iterator[tuple[int, int]]:
    """(first, last) row offset of the tiles that one thread reads after another: about a block of the file."""
    tops = np.unique(grid.tile_table(tile_size, stride)["row_off"])
    at_once = max(1, min(block_rows, MOST_ROWS) // (stride or tile_size))
    for first in range(0, len(tops), at_once):
        group = tops[first : first + at_once]
        yield int(group[0]), int(group[-1])


def _side_by_side(
    open_reader: Callable[[], SceneReader],
    bands: tuple[str, ...],
    steps: list[tuple[int, int]],
    tile_size: int,
    stride: int | None,
    threads: int,
) -> list[_Part]:
    """The parts of a scene, read by several threads, each with files of its own: GDAL's cannot be shared."""
    waiting: SimpleQueue[int] = SimpleQueue()
    for index in range(len(steps)):
        waiting.put(index)
    found: dict[int, _Part] = {}
    failed: dict[int, Exception] = {}

    def work() -> None:
        with open_reader() as reader:
            while not failed:
                try:
                    index = waiting.get_nowait()
                except Empty:
                    return
                try:
                    found[index] = _survey_rows(reader, bands, steps[index], tile_size, stride)
                except Exception as error:
                    failed[index] = error

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
    if failed:  # all before the first one were read or failed as well: it is the same with any number of threads
        raise failed[min(failed)]
    return [found[index] for index in range(len(steps))]


def _survey_rows(
    reader: SceneReader, bands: tuple[str, ...], rows: tuple[int, int], tile_size: int, stride: int | None
) -> _Part:
    """Read the tiles whose row offset is within `rows`, and count them, some columns at a time."""
    grid = reader.grid
    windows = _windows(grid, tile_size, stride, *rows)
    height = int((windows[:, 0] + windows[:, 2]).max()) - rows[0]
    columns = np.unique(windows[:, 1])
    at_once = max(1, PIXELS_AT_ONCE // height // (stride or tile_size))
    order, parts = [], []
    for first in range(0, len(columns), at_once):
        group = columns[first : first + at_once]
        inside = np.flatnonzero((windows[:, 1] >= group[0]) & (windows[:, 1] <= group[-1]))
        order.append(inside)
        parts.append(_survey_window(reader, bands, windows[inside], tile_size, stride))
    place = np.argsort(np.concatenate(order))
    tallies = [joined([part.bands[channel] for part in parts]) for channel in range(len(bands))]
    return _Part(
        np.concatenate([part.causes for part in parts])[place],
        tuple(replace(counted, tiles=counted.tiles[place]) for counted in tallies),
        np.concatenate([part.pixel_causes for part in parts]),
        tuple(joined([part.pixel_bands[channel] for part in parts]) for channel in range(len(bands))),
    )


def _survey_window(
    reader: SceneReader, bands: tuple[str, ...], windows: NDArray[np.int64], tile_size: int, stride: int | None
) -> _Part:
    """Read the rectangle that some tiles cover, and count it."""
    (top, left), (bottom, right) = windows[:, :2].min(axis=0), (windows[:, :2] + windows[:, 2:]).max(axis=0)
    stored = reader.read_stored(Window(left, top, right - left, bottom - top))
    tables = [
        BucketTable.of(numbers.dtype, *reader.scaling(band)) for band, numbers in zip(bands, stored.bands, strict=True)
    ]

    def count(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[Tally, ...]]:
        causes = count_causes(stored.causes, places)
        valid = causes[:, Cause.VALID]
        inputs = zip(stored.bands, tables, strict=True)
        return causes, tuple(tally(numbers, stored.causes, places, valid, table) for numbers, table in inputs)

    tiles = count(windows - (top, left, 0, 0))
    if stride is None or stride == tile_size:
        return _Part(*tiles, *tiles)
    # Where tiles overlap, each pixel is counted once, in the cell of the first tile that holds it.
    grid = reader.grid
    end_row = bottom if bottom == grid.height else windows[-1, 0] + stride
    end_column = right if right == grid.width else windows[-1, 1] + stride
    return _Part(*tiles, *count(_cells(stride, int(end_row - top), int(end_column - left))))


def _windows(grid: Grid, tile_size: int, stride: int | None, first: int, last: int) -> NDArray[np.int64]:
    """(N, 4) row, column, height, width of the tiles whose row offset is between two."""
    table = grid.tile_table(tile_size, stride)
    windows = np.stack([table[name] for name in ("row_off", "col_off", "height", "width")], axis=1)
    return windows[(windows[:, 0] >= first) & (windows[:, 0] <= last)]


def _cells(side: int, height: int, width: int) -> NDArray[np.int64]:
    """(N, 4) windows that cover a rectangle once."""
    tops, lefts = np.arange(0, height, side), np.arange(0, width, side)
    rows, columns = np.repeat(tops, len(lefts)), np.tile(lefts, len(tops))
    heights, widths = np.minimum(side, height - rows), np.minimum(side, width - columns)
    return np.stack([rows, columns, heights, widths], axis=1)


def _frame(
    grid: Grid,
    location: str,
    bands: tuple[str, ...],
    causes: NDArray[np.int64],
    tallies: tuple[Tally, ...],
    tile_size: int,
    stride: int | None,
) -> gpd.GeoDataFrame:
    """The tiles of a scene, one a row."""
    table = grid.tile_table(tile_size, stride)
    area = table["height"] * table["width"]
    columns = {
        "tile_id": tile_ids(location, table["row_off"], table["col_off"]),
        **table,
        "valid_fraction": causes[:, Cause.VALID] / area,
        "cloud_fraction": causes[:, list(CLOUDY)].sum(axis=1) / area,
    }
    for band, counted in zip(bands, tallies, strict=True):
        names = [f"{band}_{name}" for name in ("mean", "std", "p02", "p98")]
        columns |= dict(zip(names, counted.described().T, strict=True))
    return gpd.GeoDataFrame(pd.DataFrame(columns), geometry=grid.footprints(table), crs="EPSG:4326")

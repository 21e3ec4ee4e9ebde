"""One pass over a scene: what its tiles and bands hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from queue import Empty, SimpleQueue

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.windows import Window

from imagery.grid import Grid, TileTable, tile_ids
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
class _Tiling:
    """The tiles of a scene, and cells that hold each of its pixels once: where tiles do not overlap, the tiles.

    Attributes:
        tiles: (N, 4) row, column, height, width.
        cells: (M, 4) the same. They begin where tiles do; those that begin further on lie within the last tile.
    """

    tiles: NDArray[np.int64]
    cells: NDArray[np.int64]

    @classmethod
    def of(cls, grid: Grid, tile_size: int, stride: int | None) -> _Tiling:
        tiles = _windows(grid.tile_table(tile_size, stride))
        return cls(tiles, tiles if stride in (None, tile_size) else _windows(grid.tile_table(stride)))


@dataclass(frozen=True)
class _Counts:
    """What was counted in some windows: which they are, their causes (N, len(Cause)), and their bands."""

    index: NDArray[np.int64]
    causes: NDArray[np.int64]
    bands: tuple[Tally, ...]


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
        tiling = _Tiling.of(grid, tile_size, stride)
        steps = _spans(tiling.tiles[:, 0], min(reader.block_rows, MOST_ROWS) // (stride or tile_size))
        count = min(threads or _cores(), len(steps))
        if count == 1:
            parts = [_survey_rows(reader, bands, tiling, rows) for rows in steps]
    if count > 1:
        parts = _side_by_side(open_reader, bands, tiling, steps, count)
    tiles, cells = (_merged(list(counted)) for counted in zip(*parts, strict=True))
    frame = _frame(grid, location, bands, tiles, grid.tile_table(tile_size, stride))
    causes = cells.causes.sum(axis=0)
    size, empty = grid.width * grid.height, int(causes[list(EMPTY)].sum())
    return Survey(
        frame,
        {band: counted.stats() for band, counted in zip(bands, cells.bands, strict=True)},
        valid_fraction=float(causes[Cause.VALID] / size),
        data_fraction=(size - empty) / size,
        cloud_fraction=float(causes[list(CLOUDY)].sum() / max(size - empty, 1)),
        masked={cause.name.lower(): float(causes[cause] / size) for cause in Cause if cause and causes[cause]},
    )


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _spans(offsets: NDArray[np.int64], at_once: int) -> list[tuple[int, int]]:
    """Runs of so many different offsets: where each begins, and where the next one does. The last one has no end."""
    starts = np.unique(offsets)[:: max(1, at_once)].tolist()
    return list(pairwise([*starts, np.iinfo(np.int64).max]))


def _side_by_side(
    open_reader: Callable[[], SceneReader],
    bands: tuple[str, ...],
    tiling: _Tiling,
    steps: list[tuple[int, int]],
    threads: int,
) -> list[tuple[_Counts, _Counts]]:
    """The parts of a scene, read by several threads, each with files of its own: GDAL's cannot be shared."""
    waiting: SimpleQueue[int] = SimpleQueue()
    for index in range(len(steps)):
        waiting.put(index)
    found: dict[int, tuple[_Counts, _Counts]] = {}
    failed: dict[int, Exception] = {}

    def work() -> None:
        with open_reader() as reader:
            while not failed:
                try:
                    index = waiting.get_nowait()
                except Empty:
                    return
                try:
                    found[index] = _survey_rows(reader, bands, tiling, steps[index])
                except Exception as error:
                    failed[index] = error

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
    if failed:  # all before the first one were read or failed as well: it is the same with any number of threads
        raise failed[min(failed)]
    return [found[index] for index in range(len(steps))]


def _survey_rows(
    reader: SceneReader, bands: tuple[str, ...], tiling: _Tiling, rows: tuple[int, int]
) -> tuple[_Counts, _Counts]:
    """Read the tiles that begin in some rows, and count them and their cells, some columns at a time."""
    tiles = tiling.tiles[_begin_in(tiling.tiles[:, 0], rows)]
    lefts = np.unique(tiles[:, 1])
    height, step = int((tiles[:, 0] + tiles[:, 2]).max()) - rows[0], int(lefts[1]) if len(lefts) > 1 else 1
    parts = [
        _survey_window(reader, bands, tiling, rows, columns)
        for columns in _spans(lefts, PIXELS_AT_ONCE // height // step)
    ]
    counted, cells = (_merged(list(counts)) for counts in zip(*parts, strict=True))
    return counted, cells


def _survey_window(
    reader: SceneReader, bands: tuple[str, ...], tiling: _Tiling, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[_Counts, _Counts]:
    """Read the rectangle of the tiles that begin in some rows and columns, and count them and their cells."""
    tiles, cells = (
        np.flatnonzero(_begin_in(windows[:, 0], rows) & _begin_in(windows[:, 1], columns))
        for windows in (tiling.tiles, tiling.cells)
    )
    ends = tiling.tiles[tiles, :2] + tiling.tiles[tiles, 2:]
    (top, left), (bottom, right) = (rows[0], columns[0]), ends.max(axis=0).tolist()
    stored = reader.read_stored(Window(left, top, right - left, bottom - top))
    tables = [
        BucketTable.of(numbers.dtype, *reader.scaling(band)) for band, numbers in zip(bands, stored.bands, strict=True)
    ]

    def count(index: NDArray[np.int64], windows: NDArray[np.int64]) -> _Counts:
        places = windows[index] - (top, left, 0, 0)
        causes = count_causes(stored.causes, places)
        valid = causes[:, Cause.VALID]
        inputs = zip(stored.bands, tables, strict=True)
        return _Counts(
            index, causes, tuple(tally(numbers, stored.causes, places, valid, table) for numbers, table in inputs)
        )

    counted = count(tiles, tiling.tiles)
    return counted, counted if tiling.cells is tiling.tiles else count(cells, tiling.cells)


def _merged(parts: list[_Counts]) -> _Counts:
    """Counts of different windows as one, in the order of the windows, so that sums are rounded in one way."""
    index = np.concatenate([part.index for part in parts])
    order = np.argsort(index)
    tallies = [joined([part.bands[channel] for part in parts]) for channel in range(len(parts[0].bands))]
    return _Counts(
        index[order],
        np.concatenate([part.causes for part in parts])[order],
        tuple(replace(counted, tiles=counted.tiles[order]) for counted in tallies),
    )


def _begin_in(offsets: NDArray[np.int64], span: tuple[int, int]) -> NDArray[np.bool_]:
    return (offsets >= span[0]) & (offsets < span[1])


def _windows(table: TileTable) -> NDArray[np.int64]:
    """(N, 4) row, column, height, width."""
    return np.stack([table[name] for name in ("row_off", "col_off", "height", "width")], axis=1)


def _frame(grid: Grid, location: str, bands: tuple[str, ...], counted: _Counts, table: TileTable) -> gpd.GeoDataFrame:
    """The tiles of a scene, one a row."""
    area = table["height"] * table["width"]
    columns = {
        "tile_id": tile_ids(location, table["row_off"], table["col_off"]),
        **table,
        "valid_fraction": counted.causes[:, Cause.VALID] / area,
        "cloud_fraction": counted.causes[:, list(CLOUDY)].sum(axis=1) / area,
    }
    for band, tallied in zip(bands, counted.bands, strict=True):
        names = [f"{band}_{name}" for name in ("mean", "std", "p02", "p98")]
        columns |= dict(zip(names, tallied.described().T, strict=True))
    return gpd.GeoDataFrame(pd.DataFrame(columns), geometry=grid.footprints(table), crs="EPSG:4326")

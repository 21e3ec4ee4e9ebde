"""Heatmaps as cloud-optimised GeoTIFF, written some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from imagery.grid import Grid, Tile
from imagery.outputs.blending import RowBlender, Rows
from imagery.outputs.cog import write_cog
from imagery.statistics import BandStats


@contextmanager
def heatmap(
    path: Path, grid: Grid, description: str, tags: dict[str, str], tile_size: int, stride: int | None = None
) -> Iterator[HeatmapWriter]:
    """Write a heatmap tile by tile; it becomes a COG when the block ends well.

    It is float32, NaN for no score, with averaged overviews, and with exact statistics of its scores in the metadata
    that GDAL and QGIS read (`STATISTICS_MINIMUM`, …). The same scores give the same bytes.

    Args:
        path: The GeoTIFF to write.
        grid: The scene's own grid.
        description: What the band holds.
        tags: Metadata items, e.g. the detector's version.
        tile_size: Side of a tile, pixels.
        stride: From one tile to the next, pixels; None is `tile_size`, less blends overlapping tiles.
    """
    with write_cog(path, grid, (description,), tags) as dataset:
        writer = HeatmapWriter(dataset, RowBlender(grid, tile_size, stride))
        yield writer
        writer.finish()


class HeatmapWriter:
    """Takes the tiles of a heatmap, row by row."""

    def __init__(self, dataset: rasterio.io.DatasetWriter, blender: RowBlender) -> None:
        self._dataset, self._blender = dataset, blender
        self._stats = BandStats()

    def add(self, tile: Tile, values: NDArray[np.float32]) -> None:
        """Take (S, S) values of a tile, NaN where there is no score; what lies beyond its window is left out."""
        done = self._blender.add(tile, values)
        if done is not None:
            self._write(done)

    def finish(self) -> None:
        """Write what is still held, and the statistics of all."""
        self._write(self._blender.rest())
        stats, pixels = self._stats, self._dataset.width * self._dataset.height
        found = {"VALID_PERCENT": 100 * stats.count / pixels}
        if stats.count:
            found |= {"MINIMUM": stats.minimum, "MAXIMUM": stats.maximum, "MEAN": stats.mean, "STDDEV": stats.std}
        self._dataset.update_tags(1, **{f"STATISTICS_{name}": f"{value:.14g}" for name, value in found.items()})

    def _write(self, rows: Rows) -> None:
        top, values = rows
        self._stats = self._stats.merge(BandStats.of(values[~np.isnan(values)]))
        self._dataset.write(values, 1, window=Window(0, top, values.shape[1], len(values)))

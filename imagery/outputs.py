"""Outputs: scores as GeoParquet, heatmaps as cloud-optimised GeoTIFF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from configs.workspace import whole_file
from imagery.grid import Grid


def write_scores(path: Path, scores: gpd.GeoDataFrame) -> None:
    """Write the scores of a scene (see `docs/architecture.md` for the columns), whole or not at all."""
    with whole_file(path) as temporary:
        scores.to_parquet(temporary, index=False, compression="zstd")


@contextmanager
def heatmap(path: Path, grid: Grid, description: str, tags: dict[str, str]) -> Iterator[HeatmapWriter]:
    """Write a heatmap strip by strip; it becomes a COG (float32, NaN for no score, overviews) when the block ends well.

    Args:
        path: The GeoTIFF to write.
        grid: The scene's own grid.
        description: What the band holds.
        tags: Metadata items, e.g. the detector's version.
    """
    with whole_file(path) as temporary:
        plain = temporary.with_name(temporary.stem + ".plain.tif")
        profile = {
            "driver": "GTiff",
            "dtype": "float32",
            "count": 1,
            "nodata": np.nan,
            "crs": grid.crs,
            "transform": grid.affine,
            "width": grid.width,
            "height": grid.height,
        }
        try:
            with rasterio.open(plain, "w", **profile) as dataset:
                dataset.set_band_description(1, description)
                dataset.update_tags(**tags)
                yield HeatmapWriter(dataset)
            options = {"compress": "ZSTD", "predictor": "YES", "blocksize": 256, "overview_resampling": "AVERAGE"}
            copy_raster(plain, temporary, driver="COG", **options)
        finally:
            plain.unlink(missing_ok=True)


class HeatmapWriter:
    """Takes the windows of a heatmap."""

    def __init__(self, dataset: rasterio.io.DatasetWriter) -> None:
        self._dataset = dataset

    def write(self, values: NDArray[np.float32], window: Window) -> None:
        """Write (H, W) values, NaN where there is no score."""
        self._dataset.write(values.astype(np.float32, copy=False), 1, window=window)

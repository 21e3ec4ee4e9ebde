"""Cloud-optimised GeoTIFFs of floats, written window by window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.io import DatasetWriter
from rasterio.shutil import copy as copy_raster

from configs.workspace import whole_file
from imagery.grid import Grid

OPTIONS = {
    "compress": "ZSTD",
    "predictor": "YES",
    "blocksize": 256,
    "overview_resampling": "AVERAGE",
    "bigtiff": "IF_SAFER",
}


@contextmanager
def write_cog(
    path: Path, grid: Grid, bands: tuple[str, ...], tags: dict[str, str], **options: Any
) -> Iterator[DatasetWriter]:
    """A raster to write windows to, float32 and NaN for no data, which becomes a COG when the block ends well.

    Args:
        path: The GeoTIFF to write.
        grid: Where it lies.
        bands: What each band holds.
        tags: Metadata items.
        options: Further creation options of GDAL's COG driver.
    """
    with whole_file(path) as temporary:
        plain = temporary.with_name(temporary.stem + ".plain.tif")
        profile = {
            "driver": "GTiff",
            "dtype": "float32",
            "count": len(bands),
            "nodata": np.nan,
            "crs": grid.crs,
            "transform": grid.affine,
            "width": grid.width,
            "height": grid.height,
            "bigtiff": "IF_SAFER",
        }
        try:
            with rasterio.open(plain, "w", **profile) as dataset:
                dataset.descriptions = bands
                dataset.update_tags(**tags)
                yield dataset
            copy_raster(plain, temporary, driver="COG", **OPTIONS, **options)
        finally:
            plain.unlink(missing_ok=True)

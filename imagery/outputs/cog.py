"""Cloud-optimised GeoTIFFs of floats, written window by window."""

from __future__ import annotations

import errno
import os
import shutil
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

LEAST_FREE = 1 << 20  # bytes; with less left, a raster may not have been written to its end
OPTIONS = {
    "compress": "ZSTD",
    "predictor": "YES",
    "blocksize": 256,
    "overview_resampling": "AVERAGE",
    "bigtiff": "IF_SAFER",
}


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """See that a disk that was too small for a raster is told, whatever GDAL made of it.

    It says so in many ways, and sometimes not at all, when the last bytes are those that do not fit: the raster is then
    cut short, and is found to be so when it is read. While its files are there, the disk has no room left.
    """
    try:
        yield
    except Exception as error:
        if _full(folder):
            raise _no_space(folder) from error
        raise
    if _full(folder):
        raise _no_space(folder)


def _full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < LEAST_FREE


def _no_space(folder: Path) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


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

    Raises:
        OSError: The disk is full (`ENOSPC`).
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
            with _room(path.parent):
                with rasterio.open(plain, "w", **profile) as dataset:
                    dataset.descriptions = bands
                    dataset.update_tags(**tags)
                    yield dataset
                copy_raster(plain, temporary, driver="COG", **OPTIONS, **options)
        finally:
            plain.unlink(missing_ok=True)

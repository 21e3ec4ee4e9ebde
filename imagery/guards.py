"""What is refused before it is read: rasters that point elsewhere, and sizes that no instrument's scene has."""

from __future__ import annotations

import os

import numpy as np
from rasterio.enums import Interleaving
from rasterio.io import DatasetReader

from configs.schema import GridSettings
from imagery.errors import SceneMismatch, SceneUnreadable
from imagery.grid import Grid

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a TIFF and a BigTIFF begin
BESIDE = frozenset({".msk", ".ovr"})  # files beside a raster that GDAL opens with whatever driver they ask for
ELSEWHERE = ("OVERVIEW_FILE", "MASK_OVERVIEW_DATASET")  # metadata that name another file

MOST_BLOCK = 1 << 30  # bytes: a block is decoded whole, by each thread that reads
MOST_TILES = 500_000  # of a scene: 45 000 × 45 000 pixels in tiles of 64
MOST_AT_ONCE = 200_000_000  # pixels of a row of tiles, which is read at once
MOST_DENSE = 500.0  # pixels of a raster along one of the grid


def check_beside(path: str) -> None:
    """Refuse a raster of this machine whose mask or overviews lie in another file that is no TIFF.

    GDAL would take a VRT, or the description of a web service, and follow it to any file or address.

    Args:
        path: The raster.

    Raises:
        SceneUnreadable: There is such a file.
    """
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder)
    except OSError:
        return  # it is said when the raster itself is opened
    # By their endings first: a folder may hold years of scenes, and is looked through for each that is opened.
    for beside in (other for other in names if other[-4:].lower() in BESIDE):
        other = os.path.join(folder, beside)
        if beside.lower().startswith(f"{name.lower()}.") and not _is_tiff(other):
            raise SceneUnreadable(
                f"{other} is no TIFF, so {path} is not read: such a mask or pyramid could point at any file or "
                "address. Remove it"
            )


def check_dataset(dataset: DatasetReader) -> None:
    """Refuse a raster whose metadata name another file, and one that cannot be read piece by piece.

    Raises:
        SceneUnreadable: It does, or it cannot.
    """
    named = sorted(dataset.tags(ns="OVERVIEWS").keys() & set(ELSEWHERE))
    if named:
        raise SceneUnreadable(
            f"{dataset.name} keeps its overviews in another file ({named[0]}), which could be any file or address: "
            "write it anew with `gdal_translate`"
        )
    together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = height * width * np.dtype(kind).itemsize * together
        if size > MOST_BLOCK:
            raise SceneUnreadable(
                f"{dataset.name} is stored in blocks of {width} x {height} pixels, {size / 2**30:.1f} GB each: write "
                "it anew with `gdal_translate -of COG`"
            )


def check_grid(grid: Grid, settings: GridSettings, name: str) -> None:
    """Refuse a grid of a size that is not meant, or whose tiles are too many to keep.

    Args:
        grid: The grid of a location.
        settings: Size and distance of its tiles.
        name: The scene, for messages.

    Raises:
        SceneMismatch: It has too many tiles, or its rows are too long.
    """
    size, step = settings.tile_size, settings.stride or settings.tile_size
    rows, columns = (-(-max(0, length - size) // step) + 1 for length in (grid.height, grid.width))
    if rows * columns > MOST_TILES or grid.width * size > MOST_AT_ONCE:
        raise SceneMismatch(
            f"{name} is to be read as {grid.width} x {grid.height} pixels, {rows * columns} tiles of {size}: more than "
            f"{MOST_TILES} tiles, or rows of more than {MOST_AT_ONCE // size} pixels, are not read. Cut the scene, or "
            "choose a greater grid.tile_size or grid.resolution"
        )


def check_density(dataset: DatasetReader, density: tuple[float, float]) -> None:
    """Refuse a raster that is so much finer than its location's grid that nothing else is left of it.

    Args:
        dataset: The raster.
        density: (rows, columns) of it to one of the grid.

    Raises:
        SceneMismatch: It is.
    """
    if max(density) > MOST_DENSE:
        raise SceneMismatch(
            f"the pixels of {dataset.name} are {max(density):.0f} times finer than those of its location: check its "
            "geotransform, or set grid.resolution"
        )


def _is_tiff(path: str) -> bool:
    if not os.path.isfile(path):  # a pipe would never end
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) in TIFF
    except OSError:
        return False

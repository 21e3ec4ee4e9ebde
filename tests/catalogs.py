"""Catalogs without rasters: scenes as a survey would have described them, entered one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from imagery.catalog import Catalog, SceneRecord
from imagery.grid import Grid
from imagery.sources import Scene, SceneFile
from imagery.statistics import BandStats
from tests.rasters import DAY, NORTH, UTM, WEST

BANDS = ("B02", "B08")
SIZE = 16  # of a tile, pixels


def grid_at(west: float = WEST, north: float = NORTH, side: int = 48, crs: str = UTM) -> Grid:
    """A grid of `side` × `side` pixels of 10 m."""
    return Grid(crs, (10, 0, west, 0, -10, north), side, side)


def tile_frame(grid: Grid, location: str = "here", seed: int = 0) -> gpd.GeoDataFrame:
    """The tiles of a grid, with numbers that depend on the seed."""
    draw, tiles = np.random.default_rng(seed), grid.tiles(SIZE)
    columns: dict[str, Any] = {
        "tile_id": [tile.tile_id(location) for tile in tiles],
        **{name: [getattr(tile, name) for tile in tiles] for name in ("row_off", "col_off", "height", "width")},
        "valid_fraction": draw.random(len(tiles)),
        "cloud_fraction": draw.random(len(tiles)),
        **{
            f"{band}_{name}": draw.random(len(tiles), np.float32)
            for band in BANDS
            for name in ("mean", "std", "p02", "p98")
        },
    }
    return gpd.GeoDataFrame(columns, geometry=grid.footprints(tiles), crs="EPSG:4326")


def scene_record(location: str = "here", acquired: datetime = DAY, number: int = 1, **changes: Any) -> SceneRecord:
    """What a catalog knows of a scene of nine tiles."""
    scene = Scene(location, acquired, (SceneFile("", f"/scenes/{location}/{acquired.date()}.tif"),), number)
    values: dict[str, Any] = {
        "scene_id": scene.scene_id,
        "location": location,
        "acquired": acquired,
        "number": number,
        "files": scene.files,
        "stamp": ("a 1 2",),
        "fingerprint": "f00",
        "key": "k1",
        "tile_size": SIZE,
        "stride": SIZE,
        "tiles": 9,
        "valid_fraction": 0.75,
        "data_fraction": 1.0,
        "cloud_fraction": 0.25,
        "masked": {"cloud": 0.25},
        "stats": {band: BandStats.of(np.linspace(0.01, 0.4, 90)) for band in BANDS},
        "ingested_at": datetime(2020, 6, 2, 3, tzinfo=UTC),
    }
    return SceneRecord(**values | changes)


def enter(
    catalog: Catalog,
    location: str = "here",
    acquired: datetime = DAY,
    number: int = 1,
    grid: Grid | None = None,
    seed: int = 0,
    **changes: Any,
) -> SceneRecord:
    """Enter a scene in a catalog; its numbers depend on the seed."""
    settled = catalog.settle_grid(location, grid or grid_at())
    record = scene_record(location, acquired, number, **{"fingerprint": f"f{seed}"} | changes)
    catalog.write(record, tile_frame(settled, location, seed))
    return record


def files_below(folder: Path) -> set[str]:
    """Names of all files of a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

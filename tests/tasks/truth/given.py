"""Masks and outlines of events on the ground of scored scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from shapely.geometry import box

from tests.rasters import NORTH, UTM, WEST, write_raster
from tests.scored import HERE

DAY, LATER = "2020-06-01", "2020-06-11"
SHAPE = (HERE.height, HERE.width)
WINDOW = ["row_off", "col_off", "height", "width"]
COLUMNS = 7  # tiles of 32 pixels in a row of HERE
NO_SCORE = 17  # the tile that `scores_of` leaves without one


def mask(*windows: tuple[int, int, int, int], number: int = 1, into: np.ndarray | None = None) -> np.ndarray:
    """A mask with events in some windows: row, column, height, width."""
    found = np.zeros(SHAPE, dtype=np.uint8) if into is None else into.copy()
    for row, column, height, width in windows:
        found[row : row + height, column : column + width] = number
    return found


def write_mask(path: Path, values: np.ndarray, **place: Any) -> Path:
    return write_raster(path, {"events": values}, **place)


def ground_box(row: int, column: int, height: int, width: int) -> Any:
    """A window of HERE as a polygon."""
    left, top = WEST + 10 * column, NORTH - 10 * row
    return box(left, top - 10 * height, left + 10 * width, top)


def events(*windows: tuple[int, int, int, int], **columns: list[Any]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=[ground_box(*window) for window in windows], crs=UTM)

"""Scores of a scene, as the detector would give them: which tiles are flagged is an argument."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd

from imagery.grid import Grid, tile_ids
from tests.rasters import NORTH, UTM, WEST

HERE = Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 200, 150)
ACROSS_180 = Grid("EPSG:32660", (100, 0, 684_000, 0, -100, 6_000_000), 256, 64)


def scores_of(
    marked: set[int], grid: Grid = HERE, location: str = "here", stride: int | None = None, day: str = "2020-06-01"
) -> gpd.GeoDataFrame:
    """Scores of a scene with some tiles flagged, by their place in the list of tiles."""
    table = grid.tile_table(32, stride)
    count = len(table["row_off"])
    score = np.linspace(0.2, 0.9, count) + np.isin(np.arange(count), list(marked)) * 3
    score[count // 2] = score[count // 2] if count // 2 in marked else np.nan
    columns = {
        "tile_id": tile_ids(location, table["row_off"], table["col_off"]),
        "location": location,
        "scene_id": f"{location}/{day}",
        "acquired": pd.Timestamp(day, tz="UTC"),
        **table,
        "valid_fraction": 1.0,
        "score": score,
        "p_value": 1 / (1 + score * 10),
        "threshold": 2.5,
        "flagged": score > 2.5,
        "reason": pd.array([None if np.isfinite(one) else "nothing of the tile is usable" for one in score], "str"),
        "score_kl": np.nan,
        "detector_version": "v1",
        "calibration_id": "abc",
    }
    return gpd.GeoDataFrame(pd.DataFrame(columns), geometry=grid.footprints(table), crs="EPSG:4326")

"""Scores of a scene, as the detector would give them: which tiles are flagged is an argument."""

from __future__ import annotations

from datetime import date

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from configs import Workspace
from imagery.catalog import Catalog
from imagery.grid import Grid, tile_ids
from imagery.outputs import write_scores
from tasks.truth import ScoredScene
from tests.rasters import NORTH, UTM, WEST, write_raster

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
        "kind": pd.array(["kl" if np.isfinite(one) else "" for one in score], "str"),
        "raw": score / 10,
        "score": score,
        "p_value": 1 / (1 + score * 10),
        "threshold": np.where(np.isfinite(score), 2.5, np.nan),
        "flagged": score > 2.5,
        "reason": pd.array([None if np.isfinite(one) else "nothing of the tile is usable" for one in score], "str"),
        "basis": pd.array(["calibrated" if np.isfinite(one) else "" for one in score], "str"),
        "score_kl": np.nan,
        "detector_version": "v1",
        "calibration_id": "abc",
    }
    return gpd.GeoDataFrame(pd.DataFrame(columns), geometry=grid.footprints(table), crs="EPSG:4326")


def write_scored(
    workspace: Workspace,
    marked: set[int],
    *,
    grid: Grid = HERE,
    location: str = "here",
    day: str = "2020-06-01",
    version: str = "v1",
    stride: int | None = None,
    masked: NDArray[np.bool_] | None = None,
    **columns: ArrayLike,
) -> ScoredScene:
    """Put a scored scene into a workspace: the grid of its place, scores, and the heatmap that belongs to them.

    Args:
        workspace: Where it is put.
        marked: Tiles that are flagged, by their place in the list of tiles.
        grid, location, day, stride: See `scores_of`.
        version: The detector that scored.
        masked: (H, W) pixels without a score, beside those of the tile without one.
        columns: Further columns, e.g. `score_cva`, or other scores.
    """
    Catalog(workspace).settle_grid(location, grid)
    table = scores_of(marked, grid, location, stride, day).assign(detector_version=version, **columns)
    folder = workspace.scores / version / location
    write_scores(folder / f"{day}.parquet", table)
    heat = np.full((grid.height, grid.width), np.nan, dtype=np.float32)
    for row in table.itertuples():
        heat[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width] = row.score
    if masked is not None:
        heat[masked] = np.nan
    place = {"crs": grid.crs, "transform": grid.affine}
    write_raster(folder / f"{day}_anomaly.tif", {"score": heat}, missing=np.isnan(heat), nodata="nan", **place)
    return ScoredScene(location, f"{location}/{day}", date.fromisoformat(day), folder / f"{day}.parquet")

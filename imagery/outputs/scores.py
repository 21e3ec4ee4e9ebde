"""The scores of a scene as GeoParquet."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd

from configs.workspace import whole_file


def empty_scores() -> gpd.GeoDataFrame:
    """The scores of no tile at all."""
    columns = {
        **dict.fromkeys(("tile_id", "location", "scene_id", "kind", "basis", "reason"), "str"),
        **dict.fromkeys(("detector_version", "calibration_id"), "str"),
        **dict.fromkeys(("row_off", "col_off", "height", "width"), "int64"),
        **dict.fromkeys(("valid_fraction", "raw", "score", "p_value", "threshold"), "float64"),
        "acquired": "datetime64[us, UTC]",
        "flagged": "bool",
    }
    return gpd.GeoDataFrame(
        {name: pd.Series(dtype=kind) for name, kind in columns.items()}, geometry=[], crs="EPSG:4326"
    )


def write_scores(path: Path, scores: gpd.GeoDataFrame) -> None:
    """Write the scores of a scene (see `docs/architecture.md` for the columns), whole or not at all."""
    with whole_file(path) as temporary:
        scores.to_parquet(temporary, index=False, compression="zstd")

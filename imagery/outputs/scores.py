"""The scores of a scene as GeoParquet."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd

from configs.workspace import whole_file


def write_scores(path: Path, scores: gpd.GeoDataFrame) -> None:
    """Write the scores of a scene (see `docs/architecture.md` for the columns), whole or not at all."""
    with whole_file(path) as temporary:
        scores.to_parquet(temporary, index=False, compression="zstd")

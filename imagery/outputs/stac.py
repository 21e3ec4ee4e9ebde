"""A STAC item for each scored scene, beside its scores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import antimeridian
import geopandas as gpd
import numpy as np
import pystac
import rasterio
import shapely
from pyproj import CRS

from configs.workspace import safe_name, write_text
from imagery.grid import Grid, Tile

# The one extension that is used: in STAC 1.1, bands with their types and statistics belong to the core.
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PARQUET = "application/vnd.apache.parquet"
STATISTICS = {
    "minimum": "MINIMUM",
    "maximum": "MAXIMUM",
    "mean": "MEAN",
    "stddev": "STDDEV",
    "valid_percent": "VALID_PERCENT",
}


def write_item(
    path: Path,
    scores: gpd.GeoDataFrame,
    grid: Grid,
    valid_fraction: float,
    *,
    heatmap: Path,
    scores_file: Path,
    latents: Path,
) -> None:
    """Write the STAC item of a scored scene. The same scene gives the same bytes.

    Args:
        path: The item, `<acquired>.stac.json`.
        scores: The scene's scores; for the columns see `docs/architecture.md`.
        grid: The grid of its location.
        valid_fraction: Share of the scene's pixels that count.
        heatmap: The COG, which is read for its statistics. This and the other files are linked relative to the item.
        scores_file: The scores as GeoParquet.
        latents: The latents as Parquet.
    """

    def href(file: Path) -> str:
        return "./" + quote(Path(os.path.relpath(file, path.parent)).as_posix())

    item = _item(path.name.removesuffix(".stac.json"), scores, grid, valid_fraction)
    item.assets = {
        "heatmap": pystac.Asset(
            href(heatmap),
            "Anomaly heatmap",
            media_type=pystac.MediaType.COG,
            roles=["data"],
            extra_fields={"bands": [_band(heatmap)]},
        ),
        "scores": pystac.Asset(href(scores_file), "Scores of all tiles", media_type=PARQUET, roles=["data"]),
        "latents": pystac.Asset(href(latents), "Latents of all tiles", media_type=PARQUET, roles=["data"]),
    }
    write_text(
        path, json.dumps(item.to_dict(include_self_link=False), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _item(acquired: str, scores: gpd.GeoDataFrame, grid: Grid, valid_fraction: float) -> pystac.Item:
    """The item without its assets."""
    first = scores.iloc[0]
    outline = grid.footprints([Tile(0, 0, grid.height, grid.width)]).iloc[0]
    return pystac.Item(
        id=f"{safe_name(first['location'])}_{acquired}_{first['detector_version']}",
        geometry=shapely.geometry.mapping(outline),
        bbox=[float(degrees) for degrees in antimeridian.bbox(outline)],
        datetime=first["acquired"].to_pydatetime(),
        properties={
            "title": f"{first['scene_id']}, scored by {first['detector_version']}",
            "tilewatch:location": first["location"],
            "tilewatch:scene_id": first["scene_id"],
            "tilewatch:detector_version": first["detector_version"],
            "tilewatch:calibration_id": first["calibration_id"],
            "tilewatch:threshold": _threshold(scores),
            "tilewatch:tiles": len(scores),
            "tilewatch:scored": int(scores["score"].notna().sum()),
            "tilewatch:flags": int(scores["flagged"].sum()),
            "tilewatch:valid_fraction": round(valid_fraction, 6),
            **_projection(grid),
        },
        stac_extensions=[PROJECTION],
    )


def _threshold(scores: gpd.GeoDataFrame) -> float | None:
    """The threshold of most tiles: those without a past have another one; None when nothing was judged by one."""
    found = scores["threshold"].to_numpy()
    common = scores["threshold"][np.isfinite(found)].mode()
    return float(common.iloc[0]) if len(common) else None


def _projection(grid: Grid) -> dict[str, Any]:
    """Fields of the projection extension."""
    code = grid.crs if grid.crs.startswith("EPSG:") else None
    described = {} if code else {"proj:wkt2": CRS.from_user_input(grid.crs).to_wkt("WKT2_2019")}
    return {
        "proj:code": code,
        **described,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.transform),
        "proj:bbox": list(grid.bounds),
    }


def _band(heatmap: Path) -> dict[str, Any]:
    """The heatmap's band, as STAC 1.1 describes bands."""
    with rasterio.open(heatmap) as dataset:
        found = {name.removeprefix("STATISTICS_"): float(value) for name, value in dataset.tags(1).items()}
        return {
            "name": dataset.descriptions[0],
            "description": "Anomaly score of each pixel: higher is more anomalous.",
            "data_type": dataset.dtypes[0],
            "nodata": "nan",
            "statistics": {ours: found[theirs] for ours, theirs in STATISTICS.items() if theirs in found},
        }

"""The flags of a night, tile by tile and merged to areas, as GeoParquet, GeoJSON and GeoPackage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from shapely import MultiPolygon, Polygon

from configs.workspace import whole_file, write_text
from imagery.footprints import on_earth
from imagery.grid import Grid
from imagery.outputs.geopackage import write_geopackage
from imagery.outputs.night_item import write_night_item
from imagery.outputs.styles import AREA_LABEL, FLAG_LABEL, SUPPRESSED_STYLE, write_outline_style

DIGITS = 9  # of degrees in GeoJSON: 0.1 mm
AREA_COLUMNS = ["location", "tiles", "max_score", "min_p_value", "area_m2", "tile_ids", "scene_ids"]
GEOPACKAGE = "flags.gpkg"
EARTH = Geod(ellps="WGS84")


@dataclass(frozen=True)
class FlagFiles:
    """Where the flags of a night are; a QGIS style of the same name lies beside each file.

    Attributes:
        flags: As GeoParquet.
        flags_geojson: The same as GeoJSON.
        areas_geojson: Flags that touch, merged.
        suppressed: Tiles that are no flags because of what people have said; None when there are none.
        geopackage: All of them, with styles; None when it was not asked for.
        item: The STAC item that names these files; None when nothing was scored.
    """

    flags: Path
    flags_geojson: Path
    areas_geojson: Path
    suppressed: Path | None = None
    geopackage: Path | None = None
    item: Path | None = None

    @property
    def all(self) -> list[Path]:
        """Those that there are."""
        always = [self.flags, self.flags_geojson, self.areas_geojson]
        return always + [path for path in (self.suppressed, self.geopackage, self.item) if path]


def write_flags(
    folder: Path, scores: gpd.GeoDataFrame, grids: Mapping[str, Grid], geopackage: bool = False
) -> FlagFiles:
    """Write what was flagged: nothing flagged gives files without features. What an earlier time has left goes.

    Args:
        folder: Where the files go, and their styles.
        scores: Rows of the scores of any number of scenes; for the columns see `docs/architecture.md`. Beside them
            `suppressed` says why a tile is no flag, where people's verdicts are the reason.
        grids: The grid of each location among them.
        geopackage: Whether a GeoPackage is written as well.
    """
    flags, hidden = flagged(scores), suppressed(scores)
    areas = flag_areas(flags, grids)
    files = FlagFiles(
        folder / "flags.parquet",
        folder / "flags.geojson",
        folder / "areas.geojson",
        folder / "suppressed.parquet" if len(hidden) else None,
        folder / GEOPACKAGE if geopackage else None,
        folder / "night.stac.json" if len(scores) else None,
    )
    for name in ("suppressed.parquet", "suppressed.qml", GEOPACKAGE, "night.stac.json"):
        (folder / name).unlink(missing_ok=True)
    for path, rows in ((files.flags, flags), (files.suppressed, hidden)):
        if path:
            with whole_file(path) as temporary:
                rows.to_parquet(temporary, index=False, compression="zstd")
    write_text(files.flags_geojson, geojson(flags))
    write_text(files.areas_geojson, geojson(areas))
    write_outline_style(files.flags.with_suffix(".qml"), FLAG_LABEL)
    write_outline_style(files.areas_geojson.with_suffix(".qml"), AREA_LABEL)
    if files.suppressed:
        write_text(files.suppressed.with_suffix(".qml"), SUPPRESSED_STYLE)
    if files.geopackage:
        write_geopackage(files.geopackage, flags, areas, hidden)
    if files.item:
        write_night_item(files.item, scores, grids, files.all[:-1])
    return files


def flagged(scores: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The rows that are flagged, the least likely first."""
    return _ranked(scores[scores["flagged"].astype(bool)])


def suppressed(scores: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The rows that would be flagged, were it not for people's verdicts, the least likely first."""
    return _ranked(scores[scores["suppressed"].notna()] if "suppressed" in scores else scores.iloc[:0])


def _ranked(rows: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    order = {_p_value(rows): True, "score": False, "tile_id": True, "scene_id": True}
    return rows.sort_values(list(order), ascending=list(order.values()), kind="stable").reset_index(drop=True)


def _p_value(rows: pd.DataFrame) -> str:
    """The column of p-values that counts: after people's verdicts, where they were heeded."""
    return "p_reviewed" if "p_reviewed" in rows else "p_value"


def flag_areas(flags: gpd.GeoDataFrame, grids: Mapping[str, Grid]) -> gpd.GeoDataFrame:
    """Flags of a location that share an edge, or overlap, as one polygon; of all scenes together.

    Args:
        flags: From `flagged`.
        grids: The grid of each location.

    Returns:
        Polygons in EPSG:4326 with `location`, `tiles` (how many), `max_score`, `min_p_value`, `area_m2` (on the
        ellipsoid), `tile_ids` and `scene_ids` (both sorted); the least likely first.
    """
    found = [area for location, rows in flags.groupby("location") for area in _areas_of(rows, grids[str(location)])]
    frame = pd.DataFrame(found, columns=[*AREA_COLUMNS, "geometry"])
    frame["first"] = [ids[0] for ids in frame["tile_ids"]]
    frame = frame.sort_values(["min_p_value", "max_score", "first"], ascending=[True, False, True], kind="stable")
    return gpd.GeoDataFrame(frame.drop(columns="first").reset_index(drop=True), geometry="geometry", crs="EPSG:4326")


def geojson(frame: gpd.GeoDataFrame) -> str:
    """Features as RFC 7946 has them: longitude and latitude, shells counter-clockwise, no number that JSON lacks."""
    shapes = shapely.orient_polygons(frame.geometry.to_numpy())
    rows = frame.drop(columns=frame.geometry.name).to_dict("records")
    features = [
        {"type": "Feature", "geometry": _geometry(shape), "properties": {name: _plain(row[name]) for name in row}}
        for shape, row in zip(shapes, rows, strict=True)
    ]
    content = {"type": "FeatureCollection", "features": features}
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _areas_of(rows: gpd.GeoDataFrame, grid: Grid) -> list[dict[str, Any]]:
    """The areas of one location, merged on its grid, where edges are exact."""
    top, left = rows["row_off"].to_numpy(), rows["col_off"].to_numpy()
    bottom, right = top + rows["height"].to_numpy(), left + rows["width"].to_numpy()
    parts = shapely.get_parts(shapely.union_all(shapely.box(left, top, right, bottom)))
    middles = shapely.points((left + right) / 2, (top + bottom) / 2)
    belongs, part_of = shapely.STRtree(parts).query(middles, predicate="within")
    return [_area(rows.iloc[belongs[part_of == index]], part, grid) for index, part in enumerate(parts)]


def _area(rows: gpd.GeoDataFrame, pixels: Polygon, grid: Grid) -> dict[str, Any]:
    def to_crs(points: NDArray[np.float64]) -> NDArray[np.float64]:
        a, _, c, _, e, f = grid.transform
        return points * (a, e) + (c, f)

    outline = on_earth(shapely.transform(pixels, to_crs), grid.crs, grid.resolution)
    return {
        "location": rows["location"].iloc[0],
        "tiles": rows["tile_id"].nunique(),
        "max_score": rows["score"].max(),
        "min_p_value": rows[_p_value(rows)].min(),
        "area_m2": round(square_metres(outline), 1),
        "tile_ids": sorted(set(rows["tile_id"])),
        "scene_ids": sorted(set(rows["scene_id"])),
        "geometry": outline,
    }


def square_metres(outline: Polygon | MultiPolygon) -> float:
    """The area of an outline in EPSG:4326 on the ellipsoid."""
    fine = shapely.segmentize(shapely.orient_polygons(outline), 0.1)  # edges are straight in degrees, no geodesics
    return abs(float(EARTH.geometry_area_perimeter(fine)[0]))


def _geometry(shape: Polygon | MultiPolygon) -> dict[str, Any]:
    rounded = shapely.transform(shape, lambda points: np.round(points, DIGITS))
    return dict(shapely.geometry.mapping(rounded))


def _plain(value: Any) -> Any:
    """As JSON: times in UTC, and null for what is not a number."""
    if isinstance(value, pd.Timestamp):
        return value.tz_convert("UTC").isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if pd.isna(value) or (isinstance(value, float) and math.isinf(value)) else value

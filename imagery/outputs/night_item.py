"""A STAC item for the flags of a night, beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import antimeridian
import geopandas as gpd
import pystac
import shapely

from configs.workspace import write_text
from imagery.grid import Grid, Tile

TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": pystac.MediaType.GEOJSON.value,
    ".gpkg": pystac.MediaType.GEOPACKAGE.value,
}
TITLES = {
    "flags.parquet": "Flagged tiles",
    "flags.geojson": "Flagged tiles",
    "areas.geojson": "Flags that touch, merged",
    "suppressed.parquet": "Tiles that are no flags because of what people have said",
    "flags.gpkg": "Flags, areas and suppressed tiles",
}


def write_night_item(path: Path, scores: gpd.GeoDataFrame, grids: Mapping[str, Grid], files: Sequence[Path]) -> None:
    """Write the STAC item of a night: where was looked, and what lies beside it. The same night gives the same bytes.

    Args:
        path: The item.
        scores: Rows of the scores of the night, at least one; for the columns see `docs/architecture.md`.
        grids: The grid of each location among them.
        files: The files that it names; they lie in its folder.
    """
    places = [grids[name] for name in sorted(set(scores["location"]))]
    outlines = [grid.footprints([Tile(0, 0, grid.height, grid.width)]).iloc[0] for grid in places]
    ground = shapely.union_all(outlines)
    first, last = scores["acquired"].min(), scores["acquired"].max()
    versions = sorted(set(scores["detector_version"]))
    item = pystac.Item(
        id=f"{first.date().isoformat()}_{'_'.join(versions)}",
        geometry=shapely.geometry.mapping(ground),
        bbox=[float(degrees) for degrees in antimeridian.bbox(ground)],
        datetime=first.to_pydatetime(),
        start_datetime=first.to_pydatetime(),
        end_datetime=last.to_pydatetime(),
        properties={
            "title": f"Flags of {first.date().isoformat()}, scored by {', '.join(versions)}",
            "tilewatch:detector_version": ", ".join(versions),
            "tilewatch:scenes": sorted(set(scores["scene_id"])),
            "tilewatch:tiles": len(scores),
            "tilewatch:scored": int(scores["score"].notna().sum()),
            "tilewatch:flags": int(scores["flagged"].sum()),
            "tilewatch:suppressed": int(scores["suppressed"].notna().sum()) if "suppressed" in scores else 0,
        },
        assets={
            file.name: pystac.Asset(f"./{file.name}", TITLES[file.name], media_type=TYPES[file.suffix], roles=["data"])
            for file in files
        },
    )
    content = item.to_dict(include_self_link=False)
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

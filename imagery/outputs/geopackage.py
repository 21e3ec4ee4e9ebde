"""The flags of a night as a GeoPackage: one file for QGIS and ArcGIS, which opens as it is meant to look."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio

from configs.workspace import whole_file
from imagery.outputs.styles import AREA_LABEL, FLAG_LABEL, SUPPRESSED_STYLE, outline_style

STYLES = {
    "areas": outline_style(AREA_LABEL),
    "flags": outline_style(FLAG_LABEL),
    "suppressed": SUPPRESSED_STYLE,
}


def write_geopackage(
    path: Path, flags: gpd.GeoDataFrame, areas: gpd.GeoDataFrame, suppressed: gpd.GeoDataFrame
) -> None:
    """Write `flags`, `areas` and `suppressed` as layers, with their styles where QGIS looks for them.

    A GeoPackage is an SQLite database (OGC 12-128r19). QGIS reads the default style of a layer from the table
    `layer_styles`; other programs show the layers in styles of their own. The same flags give the same bytes.

    Args:
        path: The file.
        flags: From `flagged`.
        areas: From `flag_areas`.
        suppressed: From `suppressed`.
    """
    layers = {"areas": areas, "flags": flags, "suppressed": suppressed}
    # The day of the last change, which a GeoPackage has to name, is that of the flags: so it is always the same.
    days = pd.concat([flags["acquired"], suppressed["acquired"]])
    changed = days.max().strftime("%Y-%m-%dT%H:%M:%S.000Z") if len(days) else "1970-01-01T00:00:00.000Z"
    with whole_file(path) as temporary:
        temporary.unlink(missing_ok=True)
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": changed})
        try:
            for name, rows in layers.items():
                kind = "MultiPolygon"  # an area across the 180th meridian has two parts
                pyogrio.write_dataframe(
                    _plain(rows), temporary, layer=name, driver="GPKG", geometry_type=kind, promote_to_multi=True
                )
            pyogrio.write_dataframe(
                _styles(layers, changed), temporary, layer="layer_styles", layer_options={"FID": "id"}
            )
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _plain(rows: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The same with lists as text, which a table of a database cannot hold."""
    lists = [name for name in rows if str(name).endswith("_ids")]
    return rows.assign(**{name: [", ".join(names) for names in rows[name]] for name in lists})


def _styles(layers: dict[str, gpd.GeoDataFrame], changed: str) -> pd.DataFrame:
    """The table of styles, with the columns that QGIS gives it."""
    return pd.DataFrame(
        {
            "f_table_catalog": "",
            "f_table_schema": "",
            "f_table_name": list(layers),
            "f_geometry_column": "geom",
            "styleName": list(layers),
            "styleQML": [STYLES[name] for name in layers],
            "styleSLD": "",
            "useAsDefault": True,
            "description": "tilewatch",
            "owner": "",
            "ui": None,
            "update_time": pd.Timestamp(changed),
        }
    )

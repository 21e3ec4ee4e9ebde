"""The GeoPackage: three layers that say what the tables say, and the styles where QGIS looks for them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from xml.etree import ElementTree

import geopandas as gpd
import pandas as pd
import pyogrio
import pytest

from imagery.outputs import empty_scores
from imagery.outputs.flags import flag_areas, flagged, write_flags
from tests.imagery.test_flags import reviewed
from tests.scored import ACROSS_180, HERE, scores_of


def package(folder: Path, scores: gpd.GeoDataFrame) -> Path:
    files = write_flags(folder, scores, {"here": HERE, "there": ACROSS_180}, geopackage=True)
    assert files.geopackage is not None
    return files.geopackage


def query(path: Path, text: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as database:
        return database.execute(text).fetchall()


def test_its_layers_say_what_the_tables_say(tmp_path: Path) -> None:
    scores = pd.concat([reviewed({3, 4, 9}, {20}), scores_of(set(range(8)), ACROSS_180, "there")], ignore_index=True)

    path = package(tmp_path, scores)

    flags, areas = flagged(scores), flag_areas(flagged(scores), {"here": HERE, "there": ACROSS_180})
    found = gpd.read_file(path, layer="flags")
    assert found.crs == "EPSG:4326"
    assert found["tile_id"].tolist() == flags["tile_id"].tolist()
    assert found["score"].tolist() == flags["score"].tolist()
    assert pd.to_datetime(found["acquired"], utc=True).tolist() == flags["acquired"].tolist()
    merged = gpd.read_file(path, layer="areas")
    assert merged["tile_ids"].tolist() == [", ".join(ids) for ids in areas["tile_ids"]]
    assert all(one.equals(other) for one, other in zip(merged.geometry, areas.geometry, strict=True)) or (
        merged.geometry.symmetric_difference(areas.geometry.reset_index(drop=True)).area.max() < 1e-12
    )
    assert gpd.read_file(path, layer="suppressed")["suppressed"].tolist() == ["2 false alarms here"]


@pytest.mark.parametrize("layer", ["flags", "areas", "suppressed"])
def test_qgis_finds_a_default_style_for_every_layer(tmp_path: Path, layer: str) -> None:
    path = package(tmp_path, reviewed({3}, {20}))

    ((column,),) = query(path, f"select column_name from gpkg_geometry_columns where table_name = '{layer}'")
    # As its OGR provider asks for it.
    (found,) = query(
        path,
        "select styleQML from layer_styles where f_table_schema = '' and useAsDefault = 1 "
        f"and f_table_name = '{layer}' and f_geometry_column = '{column}'",
    )
    style = ElementTree.fromstring(str(found[0]))
    assert style.find("renderer-v2/symbols/symbol") is not None
    pens = {option.get("value") for option in style.iter("Option") if option.get("name") == "line_style"}
    assert pens == ({"solid", "dash"} if layer == "suppressed" else {"solid"})


def test_a_night_without_flags_has_the_same_layers_without_features(tmp_path: Path) -> None:
    path = package(tmp_path, empty_scores())

    assert set(pyogrio.list_layers(path)[:, 0]) == {"flags", "areas", "suppressed", "layer_styles"}
    assert len(gpd.read_file(path, layer="flags")) == 0


def test_the_same_flags_give_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    first = package(tmp_path / "a", reviewed({3}, {20})).read_bytes()
    time.sleep(1.1)  # GDAL writes the second

    assert package(tmp_path / "b", reviewed({3}, {20})).read_bytes() == first


def test_names_of_places_are_only_text(tmp_path: Path) -> None:
    name = "it's \"; drop table flags; -- <b>"
    files = write_flags(tmp_path, scores_of({3}, location=name), {name: HERE}, geopackage=True)

    assert files.geopackage is not None
    assert gpd.read_file(files.geopackage, layer="flags")["location"].tolist() == [name]

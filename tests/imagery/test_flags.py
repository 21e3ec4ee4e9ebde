"""The flags of a night as files that other programs read: tile by tile, and merged to areas."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from scipy.ndimage import label

from imagery.grid import tile_ids
from imagery.outputs import empty_scores
from imagery.outputs.flags import flag_areas, flagged, geojson, square_metres, suppressed, write_flags
from tests.scored import ACROSS_180, HERE, scores_of


def test_flags_are_the_flagged_rows_the_least_likely_first() -> None:
    flags = flagged(scores_of({3, 9, 20}))

    assert flags["tile_id"].tolist() == ["here-r00064-c00192", "here-r00032-c00064", "here-r00000-c00096"]
    assert flags["p_value"].is_monotonic_increasing


@pytest.mark.parametrize("marked", [{3, 4, 9}, set()], ids=["some", "none"])
def test_flags_are_written_for_tables_and_for_maps(tmp_path: Path, marked: set[int]) -> None:
    scores = scores_of(marked)

    files = write_flags(tmp_path / "night", scores, {"here": HERE})

    table = gpd.read_parquet(files.flags)
    assert list(table.columns) == list(scores.columns)
    assert table.crs == "EPSG:4326"
    assert len(table) == len(marked)
    for path, count in ((files.flags_geojson, len(marked)), (files.areas_geojson, 2 if marked else 0)):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content["type"] == "FeatureCollection"
        assert "crs" not in content
        assert len(content["features"]) == count
    names = {"flags.parquet", "flags.geojson", "flags.qml", "areas.geojson", "areas.qml", "night.stac.json"}
    assert {path.name for path in (tmp_path / "night").iterdir()} == names


def test_a_night_without_any_scene_has_files_without_features(tmp_path: Path) -> None:
    files = write_flags(tmp_path, empty_scores(), {})

    assert gpd.read_parquet(files.flags).empty
    for path in (files.flags_geojson, files.areas_geojson):
        assert json.loads(path.read_text()) == {"type": "FeatureCollection", "features": []}


def test_geojson_says_what_the_table_says_and_gdal_reads_it(tmp_path: Path) -> None:
    scores = scores_of({3, 4, 9})

    files = write_flags(tmp_path, scores, {"here": HERE})

    flags, again = gpd.read_parquet(files.flags), gpd.read_file(files.flags_geojson)
    assert again.crs == "EPSG:4326"
    assert again["tile_id"].tolist() == flags["tile_id"].tolist()
    np.testing.assert_array_equal(again["score"], flags["score"])
    assert again["acquired"].tolist() == flags["acquired"].tolist()
    assert all(a.hausdorff_distance(b) < 1e-8 for a, b in zip(again.geometry, flags.geometry, strict=True))
    first = json.loads(files.flags_geojson.read_text())["features"][0]["properties"]
    assert first["acquired"] == "2020-06-01T00:00:00Z"
    assert first["reason"] is None
    assert first["score_kl"] is None  # NaN, which JSON lacks
    assert first["flagged"] is True
    assert isinstance(first["row_off"], int)
    areas = gpd.read_file(files.areas_geojson)
    assert areas["tiles"].tolist() == [1, 2]


def test_the_same_scores_give_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    scenes = [scores_of({3, 4, 9}), scores_of({3}, day="2020-06-02"), scores_of({1}, location="there")]
    scores = pd.concat(scenes, ignore_index=True)

    write_flags(tmp_path / "a", scores, {"here": HERE, "there": HERE})
    write_flags(tmp_path / "b", scores.sample(frac=1, random_state=1), {"there": HERE, "here": HERE})

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_shells_are_counter_clockwise_and_holes_clockwise() -> None:
    clockwise = shapely.Polygon([(0, 0), (0, 4), (4, 4), (4, 0)], [[(1, 1), (2, 1), (2, 2), (1, 2)]])
    frame = gpd.GeoDataFrame({"name": ["ä"]}, geometry=[clockwise], crs="EPSG:4326")

    (feature,) = json.loads(geojson(frame))["features"]

    shell, hole = feature["geometry"]["coordinates"]
    assert shapely.LinearRing(shell).is_ccw
    assert not shapely.LinearRing(hole).is_ccw
    assert feature["properties"] == {"name": "ä"}


@settings(max_examples=60, deadline=None)
@given(marked=st.sets(st.integers(0, 34)))
def test_areas_are_the_groups_of_tiles_that_share_an_edge(marked: set[int]) -> None:
    flags = flagged(scores_of(marked))
    groups, count = label(np.isin(np.arange(35), list(marked)).reshape(5, 7))

    areas = flag_areas(flags, {"here": HERE})

    ids = np.array(tile_ids("here", *(HERE.tile_table(32)[name] for name in ("row_off", "col_off"))))
    expected = {frozenset(ids[groups.ravel() == group]) for group in range(1, count + 1)}
    assert {frozenset(tiles) for tiles in areas["tile_ids"]} == expected
    for area in areas.itertuples():
        rows = flags[flags["tile_id"].isin(area.tile_ids)]
        assert area.tiles == len(rows)
        assert area.max_score == rows["score"].max()
        assert area.min_p_value == rows["p_value"].min()
        pixels = (rows["height"] * rows["width"]).sum()
        assert area.area_m2 == pytest.approx(pixels * 100, rel=2e-3)  # UTM is off by less than a thousandth here
        together = rows.geometry.union_all()
        assert area.geometry.symmetric_difference(together).area < 1e-3 * together.area
    assert areas["min_p_value"].is_monotonic_increasing


def test_tiles_that_meet_at_a_corner_are_two_areas() -> None:
    areas = flag_areas(flagged(scores_of({0, 8})), {"here": HERE})

    assert areas["tiles"].tolist() == [1, 1]


def test_overlapping_flags_are_one_area_and_its_ground_counts_once() -> None:
    columns = len(np.unique(HERE.tile_table(32, 16)["col_off"]))

    areas = flag_areas(flagged(scores_of({0, 1, 2, columns}, stride=16)), {"here": HERE})

    assert areas["tiles"].tolist() == [4]
    assert areas["area_m2"].iloc[0] == pytest.approx((64 * 32 + 32 * 16) * 100, rel=2e-3)


def test_a_ring_of_flags_keeps_its_hole() -> None:
    around = {0, 1, 2, 7, 9, 14, 15, 16}

    (area,) = flag_areas(flagged(scores_of(around)), {"here": HERE}).itertuples()

    assert len(area.geometry.interiors) == 1
    assert len(area.geometry.exterior.coords) == 5
    assert area.area_m2 == pytest.approx(8 * 320**2, rel=2e-3)


def test_two_scenes_of_a_night_make_one_area_and_two_locations_never() -> None:
    morning, noon = scores_of({3}), scores_of({3, 4}, day="2020-06-02")
    elsewhere = scores_of({3}, location="there")

    areas = flag_areas(flagged(pd.concat([morning, noon, elsewhere])), {"here": HERE, "there": HERE})

    by_place = areas.set_index("location")
    assert by_place["tiles"].to_dict() == {"here": 2, "there": 1}
    assert by_place["scene_ids"]["here"] == ["here/2020-06-01", "here/2020-06-02"]


def test_an_area_across_the_180th_meridian_is_cut_there(tmp_path: Path) -> None:
    scores = scores_of(set(range(16)), ACROSS_180)

    files = write_flags(tmp_path, scores, {"here": ACROSS_180})

    (area,) = gpd.read_file(files.areas_geojson).itertuples()
    assert area.geometry.geom_type == "MultiPolygon"
    assert [part.bounds[0] == -180 or part.bounds[2] == 180 for part in area.geometry.geoms] == [True, True]
    assert area.area_m2 == pytest.approx(25_600 * 6_400, rel=2e-3)


def test_square_metres_are_those_of_the_ellipsoid() -> None:
    north, zone = shapely.box(-60, 0, 60, 90), shapely.box(10, 60, 20, 70)

    assert square_metres(north) == pytest.approx(510_065_621.7e6 / 6, rel=1e-6)
    assert square_metres(north - zone) + square_metres(zone) == pytest.approx(square_metres(north), rel=1e-6)
    assert square_metres(zone) == pytest.approx(
        6371.2e3**2 * np.radians(10) * (np.sin(1.2217) - np.sin(1.0472)), rel=0.01
    )


def reviewed(marked: set[int], hushed: set[int]) -> gpd.GeoDataFrame:
    """Scores in the light of verdicts: some tiles flagged, others suppressed."""
    scores = scores_of(marked | hushed)
    hidden = np.isin(np.arange(len(scores)), list(hushed))
    return scores.assign(
        flagged=scores["flagged"] & ~hidden,
        bar=scores["threshold"] + hidden,
        p_reviewed=np.where(hidden, 0.5, scores["p_value"]),
        suppressed=pd.array(["2 false alarms here" if one else None for one in hidden], "str"),
        alike=pd.array([None] * len(scores), "str"),
    )


def test_suppressed_tiles_are_kept_beside_the_flags_and_are_none(tmp_path: Path) -> None:
    files = write_flags(tmp_path, reviewed({3, 9}, {20, 21}), {"here": HERE})

    assert files.suppressed is not None
    hidden = gpd.read_parquet(files.suppressed)
    assert set(hidden["suppressed"]) == {"2 false alarms here"}
    assert len(hidden) == 2
    assert not set(hidden["tile_id"]) & set(gpd.read_parquet(files.flags)["tile_id"])
    assert files.suppressed.with_suffix(".qml").exists()


def test_a_night_that_is_written_again_keeps_nothing_of_before(tmp_path: Path) -> None:
    write_flags(tmp_path, reviewed({3}, {20}), {"here": HERE}, geopackage=True)

    files = write_flags(tmp_path, reviewed({3}, set()), {"here": HERE})

    assert files.suppressed is None
    assert files.geopackage is None
    names = {"flags.parquet", "flags.geojson", "flags.qml", "areas.geojson", "areas.qml", "night.stac.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert set(files.all) == {path for path in tmp_path.iterdir() if path.suffix != ".qml"}


def test_flags_are_ranked_by_their_p_value_after_the_verdicts() -> None:
    scores = reviewed({3, 9}, set())
    first, second = flagged(scores)["tile_id"]
    raised = scores.assign(p_reviewed=np.where(scores["tile_id"] == first, 0.9, scores["p_reviewed"]))

    assert flagged(raised)["tile_id"].tolist() == [second, first]
    assert suppressed(scores_of({3})).empty


def test_the_item_of_a_night_is_valid_and_names_the_files_beside_it(tmp_path: Path) -> None:
    scores = pd.concat([reviewed({3}, {20}), scores_of({1}, ACROSS_180, "there")], ignore_index=True)

    files = write_flags(tmp_path, scores, {"here": HERE, "there": ACROSS_180}, geopackage=True)

    assert files.item is not None
    content = json.loads(files.item.read_text(encoding="utf-8"))
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, "1.1.0")
    item = pystac.Item.from_file(files.item)
    assert {asset.get_absolute_href() for asset in item.assets.values()} == {str(path) for path in files.all[:-1]}
    assert item.properties["tilewatch:flags"] == 2
    assert item.properties["tilewatch:suppressed"] == 1
    assert item.datetime == datetime(2020, 6, 1, tzinfo=UTC)
    outline = shapely.geometry.shape(item.geometry)
    assert outline.is_valid
    everything = scores.geometry.union_all()
    assert outline.symmetric_difference(everything).area < 0.01 * everything.area


def test_two_locations_on_the_same_ground_make_one_valid_outline(tmp_path: Path) -> None:
    scores = pd.concat([scores_of({3}), scores_of({3}, location="there")], ignore_index=True)

    files = write_flags(tmp_path, scores, {"here": HERE, "there": HERE})

    assert files.item is not None
    assert shapely.geometry.shape(json.loads(files.item.read_text())["geometry"]).is_valid

"""Which scored tiles show an event, by polygons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import LineString, box

from configs import Workspace
from imagery.truth import TruthError
from tests.rasters import NORTH, UTM, WEST
from tests.scored import HERE, write_scored
from tests.tasks.truth.given import COLUMNS, DAY, LATER, events, ground_box, mask, write_mask


@pytest.mark.parametrize("name", ["events.geojson", "events.gpkg", "events.parquet"])
def test_polygons_say_what_the_same_mask_says(workspace: Workspace, answers: Any, tmp_path: Path, name: str) -> None:
    scene = write_scored(workspace, set())
    windows = [(5, 7, 20, 40), (100, 90, 30, 30)]
    shapes, path = events(*windows, kind=["fire", "flood"]), tmp_path / name
    if name.endswith("parquet"):
        shapes.to_parquet(path)
    elif name.endswith("gpkg"):
        shapes.to_file(path)
    else:
        path.write_text(shapes.to_crs("EPSG:4326").to_json())

    found = answers(path, scene)
    expected = answers(write_mask(tmp_path / "event.tif", mask(*windows)), scene)
    np.testing.assert_array_equal(found.positive, expected.positive)
    np.testing.assert_allclose(found.share, expected.share, atol=1 / 32)
    assert found.kind[0] == "fire"
    assert found.kind[COLUMNS * 3 + 3] == "flood"


def test_an_event_holds_at_its_place_and_from_its_first_day_to_its_last(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    days = ("2020-05-31", "2020-06-01", "2020-06-05", "2020-06-06")
    scenes = [write_scored(workspace, set(), day=day, location=place) for place in ("a", "b") for day in days]
    windows = [(0, 0, 32, 32), (0, 32, 32, 32), (0, 64, 32, 32)]
    times = {"start": ["2020-06-01T10:00Z", None, None], "end": ["2020-06-05", DAY, DAY]}
    columns = {"location": ["a", "a", None], **times}
    events(*windows, **columns).to_parquet(tmp_path / "events.parquet")

    found = {scene.scene_id: answers(tmp_path / "events.parquet", scene).positive[:3].tolist() for scene in scenes}
    assert [found[f"a/{day}"] for day in days] == [[0, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert [found[f"b/{day}"] for day in days] == [[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_a_date_is_that_day_alone(workspace: Workspace, answers: Any, tmp_path: Path) -> None:
    scenes = [write_scored(workspace, set(), day=day) for day in (DAY, LATER)]
    events((0, 0, 32, 32), date=[LATER]).to_parquet(tmp_path / "events.parquet")

    assert [answers(tmp_path / "events.parquet", scene).positive[0] for scene in scenes] == [0, 1]


def test_a_place_that_no_polygon_ever_touches_is_unknown_unless_the_truth_is_complete(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    far = replace(HERE, transform=(10, 0, WEST + 90_000, 0, -10, NORTH))
    write_scored(workspace, set())
    scene = write_scored(workspace, set(), location="far", grid=far)
    events((0, 0, 32, 32)).to_parquet(tmp_path / "events.parquet")

    assert answers(tmp_path / "events.parquet", scene) is None
    assert np.nanmax(answers(tmp_path / "events.parquet", scene, complete=True).positive) == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"date": ["summer"]}, "'summer' in column date: dates are written YYYY-MM-DD"),
        ({"date": [DAY], "start": [DAY]}, "column date and start: which of them counts"),
        ({"start": [LATER], "end": [DAY]}, f"feature 1 of .* ends on {DAY}, before it starts"),
        ({"location": ["hear"]}, "names the locations hear; scored were here"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(
    workspace: Workspace, answers: Any, tmp_path: Path, columns: Any, words: str
) -> None:
    scene = write_scored(workspace, set())
    events((0, 0, 32, 32), **columns).to_parquet(tmp_path / "events.parquet")
    with pytest.raises(TruthError, match=words):
        answers(tmp_path / "events.parquet", scene)


def test_outlines_that_are_none_are_refused(workspace: Workspace, answers: Any, tmp_path: Path) -> None:
    scene = write_scored(workspace, set())
    line = gpd.GeoDataFrame(geometry=[ground_box(0, 0, 9, 9), LineString([(WEST, NORTH), (WEST + 9, NORTH)])], crs=UTM)
    cases = {
        "feature 2 of .* is LineString": line,
        "no coordinate reference system": events((0, 0, 32, 32)).set_crs(None, allow_override=True),
        "holds no polygon": events(),
        "corners that are no place": gpd.GeoDataFrame(geometry=[box(1e9, 95, 2e9, 99)], crs="EPSG:4326"),
    }
    for number, (words, shapes) in enumerate(cases.items()):
        shapes.to_parquet(tmp_path / f"{number}.parquet")
        with pytest.raises(TruthError, match=words):
            answers(tmp_path / f"{number}.parquet", scene)
    (tmp_path / "list.geojson").write_text(json.dumps([1]))
    with pytest.raises(TruthError, match="no GeoJSON FeatureCollection"):
        answers(tmp_path / "list.geojson", scene)
    (tmp_path / "half.geojson").write_text('{"type": "FeatureColl')
    with pytest.raises(TruthError, match="cannot be read as polygons"):
        answers(tmp_path / "half.geojson", scene)

"""Which scored tiles show an event: by masks, polygons and labels, and never by a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shapely.geometry import LineString, box

from configs import Period, Settings, Workspace
from imagery.errors import ImageryError
from imagery.truth import TruthError
from tasks.evaluate import read_scores
from tasks.truth import SceneTruth, ScoredScene, Shares, load_truth, scored_scenes
from tests.rasters import NORTH, UTM, WEST, watch_settings, write_raster
from tests.scored import HERE, write_scored

DAY, LATER = "2020-06-01", "2020-06-11"
SHAPE = (HERE.height, HERE.width)
WINDOW = ["row_off", "col_off", "height", "width"]
COLUMNS = 7  # tiles of 32 pixels in a row of HERE
NO_SCORE = 17  # the tile that `scores_of` leaves without one


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return watch_settings(tmp_path, grid={"tile_size": 32})


@pytest.fixture
def answers(workspace: Workspace, settings: Settings) -> Callable[..., SceneTruth | None]:
    """What a truth says of a scene."""

    def ask(
        path: Path | str, scene: ScoredScene, kind: Any = "auto", complete: bool = False, shares: Shares | None = None
    ) -> SceneTruth | None:
        scenes = scored_scenes(workspace, "v1", Period())
        truth = load_truth(str(path), kind, scenes, settings, workspace, complete)
        return truth.of(scene, read_scores(scene, "score", WINDOW), shares or Shares())

    return ask


def mask(*windows: tuple[int, int, int, int], number: int = 1, into: np.ndarray | None = None) -> np.ndarray:
    """A mask with events in some windows: row, column, height, width."""
    found = np.zeros(SHAPE, dtype=np.uint8) if into is None else into.copy()
    for row, column, height, width in windows:
        found[row : row + height, column : column + width] = number
    return found


def write_mask(path: Path, values: np.ndarray, **place: Any) -> Path:
    return write_raster(path, {"events": values}, **place)


def ground_box(row: int, column: int, height: int, width: int) -> Any:
    """A window of HERE as a polygon."""
    left, top = WEST + 10 * column, NORTH - 10 * row
    return box(left, top - 10 * height, left + 10 * width, top)


def events(*windows: tuple[int, int, int, int], **columns: list[Any]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=[ground_box(*window) for window in windows], crs=UTM)


# Masks


def test_a_tile_is_positive_above_a_share_negative_without_any_event_and_left_out_between(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    scene = write_scored(workspace, set())
    covered = mask((0, 0, 16, 32), (0, 32, 1, 32))  # half of tile 0, 3 % of tile 1
    found = answers(write_mask(tmp_path / "event.tif", covered), scene)

    assert found.share[:3] == pytest.approx([0.5, 1 / 32, 0])
    assert found.positive[0] == 1
    assert np.isnan(found.positive[1])
    assert found.positive[2] == 0
    assert np.isnan(found.positive[NO_SCORE]), "no pixel of it has a score"
    looser = answers(tmp_path / "event.tif", scene, shares=Shares(0.6, 0.05))
    assert looser.positive[1] == 0
    assert np.isnan(looser.positive[0])


@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.3), clouded=st.floats(0, 1), stride=st.sampled_from([None, 16]))
@hypothesis_settings(max_examples=15)
def test_the_share_is_that_of_the_valid_pixels_of_each_tile(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, clouded: float, stride: int | None
) -> None:
    draw = np.random.default_rng(seed)
    event, masked = draw.random(SHAPE) < share, draw.random(SHAPE) < clouded
    folder = tmp_path_factory.mktemp("watch")
    workspace = Workspace(folder / "workspace")
    scene = write_scored(workspace, {NO_SCORE}, masked=masked, stride=stride, score=1.0)
    path = write_mask(folder / "event.tif", event.astype(np.uint8))
    table = read_scores(scene, "score", WINDOW)
    truth = load_truth(str(path), "auto", [scene], watch_settings(folder), workspace, False)
    found = truth.of(scene, table, Shares())

    assert found is not None
    for row, computed in zip(table.itertuples(), found.share, strict=True):
        window = np.s_[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
        valid = ~masked[window]
        expected = event[window][valid].mean() if valid.any() else np.nan
        np.testing.assert_allclose(computed, expected)
    assert found.regions is not None
    assert found.regions.region_pixels == event.sum(), "every row is counted once, although tiles overlap"
    assert found.regions.masked_pixels == (event & masked).sum()


def test_each_scene_has_its_mask_in_a_folder_and_scenes_without_one_are_unknown_unless_the_truth_is_complete(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    first, later = (write_scored(workspace, set(), day=day) for day in (DAY, LATER))
    write_mask(tmp_path / f"truth/here/{DAY}.mask.tif", mask((0, 0, 32, 32)))

    assert answers(tmp_path / "truth", first).positive[0] == 1
    assert answers(tmp_path / "truth", later) is None
    assert np.nansum(answers(tmp_path / "truth", later, complete=True).positive) == 0
    pattern = answers(tmp_path / "truth/{location}/{date}.mask.tif", first)
    np.testing.assert_array_equal(pattern.positive, answers(tmp_path / "truth", first).positive)


def test_a_mask_of_a_place_holds_for_all_of_its_scenes_and_only_for_them(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    scenes = [write_scored(workspace, set(), day=day, location=place) for day in (DAY, LATER) for place in ("a", "b")]
    write_mask(tmp_path / "truth/a.tif", mask((0, 0, 32, 32)))

    found = [answers(tmp_path / "truth", scene) for scene in scenes]
    assert [one is not None for one in found] == [True, False, True, False]


def test_the_numbers_of_masks_are_kinds_where_a_table_says_so(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    scene = write_scored(workspace, set())
    both = mask((0, 32, 10, 32), number=7, into=mask((0, 0, 32, 64), number=3))
    write_mask(tmp_path / f"truth/here/{DAY}.tif", both)
    assert set(answers(tmp_path / "truth", scene).kind) == {""}

    (tmp_path / "truth/kinds.csv").write_text("value,kind\n3,flood\n7,fire\n")
    found = answers(tmp_path / "truth", scene)
    assert found.kind[:3].tolist() == ["flood", "flood", ""], "the kind that covers most of a tile"
    pattern = answers(tmp_path / "truth/{location}/{date}.tif", scene)
    assert pattern.kind[:3].tolist() == ["flood", "flood", ""]

    (tmp_path / "truth/kinds.csv").write_text("number,kind\n3,flood\n")
    with pytest.raises(TruthError, match=r"kinds\.csv has no column value"):
        answers(tmp_path / "truth", scene)


def test_a_mask_on_other_pixels_is_brought_to_the_grid_and_what_it_does_not_hold_is_unknown(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    scene = write_scored(workspace, set())
    coarse = np.zeros((40, 32), dtype=np.uint8)  # 20 m: 640 m to the east, twice a tile
    coarse[:16, :16] = 1
    found = answers(write_mask(tmp_path / "event.tif", coarse, resolution=20), scene)

    assert found.positive[:2].tolist() == [1, 0]
    assert np.isnan(found.positive[2]), "beyond the mask"


def test_pixels_that_a_mask_declares_to_be_without_data_are_unknown(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    scene = write_scored(workspace, set())
    missing = mask((0, 0, 32, 20), (0, 32, 32, 4)) > 0
    declared = {"missing": missing, "nodata": "declared", "nodata_value": 255}
    found = answers(write_mask(tmp_path / "event.tif", mask((0, 32, 32, 8)), **declared), scene)

    assert np.isnan(found.positive[0]), "more than half of the tile is unknown"
    assert found.share[1] == pytest.approx(4 / 28)
    zero = write_mask(tmp_path / "zero.tif", mask(), nodata="declared", nodata_value=0)
    with pytest.raises(TruthError, match="declares 0 as nodata"):
        answers(zero, scene)


@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({"a": mask(), "b": mask()}, {}, "has 2 bands"),
        ({"a": mask().astype(np.float32) + 0.5}, {}, "holds 0.5: a mask of events holds whole numbers"),
        ({"a": mask().astype(np.int16) - 1}, {}, "holds -1"),
        ({"a": mask()}, {"crs": None}, "no coordinate reference system"),
        ({"a": mask()}, {"west": WEST + 50_000}, "covers nothing|does not"),
    ],
)
def test_a_raster_that_is_no_mask_of_the_place_is_refused_in_words(
    workspace: Workspace, answers: Any, tmp_path: Path, values: Any, place: Any, words: str
) -> None:
    scene = write_scored(workspace, set())
    with pytest.raises(ImageryError, match=words):
        answers(write_raster(tmp_path / "event.tif", values, **place), scene)


def test_a_file_that_would_lead_elsewhere_is_not_opened(workspace: Workspace, answers: Any, tmp_path: Path) -> None:
    scene = write_scored(workspace, set())
    (tmp_path / "event.tif").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    with pytest.raises(ImageryError, match="cannot be opened as GTiff"):
        answers(tmp_path / "event.tif", scene)
    (tmp_path / "event.gpkg").write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    with pytest.raises(TruthError, match="is no GeoPackage"):
        answers(tmp_path / "event.gpkg", scene)


def test_one_mask_for_several_places_is_ambiguous(workspace: Workspace, answers: Any, tmp_path: Path) -> None:
    scene, _ = (write_scored(workspace, set(), location=place) for place in ("a", "b"))
    with pytest.raises(TruthError, match=r"one mask, and 2 locations were scored \(a, b\)"):
        answers(write_mask(tmp_path / "event.tif", mask()), scene)


def test_without_its_heatmap_a_scene_has_no_valid_pixels_and_this_is_said(
    workspace: Workspace, answers: Any, tmp_path: Path
) -> None:
    scene = write_scored(workspace, set())
    scene.heatmap.unlink()
    with pytest.raises(TruthError, match=r"_anomaly\.tif"):
        answers(write_mask(tmp_path / "event.tif", mask()), scene)


# Polygons


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


# Labels


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
@pytest.mark.parametrize("when", ["date", "scene_id"])
def test_labelled_tiles_are_what_their_label_says_and_others_are_unknown(
    workspace: Workspace, answers: Any, tmp_path: Path, name: str, when: str
) -> None:
    scene, later = (write_scored(workspace, set(), day=day) for day in (DAY, LATER))
    ids = read_scores(scene, "score")["tile_id"]
    moment = DAY if when == "date" else scene.scene_id
    labels = ["1", "normal", "", "True"]
    table = pd.DataFrame({"tile_id": ids[:4], when: moment, "label": labels, "kind": ["fire", "", "fire", None]})
    path = tmp_path / name
    table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path)

    found = answers(path, scene)
    np.testing.assert_array_equal(found.positive[:5], [1, 0, np.nan, 1, np.nan])
    assert found.kind[:4].tolist() == ["fire", "", "", ""]
    assert found.regions is None
    assert answers(path, later) is None
    np.testing.assert_array_equal(answers(path, scene, complete=True).positive[:5], [1, 0, np.nan, 1, 0])
    assert not answers(path, later, complete=True).positive.any()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"tile_id": ["a"], "date": [DAY], "label": ["maybe"]}, "the label 'maybe': write 1"),
        ({"tile_id": ["a"], "date": [DAY], "truth": ["1"]}, r"no column label \(found: tile_id, date, truth\)"),
        ({"tile_id": ["a"], "label": ["1"]}, "no column date"),
        ({"tile_id": ["a"], "date": ["1.6.2020"], "label": ["1"]}, "'1.6.2020' in column date"),
        ({"tile_id": ["a", "a"], "date": [DAY, DAY], "label": ["1", "0"]}, "labels a twice for one date"),
    ],
)
def test_labels_that_are_none_are_refused(
    workspace: Workspace, answers: Any, tmp_path: Path, columns: Any, words: str
) -> None:
    scene = write_scored(workspace, set())
    pd.DataFrame(columns).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(TruthError, match=words):
        answers(tmp_path / "labels.csv", scene)


# What is there


@pytest.mark.parametrize("name", ["events.tif", "events.geojson", "labels.csv", "events"])
def test_a_truth_that_is_not_there_is_said(workspace: Workspace, answers: Any, tmp_path: Path, name: str) -> None:
    scene = write_scored(workspace, set())
    with pytest.raises(TruthError, match=f"there is no .*{name}"):
        answers(tmp_path / name, scene)


def test_a_truth_of_unknown_kind_is_not_guessed(workspace: Workspace, answers: Any, tmp_path: Path) -> None:
    scene = write_scored(workspace, set())
    (tmp_path / "events.kml").write_text("<kml/>")
    with pytest.raises(TruthError, match="say which with --truth-kind"):
        answers(tmp_path / "events.kml", scene)
    with pytest.raises(TruthError, match=r"is none of \.geojson"):
        answers(tmp_path / "events.kml", scene, kind="polygons")


def test_scored_scenes_are_found_by_version_and_date_and_versions_are_named_where_there_are_none(
    workspace: Workspace,
) -> None:
    scenes = [write_scored(workspace, set(), day=day, location=place) for place in ("a", "b") for day in (DAY, LATER)]
    write_scored(workspace, set(), version="v2")

    assert scored_scenes(workspace, "v1", Period()) == scenes
    assert scored_scenes(workspace, "v1", Period(end=DAY)) == scenes[::2]
    with pytest.raises(TruthError, match=r"no scores of v3 .* \(versions there: v1, v2\): run `tilewatch nightly`"):
        scored_scenes(workspace, "v3", Period())
    with pytest.raises(TruthError, match="from 2021-01-01 to today"):
        scored_scenes(workspace, "v1", Period(start="2021-01-01"))


def test_a_place_without_a_grid_cannot_be_compared(workspace: Workspace, answers: Any, tmp_path: Path) -> None:
    scene = write_scored(workspace, set())
    (workspace.catalog / "here/grid.json").unlink()
    with pytest.raises(TruthError, match="no grid of here"):
        answers(write_mask(tmp_path / "event.tif", mask()), scene)

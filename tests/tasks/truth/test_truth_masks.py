"""Which scored tiles show an event, by masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from configs import Workspace
from imagery.errors import ImageryError
from imagery.truth import TruthError
from tasks.evaluate import read_scores
from tasks.truth import Shares, load_truth
from tests.rasters import WEST, watch_settings, write_raster
from tests.scored import write_scored
from tests.tasks.truth.given import DAY, LATER, NO_SCORE, SHAPE, WINDOW, mask, write_mask


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

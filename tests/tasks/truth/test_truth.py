"""Which scored tiles show an event: by labels, and never by a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from configs import Period, Workspace
from imagery.truth import TruthError
from tasks.evaluate import read_scores
from tasks.truth import scored_scenes
from tests.scored import write_scored
from tests.tasks.truth.given import DAY, LATER, mask, write_mask


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

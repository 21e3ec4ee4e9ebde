"""Evaluating scored scenes: the numbers are those of their definitions, and what does not count is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from configs import Workspace
from imagery.truth import TruthError
from tasks import curves
from tasks.evaluate import Detection, Draws, Labelled, detection, evaluate_tiles, label_scenes, with_other
from tasks.evaluation import LeftOut, Regions, flat_rows
from tasks.metrics import auroc, average_precision, fpr_at_recall, known, pro
from tasks.truth import ScoredScene, Shares, load_truth
from tests.rasters import watch_settings, write_raster
from tests.scored import HERE, write_scored


@given(
    tiles=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), min_size=1, max_size=60),
)
def test_the_numbers_are_those_of_scikit_learn(tiles: list[tuple[int, bool, bool]]) -> None:
    score, flagged, positive = (np.array(column) for column in zip(*tiles, strict=True))

    found = detection(score.astype(float), flagged, positive.astype(float))

    assert (found.tiles, found.positives, found.flags) == (len(tiles), positive.sum(), flagged.sum())
    precision = precision_score(positive, flagged, zero_division=np.nan)
    recall = recall_score(positive, flagged, zero_division=np.nan)
    false_alarms = flagged[~positive].mean() if (~positive).any() else np.nan
    auroc = roc_auc_score(positive, score) if 0 < positive.sum() < len(positive) else np.nan
    pairs = [
        (found.precision, precision),
        (found.recall, recall),
        (found.false_alarm_rate, false_alarms),
        (found.auroc, auroc),
    ]
    for value, expected in pairs:
        assert (value is None) == np.isnan(expected)
        if value is not None:
            assert value == pytest.approx(expected)


def test_tiles_without_a_score_or_a_clear_truth_do_not_count() -> None:
    score = np.array([3.0, 2.0, np.nan, 9.0, 1.0])
    flagged = np.array([True, False, True, True, False])
    positive = np.array([1.0, 0.0, 1.0, np.nan, 0.0])

    assert detection(score, flagged, positive) == detection(score[[0, 1, 4]], flagged[[0, 1, 4]], positive[[0, 1, 4]])
    assert detection(score, flagged, positive).tiles == 3


def test_what_is_not_defined_is_none_and_not_zero() -> None:
    nothing = detection([], [], [])
    no_event = detection([1.0, 2.0], [False, False], [0.0, 0.0])
    only_events = detection([1.0, 2.0], [True, False], [1.0, 1.0])

    assert nothing == Detection(0, 0, 0, None, None, None, None)
    assert no_event == Detection(2, 0, 0, None, None, None, 0.0)
    assert only_events == Detection(2, 2, 1, 1.0, 0.5, None, None)


DAYS = ("2020-06-01", "2020-06-06", "2020-06-11")
TILES = 35  # of a scene of HERE; the middle one has no score


def labelled_scenes(
    workspace: Workspace,
    folder: Path,
    places: Sequence[str] = ("a", "b"),
    marked: Sequence[int] = (0, 1, 2),
    score: str = "score",
    **columns: ArrayLike,
) -> tuple[Labelled, list[ScoredScene]]:
    """Scored scenes with events on tiles 0, 1 and 8 (a fire at a, a flood at b), and flags on some tiles."""
    scenes = [
        write_scored(workspace, set(marked), location=place, day=day, **columns) for place in places for day in DAYS
    ]
    for number, place in enumerate(places, start=1):
        events = np.zeros((HERE.height, HERE.width), dtype=np.uint8)
        events[0:32, 0:64] = events[32:64, 32:64] = number
        events[0:2, 96:128] = number  # too little of a tile
        write_raster(folder / f"truth/{place}.tif", {"event": events})
    (folder / "truth/kinds.csv").write_text("value,kind\n1,fire\n2,flood\n")
    truth = load_truth(str(folder / "truth"), "auto", scenes, watch_settings(folder), workspace, False)
    return label_scenes(scenes, truth, Shares(), score), scenes


def test_an_evaluation_counts_what_counts_and_says_what_does_not(workspace: Workspace, tmp_path: Path) -> None:
    labelled, _ = labelled_scenes(workspace, tmp_path)
    found = evaluate_tiles(labelled, "v1", "score", None, Draws(50))

    assert (found.scenes, found.locations, found.positives, found.flags) == (6, 2, 18, 18)
    assert found.left_out == LeftOut(scenes=0, no_score=6, no_truth=0, between=6)
    assert found.tiles == 6 * (TILES - 2)
    assert (found.interval_by, found.groups) == ("location", 2)
    assert found.estimates["recall"].value == pytest.approx(2 / 3)
    assert found.estimates["precision"].value == pytest.approx(2 / 3)
    assert found.estimates["false_alarm_rate"].value == pytest.approx(1 / 30)
    assert set(found.estimates) == {
        "average_precision", "auroc", "fpr95", "precision", "recall", "false_alarm_rate", "pro",
    }  # fmt: skip
    assert found.regions == Regions(counted=12, unseen=0, masked_share=0.0)


def test_every_number_is_that_of_its_metric_on_the_tiles_that_count(workspace: Workspace, tmp_path: Path) -> None:
    labelled, _ = labelled_scenes(workspace, tmp_path)
    found = evaluate_tiles(labelled, "v1", "score", None, Draws(20))
    score, flagged, positive = (labelled.tiles[name] for name in ("score", "flagged", "positive"))

    same = detection(score, flagged, positive)
    assert found.estimates["auroc"].value == pytest.approx(same.auroc)
    assert found.estimates["precision"].value == same.precision
    assert found.estimates["average_precision"].value == pytest.approx(average_precision(score, positive))
    assert found.estimates["fpr95"].value == pytest.approx(fpr_at_recall(score, positive))


def test_each_kind_is_held_against_all_tiles_without_an_event(workspace: Workspace, tmp_path: Path) -> None:
    labelled, _ = labelled_scenes(workspace, tmp_path)
    found = evaluate_tiles(labelled, "v1", "score", None, Draws(20))

    assert list(found.kinds) == ["fire", "flood"]
    fire = found.kinds["fire"]
    assert (fire.positives, fire.flagged) == (9, 6)
    assert fire.interval_by == "date", "all fires are in one place: drawing places would say nothing of them"
    assert fire.estimates["recall"].value == pytest.approx(2 / 3)
    rows = labelled.tiles[(labelled.tiles["kind"] == "fire") | (labelled.tiles["positive"] == 0)]
    assert fire.estimates["auroc"].value == pytest.approx(auroc(rows["score"], rows["positive"]))


def test_one_place_is_drawn_by_date_and_one_date_gives_no_interval(workspace: Workspace, tmp_path: Path) -> None:
    labelled, _ = labelled_scenes(workspace, tmp_path, places=["a"])
    found = evaluate_tiles(labelled, "v1", "score", None, Draws(20))
    assert (found.interval_by, found.groups) == ("date", 3)

    night = labelled.tiles[labelled.tiles["date"] == DAYS[0]]
    alone = evaluate_tiles(replace(labelled, tiles=night, regions={}), "v1", "score", None, Draws(20))
    assert alone.estimates["auroc"].value is not None
    assert alone.estimates["auroc"].low is None
    assert str(alone.estimates["auroc"]) == f"{alone.estimates['auroc'].value:.3f}"


def test_another_score_has_no_threshold_and_no_heatmap(workspace: Workspace, tmp_path: Path) -> None:
    labelled, _ = labelled_scenes(workspace, tmp_path, score="cva", score_cva=np.arange(TILES) * 1.0)
    found = evaluate_tiles(labelled, "v1", "cva", None, Draws(20))

    assert set(found.estimates) == {"average_precision", "auroc", "fpr95"}
    assert (found.flags, found.regions) == (None, None)
    assert found.kinds["fire"].flagged is None
    with pytest.raises(TruthError, match=r"has no score 'rx': choose 'score' or one of kl, cva"):
        labelled_scenes(workspace, tmp_path, score="rx", score_cva=1.0)


def test_scores_are_compared_on_the_tiles_that_have_both(workspace: Workspace, tmp_path: Path) -> None:
    cva = np.where(np.arange(TILES) < 3, np.nan, np.arange(TILES))
    labelled, scenes = labelled_scenes(workspace, tmp_path, score_cva=cva)
    found = evaluate_tiles(with_other(labelled, scenes, "cva"), "v1", "score", "cva", Draws(50)).comparison

    assert found is not None
    assert found.tiles == 6 * (TILES - 2 - 3)
    counted = labelled.tiles[~labelled.tiles["tile_id"].str.contains("r00000-c000(?:00|32|64)$")]
    assert found.own["auroc"] == pytest.approx(auroc(counted["score"], counted["positive"]))
    assert found.other["auroc"] is not None
    difference = found.differences["auroc"]
    assert difference.value == pytest.approx(found.own["auroc"] - found.other["auroc"])


def test_versions_are_compared_tile_by_tile_and_scenes_that_only_one_scored_do_not_count(
    workspace: Workspace, tmp_path: Path
) -> None:
    labelled, _ = labelled_scenes(workspace, tmp_path)
    other = [write_scored(workspace, set(), location="a", day=day, version="v2") for day in DAYS]
    compared = with_other(labelled, other, "score")
    found = evaluate_tiles(compared, "v1", "score", "v2", Draws(50)).comparison

    assert len(compared.tiles) == len(labelled.tiles)
    assert found is not None
    assert found.tiles == 3 * (TILES - 2)
    assert found.own["auroc"] > found.other["auroc"], "only v1 saw the event"
    with pytest.raises(TruthError, match="has scored none of these scenes"):
        with_other(labelled, [], "score")


def test_pro_is_that_of_the_heatmaps_and_masks(workspace: Workspace, tmp_path: Path) -> None:
    labelled, scenes = labelled_scenes(workspace, tmp_path, places=["a"])
    found = evaluate_tiles(labelled, "v1", "score", None, Draws(20))

    with rasterio.open(tmp_path / "truth/a.tif") as dataset:
        mask = dataset.read(1) > 0
    heatmaps = []
    for scene in scenes:
        with rasterio.open(scene.heatmap) as dataset:
            heatmaps.append(dataset.read(1))
    assert found.estimates["pro"].value == pytest.approx(pro(heatmaps, [mask] * len(scenes)))


def test_a_truth_without_events_or_of_nothing_that_was_scored_is_said(workspace: Workspace, tmp_path: Path) -> None:
    labelled, scenes = labelled_scenes(workspace, tmp_path)
    nothing = replace(labelled, tiles=labelled.tiles[labelled.tiles["positive"] != 1])
    with pytest.raises(TruthError, match=r"no scored tile shows an event \(180 show none; left out: 6 without a score"):
        evaluate_tiles(nothing, "v1", "score", None, Draws(20))

    (tmp_path / "labels.csv").write_text(f"tile_id,date,label\nelsewhere-r00000-c00000,{DAYS[0]},1\n")
    truth = load_truth(str(tmp_path / "labels.csv"), "auto", scenes, watch_settings(tmp_path), workspace, False)
    with pytest.raises(TruthError, match="says nothing of the 6 scored scenes"):
        label_scenes(scenes, truth, Shares())


def test_an_evaluation_is_json_and_a_table_without_a_nan(workspace: Workspace, tmp_path: Path) -> None:
    labelled, scenes = labelled_scenes(workspace, tmp_path, score_cva=np.arange(TILES) * 1.0)
    found = evaluate_tiles(with_other(labelled, scenes, "cva"), "v1", "score", "cva", Draws(20))

    assert json.loads(json.dumps(asdict(found), allow_nan=False))["kinds"]["fire"]["positives"] == 9
    rows = pd.DataFrame(flat_rows(found))
    assert set(rows["of"]) == {"all", "fire", "flood", "minus cva"}
    assert len(rows) == 7 + 2 * 3 + 3


def test_figures_can_be_drawn_of_any_evaluation(workspace: Workspace, tmp_path: Path) -> None:
    for score in ("score", "cva"):
        labelled, _ = labelled_scenes(workspace, tmp_path, score=score, score_cva=np.arange(TILES) - 9.0)
        counted = labelled.tiles[known(labelled.tiles["score"], labelled.tiles["positive"])]
        detection_curves, kinds = curves.detection_curves(counted), curves.recall_by_kind(counted)
        curves.scores_by_label(counted, score)

        left, right = detection_curves.axes
        assert left.get_title() == f"average precision {average_precision(counted['score'], counted['positive']):.3f}"
        assert ("flags in force" in right.get_legend_handles_labels()[1]) == (score == "score")
        assert kinds.axes[0].get_legend_handles_labels()[1] == ["fire (9 tiles)", "flood (9 tiles)"]

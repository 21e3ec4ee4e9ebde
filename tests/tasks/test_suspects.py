"""What people said of tiles stands above what a detector says: what is learned from, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from tasks.calibrate import calibrate_detector
from tasks.dataset import scenes_of_tiles
from tasks.reference import usual_of
from tasks.review.verdicts import Verdict, VerdictError, write_verdicts
from tasks.score import score_scene
from tasks.suspects import Judged, read_judged, suspects
from tasks.train import normal_tiles
from tests.catalogs import scene_record
from tests.places import SIDE, TILES, Watched
from tests.rasters import watch_settings

WHEN = datetime(2024, 1, 1, tzinfo=UTC)
TRUE, FALSE, CLOUD, BAD = "anomaly", "false alarm", "cloud or shadow", "bad data"
NAMES = [f"here-r00000-c{column:05d}" for column in range(0, 160, 16)]


@pytest.fixture
def record() -> SceneRecord:
    return scene_record()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return watch_settings(tmp_path / "scenes", split={"max_flagged": 0.25})


def scored(workspace: Workspace, record: SceneRecord, flagged: Sequence[str], names: Sequence[str] = NAMES) -> None:
    """A table of scores of ten tiles."""
    path = workspace.scores / "v1" / "here" / f"{record.file_name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"tile_id": names, "score": 1.0, "flagged": [name in flagged for name in names]}).to_parquet(path)


def said(workspace: Workspace, record: SceneRecord, **verdicts: Sequence[str]) -> None:
    """Verdicts on tiles of a scene."""
    words = {"true": TRUE, "false": FALSE, "cloud": CLOUD, "bad": BAD}
    every = [Verdict(record.scene_id, tile, words[key], WHEN) for key, tiles in verdicts.items() for tile in tiles]
    workspace.root.mkdir(parents=True, exist_ok=True)
    write_verdicts(every, workspace)


def left_out(record: SceneRecord, settings: Settings, workspace: Workspace) -> set[str]:
    return {tile for _, tile in suspects([record], settings, workspace)}


def everything(settings: Settings) -> Settings:
    return settings.model_copy(update={"split": settings.split.model_copy(update={"exclude_flagged": False})})


@pytest.mark.parametrize("verdict", ["true", "cloud", "bad"])
def test_what_people_saw_something_in_is_never_learned_from_flagged_or_not_and_whatever_the_settings(
    settings: Settings, workspace: Workspace, record: SceneRecord, verdict: str
) -> None:
    said(workspace, record, **{verdict: NAMES[4:6]})

    assert left_out(record, settings, workspace) == set(NAMES[4:6]), "no scores are needed"
    scored(workspace, record, NAMES[5:7])
    assert left_out(record, settings, workspace) == set(NAMES[4:7])
    assert left_out(record, everything(settings), workspace) == set(NAMES[4:6])


def test_a_flag_that_was_a_false_alarm_is_normal(settings: Settings, workspace: Workspace, record: SceneRecord) -> None:
    scored(workspace, record, NAMES[:2])
    assert left_out(record, settings, workspace) == set(NAMES[:2])

    said(workspace, record, false=NAMES[:1])

    assert left_out(record, settings, workspace) == {NAMES[1]}


def test_verdicts_on_other_scenes_say_nothing_of_this_one(
    settings: Settings, workspace: Workspace, record: SceneRecord
) -> None:
    said(workspace, replace(record, scene_id="here/1999-01-01"), true=NAMES[:3])

    assert left_out(record, settings, workspace) == set()


@pytest.mark.parametrize(
    ("true", "false", "believed"),
    [(0, 0, False), (1, 0, True), (1, 1, True), (2, 2, True), (1, 2, False), (0, 3, False)],
)
def test_the_flags_of_a_scene_flagged_as_a_whole_are_believed_when_half_of_those_looked_at_were_right(
    settings: Settings, workspace: Workspace, record: SceneRecord, true: int, false: int, believed: bool
) -> None:
    flagged = NAMES[:6]
    scored(workspace, record, flagged)
    said(workspace, record, true=flagged[:true], false=flagged[true : true + false])

    found = left_out(record, settings, workspace)

    assert found == (set(flagged) - set(flagged[true : true + false]) if believed else set(flagged[:true]))


def test_verdicts_on_tiles_without_a_flag_do_not_speak_for_the_flags(
    settings: Settings, workspace: Workspace, record: SceneRecord
) -> None:
    scored(workspace, record, NAMES[:6])
    said(workspace, record, true=NAMES[8:9])

    assert left_out(record, settings, workspace) == {NAMES[8]}


def test_a_verdict_that_was_changed_is_seen_and_the_table_is_parsed_once_until_then(
    settings: Settings, workspace: Workspace, record: SceneRecord
) -> None:
    assert left_out(record, settings, workspace) == set()
    said(workspace, record, true=NAMES[:1])
    first = read_judged(workspace)
    assert read_judged(workspace) is first
    assert left_out(record, settings, workspace) == {NAMES[0]}

    said(workspace, record, false=NAMES[:1])
    assert left_out(record, settings, workspace) == set()

    workspace.verdicts.unlink()
    assert read_judged(workspace) == Judged()


@pytest.mark.parametrize("content", [b"", b"no parquet at all"])
def test_a_table_of_verdicts_that_cannot_be_read_stops_the_learning_and_says_what_to_do(
    settings: Settings, workspace: Workspace, record: SceneRecord, content: bytes
) -> None:
    workspace.root.mkdir(parents=True)
    workspace.verdicts.write_bytes(content)

    with pytest.raises(VerdictError, match=r"verdicts\.parquet cannot be read: .*restore the file, or move it away"):
        suspects([record], settings, workspace)


# Through what learns


def test_neither_networks_nor_scores_nor_levels_nor_thresholds_learn_from_what_people_saw_something_in(
    place: Watched,
) -> None:
    settings, workspace = everything(place.settings), place.workspace
    train, calibrating = place.split.train[-1], place.split.calibrate[-1]
    tile, other = "here-r00016-c00016", "here-r00032-c00032"
    verdicts = [Verdict(train.scene_id, tile, CLOUD, WHEN), Verdict(train.scene_id, other, TRUE, WHEN)]
    write_verdicts([*verdicts, Verdict(calibrating.scene_id, tile, TRUE, WHEN)], workspace)
    before = place.detector.calibrations["aligned_difference"]

    gathered = scenes_of_tiles(place.split.train, settings, workspace, None)
    looked_at = normal_tiles(place.detector, place.split.train, settings, workspace)
    made = calibrate_detector(place.detector, place.split, settings, workspace).detector

    assert len(gathered) == len(place.split.train) * TILES - 2
    assert gathered.count(train) == TILES - 2
    assert sum(len(tiles.values) for tiles in looked_at) == len(place.split.train) * TILES - 2
    after = made.calibrations["aligned_difference"]
    assert after.tiles == before.tiles - 1
    counts = dict(zip(after.levels.names, after.levels.counts, strict=True))
    fewer = dict(zip(before.levels.names, before.levels.counts, strict=True))
    assert {name for name, count in counts.items() if count < fewer[name]} == {tile, other}
    assert made.profile is not None


def test_a_false_alarm_counts_in_the_threshold_with_its_high_score(place: Watched) -> None:
    """Else the threshold stays too low: the flags that are left out are those with the highest scores."""
    settings, workspace = place.settings, place.workspace
    record = place.split.calibrate[-1]
    highest = calibrate_detector(place.detector, place.split, settings, workspace).scores["aligned_difference"]
    names = pd.read_parquet(scene_tiles(place, record))["tile_id"].tolist()
    rows = highest.iloc[-TILES:].to_numpy()  # of the last scene, in the order of its tiles
    flagged = [names[index] for index in np.argsort(rows)[-4:]]
    scored(workspace, record, flagged, names)

    def threshold() -> float:
        made = calibrate_detector(place.detector, place.split, settings, workspace).detector
        return made.calibrations["aligned_difference"].threshold

    without = threshold()
    said(workspace, record, false=flagged)
    with_them = threshold()
    said(workspace, record, true=flagged)

    assert with_them > without
    assert threshold() <= with_them
    assert threshold() == pytest.approx(without, rel=0.05)  # what is expected of later scenes changes a little


def scene_tiles(place: Watched, record: SceneRecord) -> Path:
    return place.workspace.catalog / "here" / f"{record.file_name}.parquet"


def test_an_event_that_lasts_scores_higher_on_later_nights_once_people_have_confirmed_it(place: Watched) -> None:
    """Each date that shows it would otherwise let it be expected a little more."""
    site = np.zeros((SIDE, SIDE), bool)
    site[32:48, 32:48] = True
    first, _, last = (place.on_night(number, event=site) for number in range(3))

    def raw(version: str) -> float:
        usual = usual_of(last, place.settings, place.workspace)
        files = score_scene(last, place.detector, version, place.settings, place.workspace, usual)
        scores = pd.read_parquet(files.scores, columns=["tile_id", "raw"])
        return float(scores.set_index("tile_id").loc["here-r00032-c00032", "raw"])

    before = raw("v1")
    said(place.workspace, first, true=["here-r00032-c00032"])

    assert raw("v2") > before

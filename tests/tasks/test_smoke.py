"""The smoke alarm of a real detector: it sees what lasts, says what it would miss, and counts as the nights will."""

from __future__ import annotations

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest

from configs import Settings
from tasks.injected import NothingToInject, SmokeAlarm
from tasks.reference import usual_of
from tasks.score import score_scene
from tasks.smoke import injected_into
from tests.places import NIGHT, SIDE, TILES, Watched


def injecting(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update={"injections": settings.injections.model_copy(update=values)})


def alarm_of(place: Watched, **values: object) -> SmokeAlarm:
    """Anomalies injected into the calibration scenes."""
    settings = injecting(place.settings, **values)
    return injected_into(place.split.calibration_scenes, place.detector, settings, place.workspace)


@pytest.fixture(scope="module")
def usual_alarm(place_once: Watched) -> SmokeAlarm:
    return alarm_of(place_once)


def test_strong_events_that_last_are_found(usual_alarm: SmokeAlarm, place_once: Watched) -> None:
    found = usual_alarm.table.set_index("kind")

    assert (found.loc[["flood", "bare_soil"], "recall"] > 0.9).all()
    assert (found.loc[["flood", "bare_soil"], "ap"] > 0.9).all()
    assert usual_alarm.warnings == []
    # They are found although scores are confirmed by the last clear date: each scene has one.
    for record in place_once.split.calibration_scenes:
        usual = usual_of(record, place_once.settings, place_once.workspace)
        assert usual is not None
        assert usual.expectation.confirms


def test_the_same_event_on_one_date_only_scores_hardly_more_than_usual(place: Watched) -> None:
    event = np.zeros((SIDE, SIDE), bool)
    event[32:64, 32:64] = True
    record = place.on_night(event=event)
    usual = usual_of(record, place.settings, place.workspace)

    files = score_scene(record, place.detector, "v1", place.settings, place.workspace, usual)

    scores = gpd.read_parquet(files.scores).set_index("tile_id")
    assert scores.loc[["here-r00032-c00032", "here-r00048-c00048"], "score"].max() < 3


def test_what_is_missed_is_said_in_words(place_once: Watched) -> None:
    alarm = alarm_of(place_once, kinds=("flood", "bare_soil"), strengths={"flood": 0.001})

    tiles = int(alarm.table["tiles"][0])
    assert alarm.warnings == [f"this detector would miss floods: 0% of {tiles} injected are flagged"]
    assert alarm.table["recall"].tolist() == [0, 1]


def test_twice_the_same_and_in_any_order_of_the_scenes(usual_alarm: SmokeAlarm, place_once: Watched) -> None:
    again = injected_into(
        place_once.split.calibration_scenes[::-1], place_once.detector, place_once.settings, place_once.workspace
    )

    assert again.table.equals(usual_alarm.table)
    assert again.false_alarms == usual_alarm.false_alarms
    assert not alarm_of(place_once, tiles=10).table.equals(usual_alarm.table)


@pytest.mark.parametrize("number", [0, -1])
def test_untouched_tiles_are_flagged_as_in_their_scene_at_the_edge_and_without_a_past_as_well(
    place: Watched, number: int
) -> None:
    record = place.records[number]
    often = place.settings.calibration.model_copy(update={"false_alarm_rate": 0.3})
    calibrations = {name: replace(made, settings=often) for name, made in place.detector.calibrations.items()}
    detector = replace(place.detector, calibrations=calibrations)
    usual = usual_of(record, place.settings, place.workspace)
    assert (usual is None) is (number == 0)

    alarm = injected_into([record], detector, injecting(place.settings, kinds=("flood",)), place.workspace)
    files = score_scene(record, detector, "v1", place.settings, place.workspace, usual)

    scores = gpd.read_parquet(files.scores)
    assert set(scores["kind"]) == {"rx" if number == 0 else "aligned_difference"}
    assert alarm.untouched == scores["score"].notna().sum() == TILES
    assert alarm.false_alarms == pytest.approx(scores["flagged"].mean())
    assert alarm.false_alarms > 0


def test_scenes_without_a_scored_tile_have_nothing_to_inject_into(place: Watched) -> None:
    record = place.on_night(clouded=SIDE)
    assert record.day == NIGHT

    with pytest.raises(NothingToInject, match="no held-out tile"):
        injected_into([record], place.detector, place.settings, place.workspace)

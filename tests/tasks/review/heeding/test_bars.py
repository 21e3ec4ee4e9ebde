"""Bars: false alarms raise them at their tile and nowhere else, and what takes them back."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.schema import ReferenceSettings
from imagery.catalog import Catalog
from tasks.evidence import Scored
from tasks.review.bars import scene_path
from tasks.review.heeding import heed
from tasks.review.verdicts import Verdict, write_verdicts
from tests.catalogs import enter
from tests.tasks.review.heeding.reviewed import (
    NIGHT,
    RATE,
    REVIEWED,
    Watched,
    at,
    heeded,
    judged,
    said,
    seen_daily,
)


def test_without_verdicts_every_tile_is_as_it_was_scored(place: Watched, night: Scored) -> None:
    (found,) = heed([night], place.detector, place.settings, place.workspace)

    pd.testing.assert_frame_equal(found.scores.drop(columns=REVIEWED), night.scores)
    pd.testing.assert_series_equal(found.scores["bar"], night.scores["threshold"], check_names=False)
    pd.testing.assert_series_equal(found.scores["p_reviewed"], night.scores["p_value"], check_names=False)
    assert found.scores[["suppressed", "alike"]].isna().all(axis=None)
    assert heed([], place.detector, place.settings, place.workspace) == []


def test_false_alarms_raise_the_bar_at_their_tile_and_nowhere_else(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    file = place.workspace.scores / "v1" / "here" / f"{NIGHT}.parquet"
    before = file.read_bytes()

    found = heeded(place, night, [said(flag, 5, 1.1), said(flag, 10, 1.2)])

    here, others = found["tile_id"] == flag["tile_id"], found["tile_id"] != flag["tile_id"]
    (row,) = found[here].to_dict("records")
    assert not row["flagged"]
    assert row["bar"] == pytest.approx(1.1 * flag["score"])
    assert row["p_reviewed"] > RATE > row["p_value"]
    assert "2 false alarms" in row["suppressed"]
    assert str(NIGHT - timedelta(days=5)) in row["suppressed"]
    untouched = night.scores[others.to_numpy()]
    pd.testing.assert_frame_equal(found.loc[others, untouched.columns], untouched)
    assert (found.loc[others, "bar"].dropna() == untouched["threshold"].dropna()).all()
    assert file.read_bytes() == before


def test_a_score_that_is_higher_than_its_false_alarms_stays_a_flag(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    row = at(heeded(place, night, [said(flag, days, 0.9) for days in (5, 10, 15, 20)]), flag)

    assert row["flagged"]
    assert pd.isna(row["suppressed"])
    assert row["threshold"] < row["bar"] < row["score"]
    assert row["p_reviewed"] == row["p_value"]


def test_one_false_alarm_is_not_enough_where_two_are_asked_for(place: Watched, night: Scored, flag: pd.Series) -> None:
    assert not at(heeded(place, night, [said(flag, 5)], repeats=1), flag)["flagged"]
    assert at(heeded(place, night, [said(flag, 5)], repeats=2), flag)["bar"] >= flag["threshold"]
    assert not at(heeded(place, night, [said(flag, 5), said(flag, 10)], repeats=2), flag)["flagged"]
    assert at(heeded(place, night, [said(flag, 5), said(flag, 10)], repeats=None), flag)["flagged"]


def test_old_false_alarms_count_less(place: Watched, night: Scored, flag: pd.Series) -> None:
    twice = [said(flag, 5), said(flag, 10)]

    bars = [at(heeded(place, night, twice, half_life=days), flag)["bar"] for days in (1000.0, 8.0, 0.1)]

    assert bars[0] > bars[1] >= flag["threshold"]
    assert bars[2] == flag["threshold"]


@pytest.mark.parametrize("verdict", ["cloud or shadow", "bad data", "anomaly"])
def test_only_a_false_alarm_raises_a_bar(place: Watched, night: Scored, flag: pd.Series, verdict: str) -> None:
    row = at(heeded(place, night, [said(flag, days, verdict=verdict) for days in (5, 10, 15)]), flag)

    assert row["flagged"]
    assert row["bar"] == row["threshold"]


def test_a_tile_below_its_threshold_that_is_said_to_be_none_raises_no_bar(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    drawn = [said(flag, days, asked="sample") for days in (5, 10, 15)]
    held_back = [said(flag, days, asked="suppressed") for days in (5, 10, 15)]

    assert at(heeded(place, night, drawn), flag)["bar"] == flag["threshold"]
    assert at(heeded(place, night, held_back), flag)["bar"] > flag["score"]


def test_a_confirmed_anomaly_takes_the_false_alarms_before_it_back(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    seen_daily(place, 25)
    old = [said(flag, 20), said(flag, 25)]
    confirmed = said(flag, 12, verdict="anomaly")

    assert at(heeded(place, night, [*old, confirmed]), flag)["flagged"]
    assert not at(heeded(place, night, [*old, confirmed, said(flag, 4), said(flag, 5)]), flag)["flagged"]


@pytest.mark.parametrize("reach", [0, 3, 6])
def test_false_alarms_just_after_a_confirmed_anomaly_raise_no_bar(
    place: Watched, night: Scored, flag: pd.Series, reach: int
) -> None:
    seen_daily(place, 12)
    settings = place.settings.model_copy(update={"reference": ReferenceSettings(scenes=reach)})
    watched = replace(place, settings=settings)
    confirmed = said(flag, 12, verdict="anomaly")

    def flagged_after(*days_later: int) -> bool:
        verdicts = [confirmed, *(said(flag, 12 - days) for days in days_later)]
        return bool(at(heeded(watched, night, verdicts), flag)["flagged"])

    assert not flagged_after(reach + 1, reach + 2)
    assert reach == 0 or flagged_after(reach, reach + 1)
    assert reach < 2 or flagged_after(reach - 1, reach)


def test_where_scenes_are_rare_an_anomaly_is_remembered_for_longer(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    for days in (12, 8, 4, 0):
        enter(Catalog(place.workspace), "here", datetime.combine(NIGHT - timedelta(days=days), time(10), UTC))

    assert at(heeded(place, night, [said(flag, 12, verdict="anomaly"), said(flag, 8), said(flag, 4)]), flag)["flagged"]


def test_what_is_said_of_this_night_or_a_later_one_does_not_count(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    row = at(heeded(place, night, [said(flag, 0), said(flag, -5), said(flag, -10)]), flag)

    assert row["flagged"]
    assert row["bar"] == row["threshold"]


def test_a_false_alarm_of_the_same_name_elsewhere_counts_not(place: Watched, night: Scored, flag: pd.Series) -> None:
    elsewhere = [replace(said(flag, days), scene_id=f"here/too/2020-0{days}-01") for days in (1, 2, 3)]

    assert at(heeded(place, night, elsewhere), flag)["bar"] == flag["threshold"]


def test_scores_of_another_detector_are_compared_by_their_p_values(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    floor = float(night.scores["p_value"].min())
    little, much = 0.019, floor

    def bar(p_value: float | None) -> float:
        other = {"detector_version": "v0", "score": 1e6, "p_value": p_value}
        return float(at(heeded(place, night, [said(flag, days, **other) for days in (5, 10)]), flag)["bar"])

    assert bar(None) == flag["threshold"]
    assert flag["threshold"] <= bar(little) <= bar(much) < np.inf


def test_a_tile_that_was_judged_by_another_score_tells_nothing(place: Watched, night: Scored, flag: pd.Series) -> None:
    verdicts = [said(flag, 5), said(flag, 10)]
    for one in verdicts:
        path = scene_path(place.workspace.scores, "v1", one.scene_id)
        pd.DataFrame({"tile_id": [flag["tile_id"]], "kind": ["rx"], "basis": ["calibrated"]}).to_parquet(path)

    assert at(heeded(place, night, verdicts), flag)["bar"] == flag["threshold"]


def test_tiles_judged_by_their_scene_alone_have_bars_by_their_p_values(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    bare = replace(place.detector, calibrations={})
    alone = replace(night, scores=judged(bare, night.scores))
    flag = at(alone.scores, flag)
    assert (flag["flagged"], flag["basis"]) == (True, "in_scene")

    odder = [said(flag, days, p_value=float(flag["p_value"]) / 10) for days in (5, 10)]
    less_odd = [said(flag, days, p_value=float(flag["p_value"]) * 10) for days in (5, 10)]

    assert not at(heeded(place, alone, odder, bare), flag)["flagged"]
    assert at(heeded(place, alone, less_odd, bare), flag)["flagged"]


def test_with_a_false_discovery_rate_a_raised_bar_takes_no_other_flag(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    made = place.detector.required_calibration
    by_fdr = replace(made, settings=made.settings.model_copy(update={"fdr": 0.1}))
    detector = replace(place.detector, calibrations={**place.detector.calibrations, made.score: by_fdr})
    scores = judged(detector, night.scores)
    assert scores["flagged"].sum() == 3

    found = heeded(place, replace(night, scores=scores), [said(flag, 5), said(flag, 10)], detector)

    assert not at(found, flag)["flagged"]
    assert found["flagged"].sum() == scores["flagged"].sum() - 1


def test_verdicts_that_cannot_be_read_do_not_cost_the_night(
    place: Watched, night: Scored, flag: pd.Series, caplog: pytest.LogCaptureFixture
) -> None:
    write_verdicts([said(flag, 5), said(flag, 10)], place.workspace)
    whole = place.workspace.verdicts.read_bytes()
    for content in (b"no table", whole[: len(whole) // 2], b""):
        place.workspace.verdicts.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            (found,) = heed([night], place.detector, place.settings, place.workspace)

        assert at(found.scores, flag)["flagged"]
        assert "without verdicts" in caplog.text


def test_a_verdict_of_no_scene_is_warned_of(
    place: Watched, night: Scored, flag: pd.Series, caplog: pytest.LogCaptureFixture
) -> None:
    found = heeded(place, night, [Verdict("nowhere", "tile", "false alarm"), said(flag, 5), said(flag, 10)])

    assert at(found, flag)["flagged"]
    assert "'nowhere'" in caplog.text


def test_places_with_any_name_find_their_scores() -> None:
    found = scene_path(Path("scores"), "v1", "../a/b/2024-01-02T101112Z/2")

    assert found == Path("scores/v1/%2E.%2Fa%2Fb/2024-01-02T101112Z_2.parquet")

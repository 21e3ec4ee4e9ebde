"""What verdicts do to the flags of a night, with real scores of a real detector."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import Settings, Workspace
from configs.schema import CalibrationSettings, ModelSettings, ReferenceSettings, ScoreSettings
from imagery.catalog import Catalog, SceneRecord
from tasks.evidence import Scored
from tasks.review.bars import scene_path
from tasks.review.heeding import heed
from tasks.review.verdicts import Verdict, write_verdicts
from tasks.score import latents_file
from tests.catalogs import enter, scene_record
from tests.rasters import BANDS, watch_settings
from tests.scored import HERE, scores_of
from vae.detector import Detector
from vae.networks import build
from vae.normalisation import Normalisation

NIGHT = date(2020, 6, 1)
REVIEWED = ["bar", "p_reviewed", "suppressed", "alike"]
RATE = 0.02


@dataclass(frozen=True)
class Watched:
    """A detector that is calibrated on numbers, and where its verdicts are."""

    detector: Detector
    settings: Settings
    workspace: Workspace


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Its normal scores are log-normal, at places that the night does not show."""
    model = ModelSettings(depth=1, width=4, latent_channels=3)
    network = build(len(BANDS), model, 0)
    network.sigma.fill_(0.3)
    limits = Normalisation.from_limits(dict.fromkeys(BANDS, (0.03, 0.4)), log=True, clip=3.0)
    score = ScoreSettings(name="reconstruction", without_past="reconstruction", also=())
    raw = np.exp(np.random.default_rng(0).normal(0, 0.5, 2000))
    dates = [f"2020-04-{number % 20 + 1:02}" for number in range(2000)]
    places = [f"there-{number // 20}" for number in range(2000)]
    bare = Detector((network,), limits, model, score, 32)
    made = CalibrationSettings(false_alarm_rate=RATE)
    least = bare.least("reconstruction")
    return bare.with_calibration("reconstruction", raw + least, dates, dates, places, made, "held_out")


@pytest.fixture
def place(detector: Detector, tmp_path: Path) -> Watched:
    return Watched(detector, watch_settings(tmp_path), Workspace(tmp_path / "workspace"))


def record_of(day: date, location: str = "here") -> SceneRecord:
    return scene_record(location, datetime(day.year, day.month, day.day, tzinfo=UTC))


def judged(detector: Detector, table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The table as the detector judges its raw scores."""
    found = detector.judge(table["kind"].to_numpy(object), table["raw"].to_numpy(), table["tile_id"].tolist())
    columns = {name: getattr(found, name) for name in ("score", "p_value", "threshold", "flagged")}
    return table.assign(**columns, basis=pd.array(found.basis, "str"))


@pytest.fixture
def night(place: Watched) -> Scored:
    """A night of 35 tiles with three flags, in a file as well."""
    table = scores_of(set(), HERE, day=str(NIGHT))
    raw = np.exp(np.random.default_rng(1).uniform(-0.7, 0.7, len(table)))
    raw[[3, 9, 20]] = 9.0, 12.0, 15.0
    raw[table["score"].isna()] = np.nan
    kind = pd.array(["reconstruction" if np.isfinite(one) else "" for one in raw], "str")
    table = judged(place.detector, table.assign(raw=raw + place.detector.least("reconstruction"), kind=kind))
    assert table["flagged"].sum() == 3
    path = place.workspace.scores / "v1" / "here" / f"{NIGHT}.parquet"
    path.parent.mkdir(parents=True)
    table.to_parquet(path)
    return Scored(record_of(NIGHT), table, {}, Path("none.tif"), None)


@pytest.fixture
def flag(night: Scored) -> pd.Series:
    """The middle one of its flags."""
    return night.scores.loc[9]


def said(
    flag: pd.Series, days_before: int, times: float = 1.1, verdict: str = "false alarm", **more: object
) -> Verdict:
    """What was said of the same tile on an earlier night, when its score was so many times tonight's."""
    about: dict[str, object] = {"detector_version": "v1", "score": float(flag["score"]) * times, "p_value": 0.001}
    scene = f"here/{NIGHT - timedelta(days=days_before)}"
    return Verdict(scene, str(flag["tile_id"]), verdict, **about | more)


def heeded(
    place: Watched, night: Scored, verdicts: Sequence[Verdict], detector: Detector | None = None, **review: object
) -> pd.DataFrame:
    """The scores of the night after these verdicts."""
    write_verdicts(verdicts, place.workspace)
    settings = place.settings.model_copy(update={"review": place.settings.review.model_copy(update=review)})
    (found,) = heed([night], detector or place.detector, settings, place.workspace)
    return found.scores


def at(scores: pd.DataFrame, flag: pd.Series) -> pd.Series:
    (row,) = [row for _, row in scores.iterrows() if row["tile_id"] == flag["tile_id"]]
    return row


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


def seen_daily(place: Watched, days_before: int) -> None:
    """Enter a scene a day in the catalog."""
    for days in range(days_before + 1):
        enter(Catalog(place.workspace), "here", datetime.combine(NIGHT - timedelta(days=days), time(10), UTC))


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


def latents(place: Watched, day: date, changed: dict[int, Sequence[float]], version: str = "v1") -> None:
    """The latents of a scene: ground that stays, and what changes at some tiles, in one corner of them."""
    ground = np.random.default_rng(5).normal(size=(len(scores_of(set())), *place.detector.latent_shape)) * 10
    noise = np.random.default_rng(day.toordinal()).normal(size=ground.shape) * 0.1
    values = (ground + noise + 3).astype(np.float32)
    for tile, change in changed.items():
        corner = (day.toordinal() + tile) % 2 * 8
        values[tile, :, corner : corner + 8, :8] += np.array(change, np.float32)[:, None, None]
    path = latents_file(place.workspace, version, record_of(day))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.array(values.reshape(len(values), -1).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"tile_id": scores_of(set())["tile_id"].tolist(), "latent": rows}), path)


GLITTER, FIRE = (6.0, -4.0, 1.0), (-3.0, -6.0, 5.0)


def remembered(
    place: Watched, night: Scored, tonight: dict[int, Sequence[float]], version: str = "v1"
) -> list[Verdict]:
    """Quiet dates, one on which tile 1 glittered and tile 2 burned, and tonight; and what was said of these two."""
    for before in range(12, 6, -1):
        latents(place, NIGHT - timedelta(days=before), {}, version)
    then = NIGHT - timedelta(days=5)
    latents(place, then, {1: GLITTER, 2: FIRE}, version)
    latents(place, NIGHT, tonight, version)
    names = night.scores["tile_id"].tolist()
    words = {1: "false alarm", 2: "anomaly"}
    return [Verdict(f"here/{then}", names[tile], word, detector_version=version) for tile, word in words.items()]


def test_a_flag_that_changed_like_a_false_alarm_elsewhere_is_suppressed_and_says_so(
    place: Watched, night: Scored
) -> None:
    verdicts = remembered(place, night, {3: GLITTER, 9: FIRE, 20: (5.0, -3.5, 0.7)})

    found = heeded(place, night, verdicts, look_alike=0.5)

    names = found["tile_id"]
    assert found.index[found["flagged"]].tolist() == [9]
    assert found["alike"].dropna().to_dict() == dict.fromkeys([3, 20], f"{names[1]} here/{NIGHT - timedelta(days=5)}")
    assert all(f"like the false alarm at {names[1]}" in found["suppressed"][one] for one in (3, 20))
    assert (found["bar"].dropna() == night.scores["threshold"].dropna()).all()
    assert heeded(place, night, verdicts, look_alike=0.0)["flagged"].sum() == 3


def test_nothing_is_like_a_false_alarm_when_a_confirmed_anomaly_looks_the_same(place: Watched, night: Scored) -> None:
    verdicts = remembered(place, night, {3: GLITTER})
    same = [replace(one, verdict="anomaly" if one.verdict == "false alarm" else "false alarm") for one in verdicts]

    assert heeded(place, night, same, look_alike=0.5)["alike"].isna().all()
    assert heeded(place, night, verdicts, look_alike=0.5)["alike"].notna().sum() == 1


def test_nothing_is_like_anything_without_latents_of_this_detector(place: Watched, night: Scored) -> None:
    of_another = remembered(place, night, {3: GLITTER}, version="v0")
    assert heeded(place, night, of_another, look_alike=1.0)["alike"].isna().all()

    remembered(place, night, {3: GLITTER})  # `tilewatch latents` has made them since
    assert heeded(place, night, of_another, look_alike=0.5)["alike"].notna().sum() == 1

    for before in range(12, 4, -1):
        latents_file(place.workspace, "v1", record_of(NIGHT - timedelta(days=before))).unlink(missing_ok=True)
    assert heeded(place, night, of_another, look_alike=1.0)["alike"].isna().all()


def test_a_flag_that_its_bar_stopped_is_not_said_to_look_like_anything(
    place: Watched, night: Scored, flag: pd.Series
) -> None:
    verdicts = remembered(place, night, {9: GLITTER})

    row = at(heeded(place, night, [*verdicts, said(flag, 6), said(flag, 7)], look_alike=0.5), flag)

    assert "bar" in row["suppressed"]
    assert pd.isna(row["alike"])

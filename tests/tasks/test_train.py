"""What a detector learns from its scenes: scales, what is usual, thresholds, and what it does with too little."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest

from configs import Settings, SettingsError
from imagery.outputs import write_scores
from tasks.calibrate import calibrate_detector, observe_scenes
from tasks.reference import usual_of
from tasks.score import score_scene
from tasks.train import check_request, look_back, normal_tiles, train_detector, visible_channels
from tests.places import CALIBRATE, TILES, TRAIN, Watched, day
from tests.rasters import watch_settings
from vae.errors import CalibrationError


def changed(settings: Settings, section: str, **values: Any) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


def test_both_scores_are_calibrated_on_dates_that_neither_trained_nor_say_what_is_usual(place_once: Watched) -> None:
    calibrations = place_once.detector.calibrations

    assert set(calibrations) == {"aligned_difference", "rx"}
    for made in calibrations.values():
        assert made.dates == tuple(str(day(number)) for number in range(TRAIN, TRAIN + CALIBRATE))
        assert made.tiles == CALIBRATE * TILES
        assert len(made.levels.names) == TILES
        assert made.levels.counts.max() <= TRAIN
    # The first scene of the place has no past, so its differences say nothing.
    assert calibrations["aligned_difference"].levels.counts.max() == TRAIN - 1


def test_every_tile_is_observed_with_each_score_and_whether_it_has_a_past(place_once: Watched) -> None:
    first, last = place_once.records[0], place_once.records[-1]

    scores, profile = observe_scenes(place_once.detector, (first, last), place_once.settings, place_once.workspace)

    assert len(scores) == 2 * TILES
    compared = scores.groupby("scene_id")["compared"].agg(["all", "any"])
    assert compared.loc[first.scene_id].tolist() == [False, False]
    assert compared.loc[last.scene_id].tolist() == [True, True]
    assert (scores["aligned_difference"].notna() == scores["compared"]).all()
    assert scores["rx"].notna().all()
    assert set(profile.usable_dates(1)) == {first.day, last.day}


def test_with_too_few_tiles_that_have_a_past_all_are_judged_alone_and_the_log_says_so(
    place: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    alone = changed(place.settings, "reference", scenes=0)
    with caplog.at_level(logging.WARNING):
        made = calibrate_detector(place.detector, place.split, alone, place.workspace)

    assert set(made.detector.calibrations) == {"rx"}
    assert "aligned_difference is not used, all tiles are judged by rx: 0 tiles have a score" in caplog.text
    record = place.on_night()
    usual = usual_of(record, place.settings, place.workspace)
    scores = gpd.read_parquet(score_scene(record, made.detector, "v1", place.settings, place.workspace, usual).scores)
    assert set(scores["kind"]) == {"rx"}
    assert set(scores["basis"]) == {"calibrated"}
    assert set(scores["threshold"]) == {made.detector.calibrations["rx"].threshold}


def test_too_few_tiles_in_all_are_refused(place_once: Watched) -> None:
    more = changed(place_once.settings, "calibration", min_tiles=CALIBRATE * TILES + 1)
    with pytest.raises(CalibrationError, match=r"294 tiles have a score, calibration\.min_tiles asks for 295"):
        calibrate_detector(place_once.detector, place_once.split, more, place_once.workspace)


def test_places_can_be_taken_to_be_alike(place_once: Watched) -> None:
    alike = changed(place_once.settings, "score", relative_to_place=False)
    made = calibrate_detector(place_once.detector, place_once.split, alike, place_once.workspace)

    assert all(one.levels.names == () for one in made.detector.calibrations.values())


def test_tiles_that_were_flagged_teach_no_score_what_is_normal(place: Watched) -> None:
    def learned() -> int:
        found = normal_tiles(place.detector, place.split.train, place.settings, place.workspace)
        return sum(len(tiles.values) for tiles in found)

    assert learned() == len(place.split.train) * TILES
    record = place.split.train[-1]
    files = score_scene(record, place.detector, "v1", place.settings, place.workspace)
    scores = gpd.read_parquet(files.scores)
    write_scores(files.scores, scores.assign(flagged=np.arange(TILES) < 3))
    assert learned() == len(place.split.train) * TILES - 3


def test_normal_tiles_come_with_their_past_where_they_have_one(place_once: Watched) -> None:
    found = normal_tiles(place_once.detector, place_once.records[:5], place_once.settings, place_once.workspace)
    pasts = [tiles.past for tiles in found]
    assert [past is not None for past in pasts] == [False, True, True, True, True]
    assert [past is not None and past.witness is not None for past in pasts] == [False, False, False, True, True]


def test_looking_back_keeps_the_same_bytes_whatever_number_of_scenes_is_looked_at_at_a_time(place: Watched) -> None:
    def kept(workers: int) -> dict[str, bytes]:
        for path in place.workspace.reference.rglob("*.*"):
            path.unlink()
        settings = changed(place.settings, "compute", workers=workers)
        seen: list[tuple[int, int]] = []
        look_back(place.records, settings, place.workspace, lambda done, total: seen.append((done, total)))
        assert seen == [(number + 1, 15) for number in range(15)]
        return {path.name: path.read_bytes() for path in place.workspace.reference.rglob("*.*")}

    one, several = kept(1), kept(4)
    assert one == several
    assert sum(name.endswith("_expected.json") for name in one) == 14


def test_training_again_gives_the_same_detector(place_once: Watched) -> None:
    again = train_detector(place_once.settings, place_once.workspace).detector

    assert again.networks == ()
    assert again.scoring_identity == place_once.detector.scoring_identity


@pytest.mark.parametrize(
    ("bands", "visible", "channels"),
    [
        (("B02", "B03", "B04", "B08"), None, (2, 1, 0)),
        (("B08", "B11", "B12"), None, ()),
        (("B08", "B11", "B12"), ("B12", "B11", "B08"), (2, 1, 0)),
    ],
)
def test_what_can_be_seen_is_found_by_name_or_said(
    bands: tuple[str, ...], visible: tuple[str, ...] | None, channels: tuple[int, ...]
) -> None:
    settings = watch_settings(Path("."), source={"bands": bands}, score={"visible": visible})
    assert visible_channels(settings) == channels


def test_a_visible_band_that_is_not_read_is_named() -> None:
    settings = watch_settings(Path("."), score={"visible": ("B04", "B03", "B01")})
    with pytest.raises(SettingsError, match=r"score\.visible names B01, source\.bands has B02, B03, B04, B08"):
        visible_channels(settings)


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("injections", {"kinds": ("meteor",)}, "unknown kind"),
        ("injections", {"strengths": {"meteor": 0.5}}, "unknown kind"),
        ("score", {"name": "chnage"}, "Did you mean 'change'"),
        ("score", {"name": "reconstruction"}, "needs a network, and model.members is 0"),
        ("score", {"without_past": "difference"}, "is for tiles that have no past"),
    ],
)
def test_what_cannot_be_worked_out_is_refused_before_any_work(
    place_once: Watched, section: str, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        check_request(changed(place_once.settings, section, **values), place_once.split, place_once.workspace)

"""What networks are told of a scene's tiles: the same in training and in scoring, and marked where it is not known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from configs import SettingsError
from configs.schema import ModelSettings, ScoreSettings, TrainSettings
from imagery.catalog import Catalog, SceneRecord
from imagery.sources import SceneFile
from imagery.sun import sun_over
from imagery.tiles import TileBatch, read_tiles
from tasks.calibrate import calibrate_detector, observe_scenes
from tasks.conditions import (
    check_conditions,
    conditions_of,
    open_conditioned,
    place_names,
    season_of,
    sensor_names,
)
from tasks.injected import POOL
from tasks.observe import conditions_for, observe, opened
from tasks.reference import usual_of
from tasks.score import score_scene
from tasks.smoke import injected_into
from tasks.train import check_request, learning_tiles, train_detector
from tests.catalogs import scene_record
from tests.places import SIDE, TILES, Watched
from vae.conditions import UNKNOWN, Conditions
from vae.detector import Detector
from vae.networks import build
from vae.networks.conditions import PLACES

EVERYTHING = ("season", "place", "sun", "sensor", "reference")
NOON = datetime(2020, 6, 1, 10, 21, 31, tzinfo=UTC)


def taken_by(sensor: str, **changes) -> SceneRecord:
    return scene_record(files=(SceneFile("B02", f"/a/{sensor}_MSIL2A_x/B02.jp2"),), **changes)


def batch_of(place: Watched, record: SceneRecord) -> tuple[TileBatch, Conditions]:
    """The tiles of a scene, and all that can be told of them."""
    settings = place.settings.model_copy(update={"model": ModelSettings(condition=EVERYTHING)})
    with open_conditioned(record, settings, place.workspace) as (reader, past):
        (batch,) = read_tiles(reader, settings.grid.tile_size, at_least=TILES, past=past)
        told = conditions_of(record, reader.grid, batch, EVERYTHING, ("elsewhere", "here"), ("S2A",))
    assert told is not None
    return batch, told


@pytest.mark.parametrize(
    ("day", "season"),
    [
        (date(2019, 1, 1), 0.0),
        (date(2020, 1, 1), 0.0),
        (date(2019, 12, 31), 364 / 365),
        (date(2020, 12, 31), 365 / 366),
        (date(2019, 7, 2), 182 / 365),
    ],
)
def test_the_season_is_a_share_of_the_year_that_never_reaches_one(day: date, season: float) -> None:
    assert season_of(day) == pytest.approx(season)
    assert np.float32(season_of(day)) < 1


def test_the_last_day_of_a_year_is_as_near_to_the_first_as_to_the_day_before() -> None:
    before, last, first = (
        np.exp(2j * np.pi * season_of(day)) for day in (date(2020, 12, 30), date(2020, 12, 31), date(2021, 1, 1))
    )
    assert abs(last - first) == pytest.approx(abs(last - before))


def test_places_and_sensors_are_listed_in_order_and_only_where_they_are_told() -> None:
    records = [taken_by("S2B", location="b"), taken_by("S2A", location="a"), scene_record("c"), scene_record("a")]
    assert place_names(records, EVERYTHING) == ("a", "b", "c")
    assert sensor_names(records, EVERYTHING) == ("S2A", "S2B")
    assert place_names(records, ("sensor",)) == sensor_names(records, ("place",)) == ()


def test_of_a_scene_all_that_is_known_is_told(place_once: Watched) -> None:
    record = replace(place_once.records[-1], acquired=NOON, files=taken_by("S2A").files)
    batch, _ = batch_of(place_once, place_once.records[-1])
    grid = Catalog(place_once.workspace).grid("here")
    told = conditions_of(record, grid, batch, EVERYTHING, ("elsewhere", "here"), ("S2A",))
    np.testing.assert_array_equal(told.season, np.full(TILES, season_of(NOON.date()), np.float32))
    np.testing.assert_array_equal(told.place, [1] * TILES)
    np.testing.assert_array_equal(told.sensor, [0] * TILES)
    np.testing.assert_array_equal(told.sun, np.tile(np.float32(sun_over(grid, NOON)), (TILES, 1)))
    assert batch.past is not None
    np.testing.assert_array_equal(told.reference, batch.past.values)
    np.testing.assert_array_equal(told.reference_valid, batch.past.valid)
    assert told.reference_valid.sum() > 0.9 * SIDE**2  # tiles are clipped at the edge of the scene
    told.check(TILES, 4, place_once.settings.grid.tile_size)


def test_what_is_not_known_of_a_scene_is_marked(place_once: Watched) -> None:
    first = place_once.records[0]  # has no past, a date without a time of day, and a file that is named after it
    batch, told = batch_of(place_once, first)
    assert batch.past is None
    assert not told.reference_valid.any()
    assert np.isnan(told.sun).all()
    assert set(told.sensor.tolist()) == {UNKNOWN}
    grid = Catalog(place_once.workspace).grid("here")
    elsewhere = conditions_of(first, grid, batch, ("place",), ("a", "b"), ())
    assert set(elsewhere.place.tolist()) == {UNKNOWN}
    assert elsewhere.season is elsewhere.reference is None
    assert conditions_of(first, grid, batch, (), ("here",), ()) is None


def test_a_scene_that_lies_off_is_moved_onto_its_reference_to_learn_from_it(place: Watched) -> None:
    batch, told = batch_of(place, place.on_night(rows=2, cols=-1))
    known = batch.valid & told.reference_valid
    assert known.sum() > 0.9 * SIDE**2
    away = np.abs(batch.values - told.reference).max(axis=1)[known]
    assert np.median(away) < 0.01  # of fields that lie 0.1 apart
    with open_conditioned(place.on_night(rows=2, cols=-1), place.settings, place.workspace) as (reader, past):
        assert past is None
        (unmoved,) = read_tiles(reader, place.settings.grid.tile_size, at_least=TILES)
    assert not np.array_equal(unmoved.values, batch.values)


# Refused before any work


def test_a_sensor_that_no_file_name_tells_is_refused_as_a_condition(place_once: Watched) -> None:
    settings = place_once.settings.model_copy(update={"model": ModelSettings(condition=("sensor",))})
    with pytest.raises(SettingsError, match=r"names of none of the 7 training scenes tell it .* leave sensor out"):
        check_request(settings, place_once.split, place_once.workspace)
    check_conditions([scene_record(), taken_by("S2A")], ("sensor",), place_once.workspace)


def test_the_sun_of_dates_without_a_time_of_day_is_refused_as_a_condition(place_once: Watched) -> None:
    settings = place_once.settings.model_copy(update={"model": ModelSettings(condition=("sun",))})
    with pytest.raises(SettingsError, match=r"a date without a time of day.*use season"):
        check_request(settings, place_once.split, place_once.workspace)
    timed = replace(place_once.records[0], acquired=NOON)
    check_conditions([*place_once.records, timed], ("sun",), place_once.workspace)


def test_more_places_than_a_network_tells_apart_are_refused(place_once: Watched) -> None:
    records = [scene_record(f"p{number}") for number in range(PLACES + 1)]
    with pytest.raises(SettingsError, match=rf"are of {PLACES + 1}: a network can tell {PLACES} apart"):
        check_conditions(records, ("place",), place_once.workspace)
    check_conditions(records[1:], ("place",), place_once.workspace)


# In scoring


def told_detector(place: Watched, *condition: str) -> Detector:
    """The place's detector with an untrained network that is told something."""
    model = ModelSettings(width=8, depth=2, latent_channels=4, condition=condition)
    detector = replace(place.detector, calibrations={}, profile=None)
    score = detector.score_settings.model_copy(update={"name": "reconstruction", "without_past": "reconstruction"})
    network = build(4, model, 0)
    network.sigma.fill_(0.3)
    return replace(detector, networks=(network,), model=model, score_settings=score, constants={}, places=("here",))


def test_when_a_scene_is_observed_the_networks_are_told_what_its_past_lets_expect(place_once: Watched) -> None:
    detector, record = told_detector(place_once, "season", "place", "reference"), place_once.records[-1]
    usual = usual_of(record, place_once.settings, place_once.workspace)
    with opened(record, detector, usual, place_once.settings, place_once.workspace) as scene:
        (batch, scores), *_ = observe(detector, scene, None)
        told = conditions_for(detector, scene, batch)
    assert told is not None
    np.testing.assert_array_equal(told.reference, batch.past.values)
    assert set(told.place.tolist()) == {0}
    again = detector.score(batch.values, batch.valid, area=batch.area, conditions=told)
    untold = detector.score(batch.values, batch.valid, area=batch.area)
    np.testing.assert_array_equal(scores.score, again.score)
    assert (scores.score != untold.score).all()


def test_a_detector_that_is_told_nothing_is_given_no_conditions(place_once: Watched) -> None:
    record = place_once.records[-1]
    for detector in (place_once.detector, told_detector(place_once)):
        with opened(record, detector, None, place_once.settings, place_once.workspace) as scene:
            batch = next(read_tiles(scene.reader, detector.tile_size))
            assert conditions_for(detector, scene, batch) is None


# From training to a night


@pytest.fixture(scope="module")
def trained(place_once: Watched, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The place, watched by a network that is told season, place and reference; two epochs."""
    place = place_once.copied(tmp_path_factory.mktemp("told"))
    sections = {
        "model": ModelSettings(width=4, depth=2, latent_channels=4, condition=("season", "place", "reference")),
        "train": TrainSettings(epochs=2, batch_size=64, device="cpu"),
        "score": ScoreSettings(name="conditional_expectation", without_past="reconstruction", also=()),
    }
    settings = place.settings.model_copy(update=sections)
    trained = train_detector(settings, place.workspace)
    made = calibrate_detector(trained.detector, trained.split, settings, place.workspace)
    return replace(place, settings=settings, detector=made.detector)


def test_what_is_learned_from_comes_with_what_the_network_is_told(trained: Watched) -> None:
    with learning_tiles(trained.split, trained.settings, trained.workspace) as tiles:
        told, valid = tiles.train.conditions, tiles.train.valid.astype(bool)
        values = tiles.train.physical(np.arange(len(tiles.train)))
        assert told is not None
        assert tiles.validation is not None
        assert set(tiles.validation.conditions.place.tolist()) == {0}
        assert told.sun is told.sensor is None
        assert len(np.unique(told.season)) == len({record.day for record in trained.split.train})
        first = told.season == np.float32(season_of(trained.split.train[0].day))
        known = told.reference_valid.any(axis=(1, 2))
        np.testing.assert_array_equal(known, ~first)  # only the first scene has no past
        both = valid & told.reference_valid
        assert both[known].sum() > 0.8 * valid[known].sum()
        assert np.median(np.abs(values - told.reference).max(axis=1)[both]) < 0.01  # of fields that lie 0.1 apart


def test_a_detector_that_is_told_its_place_scores_a_night_the_same_after_it_was_saved(
    trained: Watched, tmp_path: Path
) -> None:
    detector = trained.detector
    assert detector.places == ("here",)
    assert detector.calibration is not None
    assert detector.calibration.score == "conditional_expectation"
    record = trained.records[-1]
    usual = usual_of(record, trained.settings, trained.workspace)
    detector.save(tmp_path / "saved")
    loaded = Detector.load(tmp_path / "saved")
    one, two = (
        score_scene(record, each, version, trained.settings, trained.workspace, usual)
        for each, version in ((detector, "v1"), (loaded, "v2"))
    )
    assert one.heatmap.read_bytes().replace(b"v1", b"v2") == two.heatmap.read_bytes()
    scores = [gpd.read_parquet(files.scores) for files in (one, two)]
    assert scores[0]["score"].notna().all()
    assert set(scores[0]["kind"]) == {"conditional_expectation"}
    np.testing.assert_array_equal(scores[0]["raw"], scores[1]["raw"])


def test_ground_that_was_turned_is_not_what_the_place_was_expected_to_be(trained: Watched) -> None:
    event = np.zeros((SIDE, SIDE), bool)
    event[32:48, 32:48] = True  # one tile
    night = trained.on_night(event=event)
    usual = usual_of(night, trained.settings, trained.workspace)
    files = score_scene(night, trained.detector, "v3", trained.settings, trained.workspace, usual)
    scores = gpd.read_parquet(files.scores).set_index(["row_off", "col_off"])
    assert scores["score"].idxmax() == (32, 32)
    assert scores.loc[(32, 32), "flagged"]


def test_injected_anomalies_are_judged_with_what_was_told_of_their_tiles(trained: Watched) -> None:
    settings = trained.settings.model_copy(
        update={"injections": trained.settings.injections.model_copy(update={"kinds": ("flood",), "tiles": 10})}
    )
    records = trained.split.calibrate[-2:]
    alarm = injected_into(records, trained.detector, settings, trained.workspace)
    observed, _ = observe_scenes(trained.detector, records, settings, trained.workspace)
    assert alarm.untouched == min(len(observed), POOL * 10)
    assert alarm.false_alarms <= 0.1  # untold, the network expects something else of every tile, and most are flagged

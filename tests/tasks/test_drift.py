"""The verdict on a night: from what earlier nights and training left, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from configs import Settings, Workspace
from configs.schema import DriftSettings
from imagery.catalog import SceneRecord
from tasks.drift import Drift, judge_night
from tasks.nights import NightRecord
from tasks.score import score_files, write_profile
from tests.catalogs import scene_record
from tests.vae.conftest import make_detector
from vae.detector import Detector
from vae.drift_profile import Histograms, Profile, histograms

PLACES = ("delta", "hills")
SETTINGS = Settings(drift=DriftSettings(season_days=183, window=2))
FIRST = date(2024, 6, 1)


def seen(draw: np.random.Generator, tiles: int = 20, shift: float = 0.0) -> Histograms:
    light = draw.normal(0, 0.02)
    x = draw.normal(0, 0.5, (tiles, 3, 4, 4)) + light + np.reshape([0, 0, shift], (3, 1, 1))
    scores = draw.lognormal(-4, 0.5, tiles)
    latent = draw.normal(0, 0.4, (tiles, 4))
    return histograms(("B00", "B01", "B02"), 3.0, x, np.ones((tiles, 4, 4), bool), latent, scores)


@pytest.fixture(scope="module")
def detector() -> Detector:
    draw = np.random.default_rng(0)
    days = [date(2023, 1, 1) + timedelta(days=9 * number) for number in range(40)]
    return replace(
        make_detector(learn=False), profile=Profile({(place, day): seen(draw) for place in PLACES for day in days})
    )


class Nights:
    """Nights five days apart, scored and judged one by one."""

    def __init__(self, detector: Detector, folder: Path) -> None:
        self.detector, self.workspace = detector, Workspace(folder)
        self.draw = np.random.default_rng(1)
        self.scenes: list[SceneRecord] = []
        self.past: list[NightRecord] = []

    def judge(self, tiles: int = 20, places: tuple[str, ...] = PLACES, **shifts: float) -> Drift:
        night = FIRST + timedelta(days=5 * len(self.past))
        for place in places:
            record = scene_record(location=place, acquired=datetime(night.year, night.month, night.day, tzinfo=UTC))
            profile = Profile({(place, night): seen(self.draw, tiles, shifts.get(place, 0.0))})
            write_profile(score_files(self.workspace, "v1", record).profile, profile, record, {})
            self.scenes.append(record)
        found = judge_night(night, self.scenes, self.detector, "v1", self.past, SETTINGS, self.workspace)
        record = NightRecord(night, "v1", "c", {}, (), {}, 9, 9, 0, found.alarmed, found.reasons, found.began)
        self.past.append(record)
        return found


@pytest.fixture
def nights(detector: Detector, tmp_path: Path) -> Nights:
    return Nights(detector, tmp_path)


def test_a_drift_is_declared_when_it_lasts_and_names_band_size_direction_and_place(nights: Nights) -> None:
    calm = [nights.judge() for _ in range(3)]
    first = nights.judge(delta=0.5, hills=1.0)
    second = nights.judge(delta=0.5, hills=1.0)

    assert [(one.alarmed, one.began) for one in calm] == [(False, None)] * 3
    assert (first.alarmed, first.began) == (True, None)
    assert (second.alarmed, second.began) == (True, FIRST + timedelta(days=15))
    (band,) = [reason for reason in second.reasons if reason.startswith("B02 Wasserstein")]
    assert ": B02 higher by 1.5 standard deviations, most at hills (+1.9), median 0." in band
    now, before = (float(word) for word in band.rsplit("median ", 1)[1].split(" instead of "))
    # 0 and 1 of a scale on which -1 is 0.03 and 1 is 0.6, by logarithms
    assert before == pytest.approx(np.sqrt(0.03 * 0.6), rel=0.05)
    assert now == pytest.approx(0.6, rel=0.1)
    assert second.effects["wasserstein_B02"].location == "hills"


def test_nights_without_a_verdict_say_why_and_neither_end_nor_begin_a_drift(nights: Nights) -> None:
    nights.judge(delta=1.0, hills=1.0)
    cloudy = nights.judge(tiles=3)
    again = nights.judge(delta=1.0, hills=1.0)

    assert cloudy.alarmed is None
    assert cloudy.reasons == ("6 tiles have a score, drift.min_tiles asks for 8",)
    assert cloudy.limits == again.limits, "limits are known though the night is not"
    assert again.began == FIRST


def test_places_that_training_never_saw_are_named(nights: Nights) -> None:
    found = nights.judge(places=("harbour", "airport"))
    assert found.reasons == ("training knows none of airport, harbour",)
    assert found.limits


def test_a_detector_that_knows_nothing_of_its_training_gives_no_verdict(nights: Nights) -> None:
    nights.detector = replace(nights.detector, profile=None)
    found = nights.judge()
    assert found.alarmed is None
    assert found.reasons == ("this detector does not hold what its training looked like",)
    assert found.limits == {}

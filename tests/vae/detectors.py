"""Detectors that are calibrated on a few nights, and tiles of which some have a past."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from configs.schema import CalibrationSettings
from tests.vae.conftest import make_detector, make_past, make_tiles
from vae.detector import Detector

SETTINGS = CalibrationSettings(false_alarm_rate=0.05, min_tiles=10, min_dates=1)


def calibrated(*names: str, dates: int = 4, tiles: int = 60, **arguments) -> Detector:
    """Calibrated on some nights, for each score named; for both that tiles are judged by without a name."""
    detector = make_detector(**arguments)
    days = [(date(2024, 5, 1) + timedelta(days=number)).isoformat() for number in range(dates)]
    nights = [make_tiles(tiles, seed=30 + number) for number in range(dates)]
    scored = [
        detector.score(night.values, night.valid, past=make_past(night, number)) for number, night in enumerate(nights)
    ]
    for name in names or (detector.score_settings.name, detector.score_settings.without_past):
        raw = np.concatenate([night.components[name] for night in scored])
        when = np.repeat(days, tiles).tolist()
        places = [f"here-{number}" for number in range(tiles)] * dates
        # Some places usually score more, as other dates tell.
        usual = raw * np.tile(np.linspace(0.5, 2, tiles), dates), when, places
        detector = detector.with_calibration(name, raw, when, when, places, SETTINGS, "held_out", usual)
    return detector


def some_past(count: int, known: list[bool]) -> tuple:
    tiles = make_tiles(count, seed=4, masked=0.1)
    past = make_past(tiles)
    past.valid[~np.array(known)] = False
    return tiles, past

"""Calibration holds for nights like those that it was made on. With a drift it does not, and the drift step says so."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from scipy.stats import binom

from configs.schema import DriftSettings
from tests.vae.calibration.simulated import calibrate, nights
from vae.drift import null_by_dates, verdict, window_statistics
from vae.drift_profile import Profile, histograms

RATE, REPETITIONS = 0.1, 200
DRIFT = 1.2  # of the level of the log scores


def flags(drift: float) -> int:
    """Of fresh nights after as many calibrations, how often a tile drawn from one is flagged."""
    found = 0
    for seed in range(REPETITIONS):
        made = nights(30, tiles=12, seed=seed, level=0.3, within=0.4, shared=0.5)
        tonight = nights(1, tiles=12, seed=10_000 + seed, level=0.3, within=0.4, shared=0.5)
        calibration = calibrate(made, night="off", blocks="date", false_alarm_rate=RATE)
        found += bool(calibration.judge(tonight.scores * np.exp(drift)).flagged[0])
    return found


def profile_of(scores: np.ndarray, first: date, tiles: int) -> Profile:
    """What the drift step keeps of nights with these scores; their bands and latents are all alike."""
    made = Profile()
    for number, some in enumerate(scores.reshape(-1, tiles)):
        draw = np.random.default_rng([number, first.toordinal()])
        x = draw.normal(size=(tiles, 1, 8, 8)).astype(np.float32)
        latent = draw.normal(size=(tiles, 2)).astype(np.float32)
        counts = histograms(("B02",), 3.0, x, np.ones((tiles, 8, 8), bool), latent, some)
        made = made.add("here", first + timedelta(days=5 * number), counts)
    return made


def reasons(drift: float) -> list[str]:
    """What the drift step says of four nights."""
    training = profile_of(nights(30, tiles=36, seed=1, level=0.3, within=0.4).scores, date(2024, 1, 1), 36)
    settings = DriftSettings(season_days=183)
    scores = nights(4, tiles=36, seed=2, level=0.3, within=0.4).scores * np.exp(drift)
    recent = profile_of(scores, date(2025, 1, 1), 36)
    found = window_statistics(recent.pooled(recent.dates), training, date(2025, 1, 16), settings)
    assert found is not None
    return verdict(found, null_by_dates(training, settings), settings)


@pytest.mark.slow
def test_without_a_drift_the_rate_lies_within_the_binomial_interval_and_with_one_it_does_not() -> None:
    low, high = binom.interval(0.99, REPETITIONS, RATE)
    assert low <= flags(drift=0.0) <= high
    assert flags(drift=DRIFT) > high


def test_the_drift_that_breaks_calibration_is_what_the_drift_step_alarms_at() -> None:
    assert reasons(drift=0.0) == []
    assert any("score" in reason for reason in reasons(drift=DRIFT))

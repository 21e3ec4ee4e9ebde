"""What each mode promises, by simulation: new calibration dates each time, and one tile of one new date.

With blocks by date and nothing taken out, the promise is exact for any dependence within dates. With tiles as blocks it
is good up to the luck of the dates, which is great where they are few and not centred. Centring itself is estimated
from the tiles of a scene, on calibration nights as tonight, and costs no more than that.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from tests.vae.calibration.simulated import calibrate, nights

pytestmark = pytest.mark.slow

REPETITIONS = 200
RATE = 0.1
ALIKE = {"level": 0.5, "shared": 0.3, "tiles": 12}
LOW, HIGH = binom.interval(0.99, REPETITIONS, RATE)


def false_alarms(dates: int, drift: float = 0.0, seed: int = 0, nights_are=ALIKE, **mode) -> int:
    """How often a tile of a new date is flagged, of REPETITIONS."""
    flags = 0
    for number in range(REPETITIONS):
        made = nights(dates, seed=seed + 2 * number, **nights_are)
        calibration = calibrate(made, false_alarm_rate=RATE, **mode)
        scene = nights(1, seed=seed + 2 * number + 1, **nights_are).scores * np.exp(drift)
        flags += bool(calibration.judge(scene).flagged[number % len(scene)])
    return flags


@pytest.mark.parametrize("night", ["off", "centred", "standardised"])
@pytest.mark.parametrize(("blocks", "dates"), [("date", 40), ("tile", 40)])
def test_on_exchangeable_dates_the_false_alarm_rate_is_the_nominal_one(night, blocks, dates):
    assert LOW <= false_alarms(dates, night=night, blocks=blocks) <= HIGH


def test_with_a_tail_it_is_the_nominal_one_too():
    assert LOW <= false_alarms(40, night="centred", tail="pareto") <= HIGH


def test_with_few_dates_tiles_of_uncentred_nights_are_no_promise_but_dates_are():
    wild = ALIKE | {"level": 2.0}
    # Few dates, and all of a night's tiles alike: the flags of 9 dates' tiles depend on the luck of 9 levels.
    assert false_alarms(9, night="off", blocks="date", nights_are=wild) <= HIGH
    assert false_alarms(4, night="off", blocks="tile", nights_are=wild) > HIGH


def test_nights_that_differ_in_spread_stay_at_the_rate_with_blocks_by_date():
    wild = ALIKE | {"spreads": 0.7}
    for night in ("centred", "standardised"):
        assert false_alarms(30, night=night, blocks="date", nights_are=wild) <= HIGH


def test_p_values_are_uniform_on_exchangeable_dates():
    p_values = []
    for number in range(REPETITIONS):
        made = calibrate(nights(30, seed=2 * number, **ALIKE), false_alarm_rate=RATE, night="centred")
        p_values.extend(made.judge(nights(1, seed=2 * number + 1, **ALIKE).scores).p_value)
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(p_values) == pytest.approx(0.5, abs=0.03)
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.03)


@pytest.mark.parametrize("blocks", ["tile", "date"])
def test_a_drift_breaks_it_where_nights_are_not_centred(blocks):
    assert false_alarms(30, drift=0.8, night="off", blocks=blocks) > HIGH


def test_a_drift_of_all_tiles_is_taken_out_by_centring_and_told_by_the_scene_alarm():
    assert LOW <= false_alarms(40, drift=3.0, night="centred") <= HIGH
    calibration = calibrate(nights(60, **ALIKE))
    alarms = [calibration.judge(nights(1, seed=n, **ALIKE).scores * np.exp(3)).night.alarm for n in range(1, 51)]
    assert np.mean([alarm is not None for alarm in alarms]) > 0.9


def test_a_drift_of_the_spread_breaks_centring():
    calm, rough = ALIKE | {"within": 0.4}, ALIKE | {"within": 0.8}
    flags = 0
    for number in range(REPETITIONS):
        made = calibrate(nights(30, seed=2 * number, **calm), false_alarm_rate=RATE, night="centred")
        flags += bool(made.judge(nights(1, seed=2 * number + 1, **rough).scores).flagged[0])
    assert flags > HIGH


@pytest.mark.parametrize("dates", [10, 30])
def test_scenes_alarm_at_their_own_rate(dates):
    alarms = 0
    for number in range(REPETITIONS):
        made = calibrate(nights(dates, seed=2 * number), scene_rate=0.1, false_alarm_rate=0.01)
        alarms += "all of the scene" in str(made.judge(nights(1, seed=2 * number + 1).scores).night.alarm)
    assert alarms <= HIGH + 10
    assert alarms >= LOW - 5

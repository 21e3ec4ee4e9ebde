from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import CalibrationSettings
from vae.calibration import Calibration, fewest_tiles, fit_calibration
from vae.errors import CalibrationError

HERE = {"backend": "torch-eager", "device": "cpu", "dtype": "float32", "torch": "2.13"}


def calibrate(scores, rate=0.05, min_tiles=10, **arguments) -> Calibration:
    return fit_calibration(
        np.asarray(scores),
        [date(2024, 5, 2), "2024-05-01", "2024-05-02"],
        CalibrationSettings(false_alarm_rate=rate, min_tiles=min_tiles),
        score="reconstruction",
        pool="p90",
        basis="held_out",
        runtime=HERE,
        **arguments,
    )


def test_p_values_by_hand():
    made = calibrate(range(10), 0.2)
    np.testing.assert_allclose(made.p_values(np.array([-1, 0, 8.5, 9, 10])), np.array([11, 11, 2, 2, 1]) / 11)
    assert made.dates == ("2024-05-01", "2024-05-02")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), rate=st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.29, 1 / 3, 0.5, 0.9]))
def test_a_tile_is_flagged_when_its_score_passes_the_threshold_and_when_its_p_value_is_small(data, rate):
    # Few different values: ties everywhere.
    values = st.integers(0, 12).map(float) | st.floats(-1e6, 1e6)
    size = max(10, fewest_tiles(rate))
    scores = data.draw(st.lists(values, min_size=size, max_size=size + 60))
    made = calibrate(scores, rate)
    tonight = np.array([*data.draw(st.lists(values, min_size=1, max_size=30)), *scores, made.threshold, np.nan])
    flagged, p_values = made.flagged(tonight), made.p_values(tonight)
    np.testing.assert_array_equal(flagged, tonight > made.threshold)
    np.testing.assert_array_equal(flagged, p_values <= rate)
    at_least = [1 + sum(score >= one for score in scores) for one in tonight[:-1]]
    np.testing.assert_array_equal(p_values[:-1], np.array(at_least) / (len(scores) + 1))
    assert math.isnan(p_values[-1])
    assert not flagged[-1]


@pytest.mark.parametrize(("tiles", "rate"), [(99, 0.01), (150, 0.05), (400, 0.1)])
def test_normal_tiles_are_flagged_at_the_rate_that_was_chosen(tiles, rate):
    draw = np.random.default_rng(tiles)
    shares = [calibrate(draw.lognormal(size=tiles), rate).flagged(draw.lognormal(size=2000)).mean() for _ in range(400)]
    exact = math.floor(rate * (tiles + 1) + 1e-9) / (tiles + 1)
    error = np.std(shares) / math.sqrt(len(shares))
    assert abs(np.mean(shares) - exact) < 4 * error
    assert exact <= rate


def test_p_values_of_normal_tiles_are_uniform():
    draw = np.random.default_rng(0)
    p_values = np.concatenate([calibrate(draw.normal(size=199)).p_values(draw.normal(size=20)) for _ in range(500)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=0.02)


def test_thinned_scores_keep_the_extremes_the_threshold_and_validity():
    scores = np.random.default_rng(0).lognormal(size=5000)
    whole = calibrate(scores, 0.5)
    thinned = calibrate(scores, 0.5, most_stored=400)
    assert len(thinned.scores) <= 401
    assert thinned.tiles == 5000
    assert thinned.threshold == whole.threshold
    tonight = np.random.default_rng(1).lognormal(size=3000)
    np.testing.assert_array_equal(thinned.flagged(tonight), whole.flagged(tonight))
    exact, given_p = whole.p_values(tonight), thinned.p_values(tonight)
    assert (given_p >= exact).all()
    assert (given_p - exact).max() < 0.01
    highest = exact < 0.03
    np.testing.assert_array_equal(given_p[highest], exact[highest])
    np.testing.assert_array_equal(thinned.p_values(np.array([-1.0, 1e9])), whole.p_values(np.array([-1.0, 1e9])))


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        (np.ones(9), 0.5, "9 tiles have a score, calibration.min_tiles asks for 10"),
        ([*np.ones(9), np.nan, np.nan], 0.5, "9 tiles have a score"),
        (np.ones(98), 0.01, "cannot be reached with 98 calibration tiles, 99 are needed"),
        ([*np.ones(50), np.inf], 0.1, "1 of 51 calibration scores are infinite"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_words(scores, rate, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(scores, rate)


@settings(max_examples=100)
@given(st.floats(1e-4, 0.99))
def test_fewest_tiles_is_the_smallest_number_that_can_reach_the_rate(rate):
    needed = fewest_tiles(rate)
    assert 1 / (needed + 1) <= rate
    assert needed == 1 or 1 / needed > rate


def test_the_id_follows_the_content():
    scores = np.arange(100.0)
    assert calibrate(scores).calibration_id == calibrate(scores[::-1]).calibration_id
    others = [calibrate(scores, 0.1), calibrate(scores + 1e-9)]
    assert len({made.calibration_id for made in [calibrate(scores), *others]}) == 3
    made = calibrate(scores)
    assert Calibration.from_dict(made.to_dict(), made.scores, made.ranks).calibration_id == made.calibration_id

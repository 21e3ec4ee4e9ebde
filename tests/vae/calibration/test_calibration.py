from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vae.calibration.simulated import HERE, calibrate, levels_of, nights
from vae.calibration import Calibration, judge_in_scene
from vae.errors import CalibrationError

PLACES = [f"p{number}" for number in range(25)]
MODES = ["off", "centred", "standardised"]
LEVELS = levels_of(nights(20, seed=1, place=0.5))
MADE = {mode: calibrate(nights(40, seed=2, place=0.5), levels=LEVELS, night=mode) for mode in MODES}


def tonight(seed: int, tiles: int = 25) -> np.ndarray:
    return nights(1, tiles, seed, place=0.5).scores


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.sampled_from(["centred", "standardised"]))
def test_scaling_a_whole_night_changes_its_level_and_nothing_else(seed, factor, mode):
    # No shrinkage, which would take a night that is unlike all others for a chance in part.
    made = calibrate(nights(40, seed=2, place=0.5, level=50.0), levels=LEVELS, night=mode)
    one, other = (made.judge(tonight(seed) * times, PLACES) for times in (1, factor))
    np.testing.assert_allclose(np.log(one.score), np.log(other.score), atol=0.05)
    assert np.log(other.night.level / one.night.level) == pytest.approx(np.log(factor), abs=0.05)
    assert one.night.spread == pytest.approx(other.night.spread)


def test_without_centring_a_night_is_judged_as_it_is():
    one, other = (MADE["off"].judge(tonight(3) * times, PLACES) for times in (1, 3))
    np.testing.assert_allclose(other.score, 3 * one.score)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(MODES), st.sampled_from([None, 0.2]))
def test_the_order_of_tiles_does_not_matter_and_a_higher_raw_score_is_never_less_likely_flagged(seed, mode, fdr):
    made = calibrate(nights(40, seed=2), night=mode, fdr=fdr)
    scores, order = tonight(seed), np.random.default_rng(seed).permutation(25)
    one, other = made.judge(scores), made.judge(scores[order])
    np.testing.assert_array_equal(one.p_value[order], other.p_value)
    np.testing.assert_array_equal(one.flagged[order], other.flagged)
    rank = np.argsort(scores)
    assert (np.diff(one.score[rank]) >= 0).all()
    assert (np.diff(one.p_value[rank]) <= 0).all()
    assert one.night == other.night


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(MODES),
    st.sampled_from([None, 0.05, 0.5]),
    st.sampled_from(["empirical", "pareto"]),
    st.floats(0, 3),
)
def test_a_tile_is_flagged_when_its_score_passes_the_threshold(seed, mode, fdr, tail, event):
    made = calibrate(nights(40, seed=2), night=mode, fdr=fdr, tail=tail)
    scores = tonight(seed)
    scores[:3] *= np.exp(event)
    scores[5] = np.nan
    judged = made.judge(scores)
    np.testing.assert_array_equal(judged.flagged, judged.score > judged.threshold)
    assert np.isfinite(judged.threshold)
    assert np.isnan([judged.score[5], judged.p_value[5]]).all()
    if fdr is None:
        np.testing.assert_array_equal(judged.flagged, judged.p_value <= 0.05)
        assert judged.threshold == made.threshold
    assert judged.night.flagged_share == judged.flagged.sum() / 24


def test_the_threshold_lies_below_all_tiles_when_all_are_flagged():
    judged = calibrate(nights(40, seed=2), night="off", fdr=0.1).judge(tonight(1) * 1000)
    assert judged.flagged.all()
    assert judged.threshold < judged.score.min()


def test_a_score_is_a_multiple_of_what_is_usual_at_its_place():
    levels = levels_of(nights(40, seed=1, place=0.5, within=1e-4, level=0), prior=0)
    made = calibrate(nights(40, seed=2, place=0.5), levels=levels, night="off")
    usual = np.exp(levels.of(PLACES, 25))
    np.testing.assert_allclose(made.judge(3 * usual, PLACES).score, 3)
    np.testing.assert_allclose(made.judge(usual, PLACES).night.level, 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_heatmap_is_brought_to_the_scale_of_its_tile(mode):
    made = calibrate(nights(40, seed=2, spreads=0.5, least=-2.0), night=mode, least=-2.0)
    scores = nights(1, seed=7, least=-2.0).scores
    judged = made.judge(scores)
    heat = np.full((4, 4), scores[3], dtype=np.float32)
    heat[0, 0] = np.nan
    scaled = judged.relative(heat, 3)
    assert scaled.dtype == np.float32
    assert np.isnan(scaled[0, 0])
    np.testing.assert_allclose(scaled[1:], judged.score[3], rtol=1e-5)


def test_calibration_nights_are_judged_as_tonight_is():
    made, again = calibrate(nights(40, seed=2), night="standardised", false_alarm_rate=0.1), nights(40, seed=2)
    flags = [made.judge(again.scores[start : start + 25]).flagged for start in range(0, 1000, 25)]
    assert np.mean(flags) == pytest.approx(0.1, abs=0.002)


def test_an_event_in_a_few_tiles_is_flagged_whatever_the_night():
    scores = tonight(11) * 6
    scores[4] *= 12
    for mode in ("centred", "standardised"):
        assert MADE[mode].judge(scores, PLACES).flagged[4]


def test_an_event_that_covers_the_scene_is_hidden_in_its_tiles_and_told_by_the_alarm():
    judged = MADE["centred"].judge(tonight(12) * 12, PLACES)
    assert judged.flagged.mean() < 0.2
    assert judged.night.p_value == pytest.approx(1 / 41)
    assert "all of the scene scores" in str(judged.night.alarm)
    assert MADE["centred"].judge(tonight(12), PLACES).night.alarm is None


def test_many_flags_are_an_alarm_of_the_scene():
    scores = nights(1, seed=13, within=0.1).scores
    scores[:9] *= 20
    judged = calibrate(nights(40, seed=2)).judge(scores)
    assert judged.flagged.sum() == 9
    assert "9 of 25 tiles are flagged" in str(judged.night.alarm)


def test_a_spread_that_is_taken_out_is_judged_too():
    scores = np.exp(np.linspace(-4, 4, 25))
    assert "differ" in str(calibrate(nights(40, seed=2), night="standardised").judge(scores).night.alarm)


def test_a_scene_with_few_tiles_is_centred_less_and_one_without_is_not_judged():
    made = calibrate(nights(40, seed=2), night="centred")
    one = made.judge(np.array([5.0, np.nan]))
    assert 1 < one.score[0] < 5
    assert "only 1 of its tiles" in str(one.night.note)
    assert made.judge(tonight(1)).night.note is None
    nothing = made.judge(np.array([np.nan, np.nan]))
    assert not nothing.flagged.any()
    assert np.isnan(nothing.night.level)
    assert nothing.night.alarm is None
    assert made.judge(np.empty(0)).night.flagged_share == 0


def test_infinite_scores_of_tonight_are_flagged():
    scores = tonight(5)
    scores[2] = np.inf
    for tail in ("empirical", "pareto"):
        judged = calibrate(nights(40, seed=2), tail=tail).judge(scores)
        assert judged.flagged[2]
        assert judged.p_value[2] > 0


def test_a_rate_below_one_in_the_number_of_tiles_is_reached_by_the_tail():
    made = calibrate(nights(40, seed=2, level=0), false_alarm_rate=1e-4, tail="pareto", night="off")
    judged = made.judge(nights(4000, seed=3, level=0).scores)
    assert 0 < judged.flagged.mean() < 4e-4
    assert 0 < judged.p_value.min() < 1 / 1001


@pytest.mark.parametrize("blocks", ["tile", "date"])
@pytest.mark.parametrize("tail", ["empirical", "pareto"])
def test_a_calibration_survives_json_and_arrays(blocks, tail):
    made = calibrate(nights(40, seed=2), levels=LEVELS, blocks=blocks, tail=tail, night="standardised")
    again = Calibration.from_dict(json.loads(json.dumps(made.to_dict())), made.arrays())
    assert {str(array.dtype) for array in made.arrays().values()} == {"float64", "int64"}
    assert again.calibration_id == made.calibration_id
    one, other = (calibration.judge(tonight(1), PLACES) for calibration in (made, again))
    assert one.p_value.tobytes() == other.p_value.tobytes()
    assert one.night == other.night


def test_the_id_follows_the_content_and_not_the_order():
    made = nights(40, seed=2)
    order = np.random.default_rng(0).permutation(1000)
    mixed = type(made)(made.scores[order], [made.dates[r] for r in order], [made.places[r] for r in order])
    assert calibrate(made, levels=LEVELS).calibration_id == calibrate(mixed, levels=LEVELS).calibration_id
    others = [calibrate(made), calibrate(made, levels=LEVELS, scene_rate=0.1), calibrate(nights(40, seed=4))]
    assert len({one.calibration_id for one in [calibrate(made, levels=LEVELS), *others]}) == 4


def test_stored_scores_are_thinned_and_thresholds_are_not_moved():
    whole, thinned = (calibrate(nights(200, seed=2), most_stored=most) for most in (10_000, 400))
    assert len(thinned.arrays()["scores"]) <= 401
    assert thinned.tiles == 5000
    np.testing.assert_array_equal(thinned.judge(tonight(1)).flagged, whole.judge(tonight(1)).flagged)


def test_what_it_was_made_on_is_kept():
    made = calibrate(nights(3, seed=2))
    assert made.dates == ("2020-01-01", "2020-01-02", "2020-01-03")
    assert (made.tiles, made.basis, made.bands, made.detector) == (75, "held_out", ("B04", "B08"), "abc")
    made.check(bands=["B04", "B08"], detector="abc", runtime=dict(HERE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": ["B08", "B04"]}, "of bands B04, B08, the scores are of B08, B04"),
        ({"detector": "xyz"}, "of detector abc, the scores are of xyz"),
        ({"runtime": {**HERE, "device": "cuda"}}, r"another runtime \(device cpu → cuda\)"),
    ],
)
def test_what_it_was_not_made_for_is_refused_in_words(change, message):
    fitting = {"bands": ["B04", "B08"], "detector": "abc", "runtime": HERE}
    with pytest.raises(CalibrationError, match=message):
        calibrate(nights(3)).check(**fitting | change)


@pytest.mark.parametrize(
    ("dates", "changed", "message"),
    [
        (3, {"min_tiles": 100}, "75 tiles have a score, calibration.min_tiles asks for 100"),
        (3, {"min_dates": 4}, "scores are of 3 dates, calibration.min_dates asks for 4"),
        (3, {"false_alarm_rate": 0.01}, "cannot be reached with 75 calibration tiles, 99 are needed"),
        (18, {"blocks": "date"}, "cannot be reached with 18 calibration dates, 19 are needed"),
        (18, {"blocks": "date", "tail": "pareto"}, "18 calibration dates, 19 are needed"),
        (3, {"tail": "pareto"}, "needs 200 calibration tiles, there are 75"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_words(dates, changed, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(nights(dates), **changed)


def test_infinite_calibration_scores_are_refused():
    made = nights(3)
    made.scores[4] = np.inf
    with pytest.raises(CalibrationError, match="1 of 75 calibration scores are infinite"):
        calibrate(made)


def test_without_history_a_scene_is_judged_by_itself_and_marked_as_uncalibrated():
    draw = np.random.default_rng(0)
    rates = [judge_in_scene(-3 + draw.lognormal(2, 0.5, 100), least=-3.0, rate=0.05).flagged for _ in range(200)]
    assert 0.04 < np.mean(rates) < 0.07
    scores = draw.lognormal(2, 0.5, 30)
    scores[[4, 7]] = 200, np.nan
    judged = judge_in_scene(scores, least=0.0, rate=0.01)
    assert judged.basis == "in_scene"
    assert judged.flagged[4]
    assert np.isnan(judged.p_value[7])
    np.testing.assert_array_equal(judged.flagged, judged.score > judged.threshold)
    np.testing.assert_array_equal(judged.flagged, judged.p_value <= 0.01)
    np.testing.assert_allclose(np.nanmedian(judged.score), 1, rtol=0.05)
    assert judged.relative(np.array([scores[4]]), 4)[0] == judged.score[4]
    assert judged.night.alarm is None
    assert "not calibrated" in str(judged.night.note)


def test_too_few_tiles_to_judge_a_scene_by_itself_are_not_judged_and_this_is_said():
    judged = judge_in_scene(np.array([1.0, 2, 900, np.nan]), least=0.0, rate=0.05)
    assert not judged.flagged.any()
    assert np.isnan(judged.p_value).all()
    assert "3 tiles have a score, 8 are needed" in str(judged.night.note)
    assert judged.night.alarm is None
    assert np.isnan(judge_in_scene(np.array([np.nan]), least=0.0, rate=0.05).night.level)
    with pytest.raises(CalibrationError, match="1 scores are infinite"):
        judge_in_scene(np.array([1.0, np.inf]), least=0.0, rate=0.05)

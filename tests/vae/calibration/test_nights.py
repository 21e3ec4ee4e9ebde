from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae.calibration.nights import NightModel, fit_nights
from vae.calibration.scene_alarm import alarm_in_words, beyond


def drawn(nights: int, tiles: int, level: float, spreads: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [
        level * draw.normal() + 0.3 * np.exp(spreads * draw.normal()) * draw.normal(size=tiles) for _ in range(nights)
    ]


def test_the_prior_of_levels_is_the_number_of_tiles_at_which_error_and_difference_balance():
    model = fit_nights(drawn(400, 40, level=0.3), "centred")
    assert model.usual_spread == pytest.approx(0.3, rel=0.05)
    assert model.level_prior == pytest.approx(np.pi / 2, rel=0.3)  # equal variances, but for that of a median


def test_nights_that_do_not_differ_are_hardly_centred():
    model = fit_nights(drawn(400, 25, level=0.0), "centred")
    assert model.level_prior == 20
    assert model.spread_prior == 20


def test_nights_that_differ_in_spread_are_told_from_those_that_seem_to():
    assert fit_nights(drawn(300, 25, 0.3, spreads=0.6), "standardised").spread_prior < 8
    assert fit_nights(drawn(300, 25, 0.3), "standardised").spread_prior == 20


@given(st.integers(1, 200), st.floats(0.1, 20))
def test_the_fewer_tiles_the_closer_to_the_usual_level(count, prior):
    model = NightModel("centred", prior, 100.0, prior)
    assert model.level(np.full(count, -1.0)) == pytest.approx(-count / (count + prior))
    assert model.level(np.empty(0)) == 0
    assert model.spread(np.ones(1)) == 100


@given(st.integers(1, 200), st.floats(0.1, 20))
def test_a_level_far_off_is_believed(count, prior):
    error = 0.3 * np.sqrt(np.pi / 2 / count)
    assert NightModel("centred", prior, 0.3, prior).level(np.full(count, 50.0)) == pytest.approx(
        50 - error / 2, rel=1e-4
    )


def test_what_is_taken_out_follows_the_mode():
    models = [NightModel(mode, 1.0, 0.3, 1.0) for mode in ("off", "centred", "standardised")]
    assert [model.taken_out(0.7, 0.6) for model in models] == [(0, 1), (0.7, 1), (0.7, 0.5)]


def test_scenes_whose_tiles_all_score_the_same_do_not_break_it():
    model = fit_nights([np.zeros(5), np.zeros(1)], "standardised")
    assert model.usual_spread > 0
    assert np.isfinite(model.spread(np.zeros(5)))


def test_a_level_is_judged_by_conformal_p_value_where_scenes_suffice_and_by_a_robust_limit_elsewhere():
    many, few = np.arange(39.0), np.array([-0.1, 0.0, 0.1])
    assert beyond(38.5, many, 0.05) == (1 / 40, True)
    assert beyond(36.5, many, 0.05) == (3 / 40, False)
    assert beyond(0.2, few, 0.05) == (1 / 4, False)
    assert beyond(5.0, few, 0.05) == (1 / 4, True)
    assert beyond(5.0, few[:1], 0.05) == (1 / 2, False)


def test_the_limit_of_few_scenes_holds_its_rate_for_normal_levels():
    draw = np.random.default_rng(0)
    alarms = [beyond(draw.normal(), draw.normal(size=10), 0.05)[1] for _ in range(2000)]
    assert 0.03 < np.mean(alarms) < 0.09


def test_the_alarm_says_why():
    fine = (1.0, 0.5, False)
    assert alarm_in_words(fine, fine, 1, 25, 0.01) is None
    assert "3 of 25 tiles are flagged, more than 5 times" in str(alarm_in_words(fine, fine, 3, 25, 0.01))
    assert alarm_in_words(fine, fine, 1, 2, 0.01) is None  # one flag is one of a tile
    both = alarm_in_words((3.0, 0.02, True), (2.0, 0.03, True), 0, 25, 0.01)
    assert both is not None
    assert "scores 3 times the usual (p = 0.02" in both
    assert "differ 2 times as much" in both

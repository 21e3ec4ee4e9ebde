from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.calibration.null import fewest, fit_null, flagged_by_fdr
from vae.calibration.tail import ParetoTail, excesses_for, fit_tail
from vae.errors import CalibrationError


def test_p_values_by_hand():
    null = fit_null(np.arange(10.0), None, 0.2, 100)
    np.testing.assert_allclose(null.p_values(np.array([-1, 0, 8.5, 9, 10])), np.array([11, 11, 2, 2, 1]) / 11)
    assert null.threshold(0.2) == 8
    assert null.threshold(0.01) == math.inf
    assert null.median == pytest.approx(4.5, abs=0.5)


def test_with_blocks_each_date_weighs_the_same_and_one_lies_at_infinity():
    scores, dates = np.array([1.0, 2, 3, 4, 9]), np.array([0, 0, 0, 0, 1])
    null = fit_null(scores, dates, 0.5, 100)
    np.testing.assert_allclose(null.p_values(np.array([0, 3, 5, 10])), np.array([3, 2.5, 2, 1]) / 3)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), rate=st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.29, 1 / 3, 0.5, 0.9]), by_date=st.booleans())
def test_a_score_passes_the_threshold_when_its_p_value_is_small(data, rate, by_date):
    values = st.integers(0, 12).map(float) | st.floats(-1e6, 1e6)  # few different ones: ties everywhere
    size = max(10, fewest(rate))
    scores = np.array(data.draw(st.lists(values, min_size=size, max_size=size + 60)))
    dates = np.arange(len(scores)) * 7 % max(len(scores) // 2, 1) if by_date else None
    null = fit_null(scores, dates, rate, 10_000)
    tonight = np.array([*data.draw(st.lists(values, min_size=1, max_size=30)), *scores, np.nan])
    p_values = null.p_values(tonight)
    np.testing.assert_array_equal(p_values <= rate, tonight > null.threshold(rate))
    assert math.isnan(p_values[-1])
    weights = np.ones(len(scores)) if dates is None else 1 / np.bincount(dates)[dates]
    total = len(scores) if dates is None else len(np.unique(dates))
    by_hand = [(1 + weights[scores >= one].sum()) / (1 + total) for one in tonight[:-1]]
    np.testing.assert_allclose(p_values[:-1], by_hand, rtol=1e-12)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.booleans())
def test_the_order_of_calibration_scores_does_not_matter(seed, by_date):
    draw = np.random.default_rng(seed)
    scores, dates = draw.integers(0, 20, 60).astype(float), draw.integers(0, 9, 60)
    order = draw.permutation(60)
    one = fit_null(scores, dates if by_date else None, 0.2, 100)
    other = fit_null(scores[order], dates[order] if by_date else None, 0.2, 100)
    assert one.above.tobytes() == other.above.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()


def test_thinned_scores_keep_the_extremes_the_threshold_and_validity():
    scores = np.random.default_rng(0).lognormal(size=5000)
    whole, thinned = fit_null(scores, None, 0.5, 10_000), fit_null(scores, None, 0.5, 400)
    assert len(thinned.scores) <= 401
    assert thinned.threshold(0.5) == whole.threshold(0.5)
    exact, given_p = (null.p_values(np.random.default_rng(1).lognormal(size=3000)) for null in (whole, thinned))
    assert (given_p >= exact).all()
    assert (given_p - exact).max() < 0.01
    highest = exact < 0.03
    np.testing.assert_array_equal(given_p[highest], exact[highest])


@settings(max_examples=100)
@given(st.floats(1e-4, 0.99))
def test_fewest_is_the_smallest_number_that_can_reach_the_rate(rate):
    needed = fewest(rate)
    assert 1 / (needed + 1) <= rate
    assert needed == 1 or 1 / needed > rate


def test_benjamini_hochberg_by_hand():
    p_values = np.array([0.6, 0.01, np.nan, 0.03, 0.02, 0.9])  # limits at 5 %: .01 .02 .03 .04 .05
    np.testing.assert_array_equal(flagged_by_fdr(p_values, 0.05), [False, True, False, True, True, False])
    assert not flagged_by_fdr(p_values, 0.001).any()
    assert not flagged_by_fdr(np.full(3, np.nan), 0.5).any()


def test_benjamini_hochberg_keeps_the_share_of_false_flags():
    draw, shares = np.random.default_rng(0), []
    for _ in range(400):
        null = fit_null(draw.normal(size=999), None, 0.01, 10_000)
        flagged = flagged_by_fdr(null.p_values(np.concatenate([draw.normal(size=90), draw.normal(4, 1, 10)])), 0.2)
        shares.append(flagged[:90].sum() / max(flagged.sum(), 1))
    assert 0.12 < np.mean(shares) < 0.22


def pareto(shape: float, size: int, seed: int = 0) -> np.ndarray:
    """Scores beyond 2 whose logarithm has generalised Pareto excesses of scale 0.3."""
    uniform = np.random.default_rng(seed).uniform(size=size)
    return 2 * np.exp(0.3 * ((uniform**-shape - 1) / shape if shape else -np.log(uniform)))


@pytest.mark.parametrize("shape", [0.0, 0.1, 0.3])
def test_the_tail_finds_the_parameters_it_was_drawn_with(shape):
    found = [fit_tail(pareto(shape, 2000, seed), 2.0, 0.1) for seed in range(20)]
    assert np.mean([tail.shape for tail in found]) == pytest.approx(shape, abs=0.03)
    assert np.mean([tail.scale for tail in found]) == pytest.approx(0.3, rel=0.05)


def test_a_tail_that_would_end_is_taken_for_an_exponential_one():
    ending = 2 * np.exp(np.random.default_rng(0).uniform(size=500))
    tail = fit_tail(ending, 2.0, 0.1)
    assert tail.shape == 0
    assert tail.p_values(np.array([1e300, np.inf])).min() > 0


@settings(max_examples=100)
@given(st.floats(0, 0.9), st.floats(1e-3, 2), st.floats(1e-12, 0.099))
def test_a_tail_is_continuous_monotone_never_zero_and_can_be_inverted(shape, scale, rate):
    tail = ParetoTail(2.0, 0.1, shape, scale)
    scores = np.array([2.0, *np.geomspace(2, 1e12, 50), 1e300])
    p_values = tail.p_values(scores)
    assert p_values[0] == 0.1
    assert (np.diff(p_values) <= 0).all()
    assert p_values.min() > 0
    if tail.score_of(rate) < 1e200:
        assert tail.p_values(np.array([tail.score_of(rate)]))[0] == pytest.approx(rate, rel=1e-6)


def test_a_tail_of_equal_scores_is_no_error():
    assert fit_tail(np.full(60, 2.0), 2.0, 0.1).p_values(np.array([2.0, 3.0])).tolist() == [0.1, 1e-300]


def test_a_tail_needs_tiles():
    with pytest.raises(CalibrationError, match="needs 200 calibration tiles, there are 199"):
        excesses_for(199, 0.01)
    assert excesses_for(1000, 0.01) == 50
    assert excesses_for(100_000, 0.01) == 1000

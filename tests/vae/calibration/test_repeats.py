"""Where false alarms were raised, a score must pass a higher bar: by how much, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae.calibration.null import Null, fit_null
from vae.calibration.repeats import age_weights, raised_bar, reviewed_p_values

RATE = 0.01
NULL: Null = fit_null(np.exp(np.random.default_rng(0).normal(size=5000)), None, RATE, 100_000)
THRESHOLD = NULL.threshold(RATE)

scores = st.floats(0.1, 200)
alarms = st.lists(scores, min_size=1, max_size=8)
weights = st.floats(0.01, 1)
repeats = st.integers(1, 5)


def bar(of: list[float], counts: list[float] | None = None, r: int = 2) -> float:
    return raised_bar(np.array(of), np.ones(len(of)) if counts is None else np.array(counts), r, RATE, NULL.threshold)


def reviewed(score: float, of: list[float], counts: list[float] | None = None, r: int = 2) -> float:
    weight = np.ones(len(of)) if counts is None else np.array(counts)
    given_score = np.array([score])
    return float(reviewed_p_values(NULL.p_values(given_score), given_score, np.array(of), weight, r, RATE)[0])


def p_value(score: float) -> float:
    return float(NULL.p_values(np.array([score]))[0])


@pytest.mark.parametrize("r", [1, 2, 3])
def test_as_many_false_alarms_as_asked_for_stop_a_score_that_is_no_higher(r: int) -> None:
    theirs = [50.0 + number for number in range(r)]

    assert bar(theirs, r=r) == 50.0
    assert reviewed(50.0, theirs, r=r) > RATE
    assert reviewed(50.1, theirs, r=r) <= RATE


def test_one_too_few_stop_only_what_passes_the_threshold_by_little() -> None:
    half = NULL.threshold(RATE / 2)

    assert bar([50.0], r=2) == half
    assert THRESHOLD < half < 50


def test_a_score_that_is_higher_than_all_of_them_is_judged_as_ever() -> None:
    theirs = [THRESHOLD + 2] * 50

    assert bar(theirs) == THRESHOLD + 2
    assert reviewed(THRESHOLD + 3, theirs) == p_value(THRESHOLD + 3) <= RATE


def test_without_a_false_alarm_the_bar_is_the_threshold() -> None:
    assert raised_bar(np.array([]), np.array([]), 2, RATE, NULL.threshold) == THRESHOLD
    assert reviewed(12.0, []) == p_value(12.0)


def test_a_false_alarm_below_the_threshold_changes_nothing() -> None:
    assert bar([THRESHOLD / 2] * 9) == THRESHOLD


def test_many_false_alarms_take_no_more_of_them_to_stop_a_score() -> None:
    low, high = [THRESHOLD + 1] * 100, [60.0, 61.0]

    assert bar(low + high) == 60.0
    assert reviewed(59.0, low + high) > RATE


def test_two_that_count_half_are_one() -> None:
    assert bar([50.0, 50.0], [0.5, 0.5]) == bar([50.0])
    np.testing.assert_allclose(age_weights(np.array([0, 29, 30, 60, 95]), 30), [1, 1, 0.5, 0.25, 0.125])


def test_no_p_value_is_as_small_as_is_needed_where_calibration_has_too_few_tiles() -> None:
    few = fit_null(np.linspace(1, 2, 110), None, RATE, 1000)

    found = raised_bar(np.array([9.0]), np.ones(1), 2, RATE, few.threshold)

    assert few.threshold(RATE / 2) == np.inf
    assert found == 9.0


@given(score=scores, of=alarms, weight=weights, r=repeats)
def test_a_p_value_in_the_light_of_false_alarms_is_never_smaller(
    score: float, of: list[float], weight: float, r: int
) -> None:
    found = reviewed(score, of, [weight] * len(of), r)

    assert p_value(score) <= found <= 1


@given(one=scores, other=scores, of=alarms, weight=weights, r=repeats)
def test_a_higher_score_has_no_greater_p_value(
    one: float, other: float, of: list[float], weight: float, r: int
) -> None:
    low, high = sorted((one, other))

    assert reviewed(high, of, [weight] * len(of), r) <= reviewed(low, of, [weight] * len(of), r)


@given(score=scores, of=alarms, weight=weights, r=repeats)
def test_a_score_passes_the_bar_exactly_when_its_p_value_is_small_enough(
    score: float, of: list[float], weight: float, r: int
) -> None:
    counts = [weight] * len(of)
    p_value_now = reviewed(score, of, counts, r)

    if abs(p_value_now - RATE) > 1e-12:
        assert (score > bar(of, counts, r)) == (p_value_now <= RATE)


@given(of=alarms, weight=weights, r=repeats, more=scores)
def test_bars_lie_between_the_threshold_and_the_highest_false_alarm_and_only_rise(
    of: list[float], weight: float, r: int, more: float
) -> None:
    counts = [weight] * len(of)

    found = bar(of, counts, r)

    assert THRESHOLD <= found <= max(THRESHOLD, *of)
    assert bar([*of, more], [*counts, weight], r) >= found
    assert bar(of, [weight / 2] * len(of), r) <= found


@given(of=st.permutations([3.0, 9.0, 9.0, 20.0, 70.0]))
def test_the_order_of_the_false_alarms_does_not_matter(of: list[float]) -> None:
    assert bar(of) == bar(sorted(of)) == 20.0


def test_at_a_place_that_is_stirred_every_night_few_flags_are_left_and_an_event_still_is_one() -> None:
    draw = np.random.default_rng(1)
    nightly = np.exp(draw.normal(2.6, 0.5, 200))  # most are beyond the threshold
    flags = [score for score in nightly if score > THRESHOLD]
    seen: list[float] = []
    raised = []
    for score in nightly:
        if score > (bar(seen) if seen else THRESHOLD):
            raised.append(score)
            seen.append(score)

    assert len(flags) > 100
    assert len(raised) < 12
    assert bar(seen) < 3 * np.quantile(nightly, 0.95)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vae.calibration.simulated import levels_of, nights
from vae.calibration import fit_place_levels
from vae.errors import CalibrationError


def fit(table: dict[str, list[float]], prior: float | None = 0.0, least: float = 0.0):
    """Scores of each place, one a scene; NaN where the place was not seen."""
    rows = [(str(scene), place, score) for place, scores in table.items() for scene, score in enumerate(scores)]
    scenes, places, scores = zip(*rows, strict=True)
    return fit_place_levels(np.array(scores), scenes, places, least=least, prior=prior)


def test_the_level_of_a_place_is_the_median_of_its_scores_whatever_happened_once():
    levels = fit({"town": [10, 10, 500, 10, 10], "wood": [1, 1, 1, np.nan, 1], "field": [3, 3, 3, 3, 3]})
    np.testing.assert_allclose(np.exp(levels.of(["wood", "town", "never seen"], 3)), [1, 10, 3])
    assert dict(zip(levels.names, levels.counts, strict=True)) == {"field": 5, "town": 5, "wood": 4}


def test_a_place_that_was_seen_on_hazy_nights_only_is_not_taken_for_an_unusual_one():
    hazy = [1.0, 1, 1, 8, 8]
    levels = fit({"a": hazy, "b": hazy, "c": hazy, "seldom": [np.nan, np.nan, np.nan, 8, 8]})
    np.testing.assert_allclose(np.exp(levels.of(["seldom", "a"], 2)), [1, 1])


def test_what_two_locations_differ_by_is_their_places_and_not_their_nights():
    table = {"town-1": [9, 9, 9], "town-2": [9, 9, 9], "wood-1": [1, 1, 1], "wood-2": [1, 1, 1]}
    rows = [(f"{p[:4]}/{n}", p, s) for p, scores in table.items() for n, s in enumerate(scores)]
    scenes, places, scores = zip(*rows, strict=True)
    levels = fit_place_levels(np.array(scores, dtype=float), scenes, places, least=0, prior=0)
    np.testing.assert_allclose(np.exp(levels.of(["town-1", "wood-2"], 2)), [9, 1])


@given(st.floats(0, 100), st.integers(1, 10))
def test_a_level_is_drawn_towards_that_of_all_places_by_the_dates_that_it_has(prior, dates):
    levels = fit({"town": [float(np.e)] * dates, "a": [1.0] * 10, "b": [1.0] * 10, "c": [1.0] * 10}, prior)
    assert levels.of(["town"], 1)[0] == pytest.approx(dates / (dates + prior))
    assert levels.elsewhere == pytest.approx(0)


def test_the_estimated_prior_is_short_where_places_differ_and_long_where_they_do_not():
    town_and_wood, alike = levels_of(nights(30, place=1.0)), levels_of(nights(30, place=0.0))
    assert town_and_wood.prior < 1
    assert alike.prior > 20
    # Estimated levels are closer to the truth than those that take each place at its word.
    assert np.abs(alike.levels - alike.elsewhere).max() < np.abs(levels_of(nights(30), prior=0).levels).max()


def test_levels_learned_from_few_dates_predict_better_when_they_are_shrunk():
    truth = np.random.default_rng(99).normal(size=25) * 0.2
    errors = {None: [], 0.0: []}
    for seed in range(40):
        made = nights(3, seed=seed, place=0.2)
        for prior, found in errors.items():
            levels = levels_of(made, prior).of([f"p{number}" for number in range(25)], 25)
            found.append(np.square((levels - np.median(levels)) - (truth - np.median(truth))).mean())
    assert np.mean(errors[None]) < 0.9 * np.mean(errors[0.0])


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_levels_scale_with_the_scores_and_do_not_depend_on_their_order(seed, factor):
    made = nights(5, 6, seed)
    order = np.random.default_rng(seed).permutation(len(made.scores))
    one = levels_of(made)
    other = fit_place_levels(
        made.scores[order] * factor,
        [made.dates[row] for row in order],
        [made.places[row] for row in order],
        least=0.0,
        prior=None,
    )
    assert one.names == other.names
    np.testing.assert_allclose(other.levels, one.levels + np.log(factor), atol=1e-9)


def test_scores_are_counted_from_their_least_value_and_zero_has_a_level_too():
    assert np.isfinite(fit({"a": [0.0, 0.0]}).levels).all()
    np.testing.assert_allclose(np.exp(fit({"a": [-3.0, -3.0]}, least=-5.0).levels), 2.0)


def test_without_any_score_there_is_no_level():
    with pytest.raises(CalibrationError, match="no tile of the training dates has a score"):
        fit({"a": [np.nan], "b": [np.nan]})


def test_each_score_needs_its_place():
    with pytest.raises(CalibrationError, match="2 places were named for 3 scores"):
        fit({"a": [1.0]}).of(["a", "a"], 3)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import CalibrationSettings
from tests.vae.conftest import make_detector, make_tiles
from vae.detector import Detector
from vae.errors import CalibrationError, DetectorError
from vae.levels import fit_levels

CALIBRATION = CalibrationSettings(false_alarm_rate=0.1, min_tiles=10)


def test_the_level_of_a_place_is_the_median_of_its_scores_whatever_happened_once():
    levels = fit_levels(
        ["town"] * 5 + ["wood"] * 5, np.array([9, 10, 11, 10, 500, 1, 1, 1.2, 0.8, np.nan]), min_history=4
    )
    np.testing.assert_allclose(levels.of(["wood", "town", "never seen"], 3), [1.0, 10.0, 5.5])


def test_a_place_with_a_short_history_is_judged_by_the_level_of_all():
    levels = fit_levels(["a", "a", "a", "b", "b"], np.array([1.0, 1, 1, 8, 8]), min_history=3)
    assert levels.levels == {"a": 1.0}
    np.testing.assert_allclose(levels.of(["b"], 1), [4.5])
    np.testing.assert_allclose(levels.of(None, 2), [4.5, 4.5])


def test_scores_of_zero_have_a_level_too():
    assert fit_levels(["a"], np.array([0.0]), min_history=1).levels["a"] > 0


def test_without_any_score_there_is_no_level():
    with pytest.raises(CalibrationError, match="no tile of the training dates has a score"):
        fit_levels(["a", "b"], np.array([np.nan, np.nan]), min_history=1)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(0.1, 10))
def test_levels_scale_with_the_scores(scores, factor):
    one = fit_levels(["a"] * len(scores), np.array(scores), 1)
    other = fit_levels(["a"] * len(scores), np.array(scores) * factor, 1)
    assert other.levels["a"] == pytest.approx(one.levels["a"] * factor)


@pytest.mark.parametrize("name", ["reconstruction", "nll"])
def test_a_detector_with_levels_gives_multiples_of_what_is_usual(name):
    plain, tiles = make_detector(name=name, min_history=1), make_tiles(6, seed=3, masked=0.1)
    raw = plain.score(tiles.values, tiles.valid, calibrated=False)
    places = [f"tile-{number}" for number in range(6)]
    detector = plain.with_levels(places, raw.score)
    relative = detector.score(tiles.values, tiles.valid, places=places, calibrated=False)
    np.testing.assert_allclose(relative.score, 1.0, rtol=1e-9)
    np.testing.assert_allclose(relative.components[name], raw.score)
    # The heatmap is in the same units, so that it can be read against the threshold.
    pooled = [np.quantile(heat[np.isfinite(heat)].astype(float), 0.9) for heat in relative.heatmap]
    np.testing.assert_allclose(pooled, 1.0, rtol=1e-4)


def test_levels_are_learned_once_and_drop_the_calibration():
    plain, tiles = make_detector(min_history=1), make_tiles(40, seed=1)
    raw = plain.score(tiles.values, tiles.valid, calibrated=False).score
    calibrated = plain.with_calibration(raw, ["2024-01-01"], CALIBRATION, "held_out")
    detector = calibrated.with_levels([str(number) for number in range(40)], raw)
    assert detector.calibration is None
    assert detector.identity != plain.identity
    with pytest.raises(DetectorError, match="learn them once"):
        detector.with_levels(["a"], np.array([1.0]))


def test_levels_are_saved_with_the_detector(tmp_path: Path):
    plain, tiles = make_detector(min_history=1), make_tiles(20, seed=1)
    raw = plain.score(tiles.values, tiles.valid, calibrated=False).score
    places = [f"<{number}>" for number in range(20)]
    detector = plain.with_levels(places, raw)
    detector.save(tmp_path)
    loaded = Detector.load(tmp_path, "cpu")
    assert loaded.levels == detector.levels
    scores = [one.score(tiles.values, tiles.valid, places=places, calibrated=False).score for one in (detector, loaded)]
    np.testing.assert_array_equal(*scores)

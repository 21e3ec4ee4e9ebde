"""A scene is judged by the calibrations of its detector, each kind of tile by its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs.schema import ScoreSettings
from tests.vae.conftest import make_detector, make_normalisation, make_tiles
from tests.vae.detectors import calibrated, some_past
from vae.detector import IN_SCENE_RATE, Detector
from vae.errors import CalibrationError, DetectorError


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(also=("reconstruction", "kl"))


@pytest.fixture(scope="module")
def ready() -> Detector:
    return calibrated()


def test_both_kinds_of_a_scene_are_judged_by_calibrations_of_their_own(ready):
    tiles, past = some_past(40, [True] * 25 + [False] * 15)
    tiles.values[7], tiles.values[30] = tiles.values[7] * 6, tiles.values[30] * 6
    scored = ready.score(tiles.values, tiles.valid, past=replace(past, witness=None))
    judged = ready.judge(scored.kind, scored.score, [f"here-{number}" for number in range(40)])
    for name, rows in (("change", slice(0, 25)), ("novelty", slice(25, None))):
        apart = ready.calibrations[name].judge(scored.score[rows], [f"here-{number}" for number in range(40)][rows])
        np.testing.assert_array_equal(judged.score[rows], apart.score)
        np.testing.assert_array_equal(judged.p_value[rows], apart.p_value)
        np.testing.assert_array_equal(judged.flagged[rows], apart.flagged)
        assert set(judged.threshold[rows]) == {apart.threshold}
    assert judged.flagged[[7, 30]].all()
    assert set(judged.basis) == {"calibrated"}
    assert list(judged.nights) == ["change", "novelty"]
    assert judged.night is judged.nights["change"]
    heat = judged.relative(scored.heatmap[30], 30)
    assert heat.shape == (16, 16)
    np.testing.assert_array_equal(np.isnan(heat), ~tiles.valid[30])
    assert np.nanquantile(heat.astype(float), 0.9) == pytest.approx(judged.score[30], rel=1e-4)


def test_a_kind_without_a_calibration_is_judged_by_its_own_scene_and_marked_so():
    only_alone = calibrated("novelty")
    tiles, past = some_past(40, [True] * 40)
    # One calibration at hand is better than none: all tiles are looked at alone.
    assert set(only_alone.score(tiles.values, tiles.valid, past=past).kind) == {"novelty"}
    never = replace(only_alone, calibrations={})
    scored = never.score(tiles.values, tiles.valid, past=past)
    assert set(scored.kind) == {"change"}
    scored.score[5] *= 100
    judged = never.judge(scored.kind, scored.score)
    assert set(judged.basis) == {"in_scene"}
    assert judged.flagged[5]
    assert judged.flagged.sum() <= 4
    assert "not calibrated" in judged.night.note
    mixed = only_alone.judge(scored.kind, scored.score)
    assert mixed.threshold[0] < judged.threshold[0]  # 5 % of its calibration, not 1 %
    assert IN_SCENE_RATE == 0.01


def test_unscored_tiles_have_no_verdict(ready):
    tiles = make_tiles(20, masked=0)
    tiles.valid[3] = False
    scored = ready.score(tiles.values, tiles.valid)
    judged = ready.judge(scored.kind, scored.score)
    assert np.flatnonzero(np.isnan(judged.p_value)).tolist() == [3]
    assert not judged.flagged[3]
    assert judged.basis[3] == ""
    raw = np.ones((16, 16), dtype=np.float32)
    np.testing.assert_array_equal(judged.relative(raw, 3), raw)


def test_the_order_of_a_scenes_tiles_does_not_matter(ready):
    tiles, past = some_past(40, [True] * 25 + [False] * 15)
    scored = ready.score(tiles.values, tiles.valid, past=past)
    judged = ready.judge(scored.kind, scored.score)
    order = np.random.default_rng(0).permutation(40)
    again = ready.judge(scored.kind[order], scored.score[order])
    np.testing.assert_array_equal(again.score, judged.score[order])
    np.testing.assert_array_equal(again.p_value, judged.p_value[order])


def test_an_uncalibrated_detector_says_so(detector):
    assert detector.calibration is None
    assert detector.calibration_id == ""
    with pytest.raises(CalibrationError, match="calibrate it first"):
        _ = detector.required_calibration


def test_the_calibration_of_tiles_with_a_past_comes_first(ready):
    assert ready.calibration is ready.calibrations["change"]
    only = replace(ready, calibrations={"novelty": ready.calibrations["novelty"]})
    assert only.required_calibration is ready.calibrations["novelty"]
    assert only.calibration_id == ready.calibrations["novelty"].calibration_id
    assert len({only.calibration_id, ready.calibration_id, ready.calibrations["change"].calibration_id}) == 3
    assert only.identity != ready.identity
    assert only.scoring_identity == ready.scoring_identity


def test_a_calibration_of_another_score_or_detector_is_refused(ready):
    swapped = {"novelty": ready.calibrations["change"]}
    with pytest.raises(DetectorError, match=r"of change pooled by p90, the detector scores novelty pooled by p90"):
        replace(ready, calibrations=swapped)
    with pytest.raises(DetectorError, match=r"pooled by p90.*pooled by mean"):
        replace(ready, score_settings=ScoreSettings(pool="mean", also=()))
    others = {
        "seed": 1,
        "visible": (0, 1, 2),
        "networks": make_detector(seed=1, learn=False).networks,
        "constants": {},
        "normalisation": make_normalisation(log_offset=0.1),
        "score_settings": ScoreSettings(min_valid=0.6, also=()),
    }
    for name, part in others.items():
        with pytest.raises(CalibrationError, match="calibrate again"):
            replace(ready, **{name: part})

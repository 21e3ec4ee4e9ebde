from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch

from configs.schema import CalibrationSettings, ScoreSettings
from tests.vae.conftest import make_detector, make_tiles
from vae import drift
from vae.detector import Detector
from vae.digests import canonical_json, sha256
from vae.errors import CalibrationError, DetectorError, ShapeError
from vae.scores import SCORES


def calibrated(**arguments) -> Detector:
    detector = make_detector(**arguments)
    tiles = make_tiles(150, seed=3)
    scored = detector.score(tiles.values, tiles.valid, calibrated=False)
    settings = CalibrationSettings(false_alarm_rate=0.05)
    made = detector.with_calibration(scored.score, ["2024-05-01"], settings, "held_out")
    profile = drift.Profile().add("here", date(2024, 5, 1), made.histograms(tiles.values, tiles.valid, scored))
    return replace(made, profile=profile, metadata={"training_dates": ["2024-04-01"], "versions": {"torch": "2"}})


def bytes_of(scored, rows=slice(None)) -> list[bytes]:
    parts = [scored.score, scored.p_value, scored.flagged, scored.heatmap, scored.latent, scored.valid_fraction]
    return [np.ascontiguousarray(part[rows]).tobytes() for part in [*parts, *scored.components.values()]]


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.parametrize("threads", [1, 2])
def test_a_tile_gets_the_same_bytes_whatever_it_comes_with(name, threads):
    detector, tiles = calibrated(name=name), make_tiles(133, seed=4, masked=0.4)
    reference = detector.score(tiles.values, tiles.valid)
    torch.set_num_threads(threads)
    try:
        order = np.random.default_rng(0).permutation(133)
        assert bytes_of(detector.score(tiles.values[order], tiles.valid[order])) == bytes_of(reference, order)
        for row in (0, 63, 64, 100, 132):
            one = slice(row, row + 1)
            assert bytes_of(detector.score(tiles.values[one], tiles.valid[one])) == bytes_of(reference, one)
        for count in (2, 65):
            few = detector.score(tiles.values[-count:], tiles.valid[-count:])
            assert bytes_of(few) == bytes_of(reference, slice(-count, None))
    finally:
        torch.set_num_threads(1)


def test_what_lies_under_a_mask_changes_nothing():
    detector, tiles = calibrated(), make_tiles(10, seed=4)
    reference = detector.score(tiles.values, tiles.valid)
    masked = ~np.broadcast_to(tiles.valid[:, None], tiles.values.shape)
    for filling in (0.0, -5.0, 1e30, np.inf):
        values = tiles.values.copy()
        values[masked] = filling
        assert bytes_of(detector.score(values, tiles.valid)) == bytes_of(reference)
    # NaN where the mask says valid is masked too.
    assert bytes_of(detector.score(tiles.values, np.ones_like(tiles.valid))) == bytes_of(reference)


def test_the_score_is_the_pooled_heatmap_and_nan_where_masked():
    detector, tiles = calibrated(), make_tiles(10, seed=4)
    scored = detector.score(tiles.values, tiles.valid)
    np.testing.assert_array_equal(np.isnan(scored.heatmap), ~tiles.valid)
    pooled = [np.quantile(heat[~np.isnan(heat)].astype(float), 0.9) for heat in scored.heatmap]
    np.testing.assert_allclose(scored.score, pooled, rtol=1e-6)
    np.testing.assert_array_equal(scored.score, scored.components["reconstruction"])
    np.testing.assert_array_equal(scored.flagged, scored.score > scored.threshold)
    assert scored.latent.shape == (10, detector.latent_size) == (10, 4 * 4 * 4)
    np.testing.assert_array_equal(detector.encode(tiles.values, tiles.valid).reshape(10, -1), scored.latent)


def test_a_strange_tile_scores_higher():
    detector, tiles = calibrated(), make_tiles(10, seed=4)
    values = tiles.values.copy()
    values[:, :, 4:12, 4:12] *= 20
    strange = detector.score(values, tiles.valid)
    assert (strange.score > detector.score(tiles.values, tiles.valid).score).all()


def test_a_tile_with_too_little_left_says_why_it_has_no_score():
    detector, tiles = calibrated(), make_tiles(4, masked=0)
    valid = tiles.valid.copy()
    valid[1, :, 2:] = False  # 2 of 16 columns
    valid[2] = False
    valid[3, :, 8:] = False  # half of the tile, but all there is of it at the edge
    scored = detector.score(tiles.values, valid, area=np.array([256, 256, 256, 128]))
    assert scored.reason == [
        None,
        "12 % of the tile is usable, 50 % needed",
        "nothing of the tile is usable",
        None,
    ]
    np.testing.assert_allclose(scored.valid_fraction, [1, 0.125, 0, 1])
    unscored = np.array([False, True, True, False])
    for array in (scored.score, scored.p_value, scored.components["kl"], scored.latent[:, 0], scored.heatmap[:, 0, 0]):
        np.testing.assert_array_equal(np.isnan(array), unscored)
    assert not scored.flagged[unscored].any()


def test_no_tiles_give_no_scores():
    tiles = make_tiles(2)
    scored = calibrated().score(tiles.values[:0], tiles.valid[:0])
    assert scored.score.shape == (0,)
    assert scored.heatmap.shape == (0, 16, 16)
    assert scored.reason == []


def test_an_uncalibrated_detector_says_so():
    detector, tiles = make_detector(), make_tiles(2)
    with pytest.raises(CalibrationError, match="calibrate it first"):
        detector.score(tiles.values, tiles.valid)
    scored = detector.score(tiles.values, tiles.valid, calibrated=False)
    assert np.isfinite(scored.score).all()
    assert np.isnan(scored.p_value).all()
    assert np.isnan(scored.threshold)


def test_a_calibration_of_another_score_is_refused():
    with pytest.raises(DetectorError, match=r"reconstruction pooled by p90.*nll pooled by mean"):
        replace(calibrated(), score_settings=ScoreSettings(name="nll", pool="mean"))


def test_tiles_that_do_not_fit_are_refused():
    detector, tiles = calibrated(), make_tiles(2, bands=4)
    with pytest.raises(ShapeError, match=r"\(N, 3, 16, 16\) of bands B00, B01, B02.*\(2, 4, 16, 16\)"):
        detector.score(tiles.values, tiles.valid)


def test_the_expectation_is_physical_and_filled_in():
    detector, tiles = calibrated(), make_tiles(3)
    expected = detector.expected(tiles.values, tiles.valid)
    assert expected.shape == tiles.values.shape
    assert (expected > 0).all()
    x = detector.normalisation.apply(torch.from_numpy(tiles.values), torch.from_numpy(tiles.valid))
    decoded = detector.normalisation.apply(torch.from_numpy(expected))
    by_hand = ((x - decoded) / 0.3).square().mean(1).numpy()[tiles.valid]
    np.testing.assert_allclose(detector.score(tiles.values, tiles.valid).heatmap[tiles.valid], by_hand, atol=1e-3)


def test_a_detector_comes_back_from_disk_as_it_was(tmp_path):
    detector, tiles = calibrated(), make_tiles(20, seed=4)
    detector.save(tmp_path / "one")
    loaded = Detector.load(tmp_path / "one")
    assert bytes_of(loaded.score(tiles.values, tiles.valid)) == bytes_of(detector.score(tiles.values, tiles.valid))
    assert loaded.calibration.calibration_id == detector.calibration.calibration_id
    assert loaded.identity == detector.identity != make_detector(seed=1).identity
    assert loaded.metadata == detector.metadata
    assert loaded.model == detector.model
    loaded.save(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()
    for key, histograms in detector.profile.entries.items():
        np.testing.assert_array_equal(loaded.profile.entries[key].values, histograms.values)


def test_saving_again_replaces_the_detector(tmp_path):
    make_detector(seed=0).save(tmp_path)
    make_detector(seed=1).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert Detector.load(tmp_path).identity == make_detector(seed=1).identity


def rewrite(folder, **changes):
    """Edit detector.json as someone would who also knows how to mend its checksum."""
    path = folder / "detector.json"
    about = {**json.loads(path.read_text()), **changes}
    del about["checksum"]
    path.write_bytes(canonical_json({**about, "checksum": sha256(canonical_json(about))}))


def other_threshold(folder):
    path = folder / "detector.json"
    path.write_text(path.read_text().replace('"false_alarm_rate": 0.05', '"false_alarm_rate": 0.5'))


def other_rate_with_checksum(folder):
    about = json.loads((folder / "detector.json").read_text())
    rewrite(folder, calibration={**about["calibration"], "false_alarm_rate": 0.5})


def weights_changed(folder):
    (path,) = folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def weights_truncated(folder):
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-50])


def calibrated_elsewhere(folder):
    about = json.loads((folder / "detector.json").read_text())["calibration"]
    detector = Detector.load(folder)
    made = replace(detector.calibration, runtime={**about["runtime"], "backend": "openvino"})
    replace(detector, calibration=made).save(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_threshold, "checksum differs"),
        (other_rate_with_checksum, "not the one it names"),
        (weights_changed, "sha256 differs"),
        (weights_truncated, "sha256 differs"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), "cannot be loaded"),
        (lambda folder: (folder / "detector.json").unlink(), "there is no detector in"),
        (lambda folder: (folder / "detector.json").write_text('{"format": 1'), "not JSON"),
        (lambda folder: (folder / "detector.json").write_text("[]"), "names no format"),
        (lambda folder: rewrite(folder, format=2), "has format 2, this version reads up to 1: update tilewatch"),
        (lambda folder: rewrite(folder, weights={"file": "../w.safetensors", "sha256": ""}), "outside its own folder"),
        (lambda folder: rewrite(folder, weights=None), "cannot be loaded"),
        (lambda folder: rewrite(folder, model={"width": 16, "depth": 2, "latent_channels": 4}), "cannot be loaded"),
        (calibrated_elsewhere, "calibrated with backend openvino and would run with backend torch-eager"),
    ],
)
def test_damaged_altered_and_foreign_detectors_are_refused_in_words(tmp_path, damage, message):
    calibrated().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(DetectorError, match=message):
        Detector.load(tmp_path)


def test_histograms_of_parts_are_those_of_the_scene():
    detector, tiles = calibrated(), make_tiles(90, seed=4, masked=0.3)
    scored = detector.score(tiles.values, tiles.valid)
    whole = detector.histograms(tiles.values, tiles.valid, scored)
    has_score = np.isfinite(scored.score)
    assert 64 < has_score.sum() < 90  # more than a batch, and some too cloudy
    assert whole.tiles == whole.scores.sum() == has_score.sum()
    assert whole.values.sum() == 3 * tiles.valid[has_score].sum()
    assert whole.latent.shape[0] == 4
    assert (whole.latent.sum(1) == has_score.sum()).all()
    parts = [
        detector.histograms(
            tiles.values[rows], tiles.valid[rows], detector.score(tiles.values[rows], tiles.valid[rows])
        )
        for rows in (slice(0, 7), slice(7, None))
    ]
    np.testing.assert_array_equal((parts[1] + parts[0]).values, whole.values)
    np.testing.assert_array_equal((parts[1] + parts[0]).scores, whole.scores)

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch

from tests.vae.conftest import bytes_of, make_detector, make_past, make_tiles
from tests.vae.test_detector import NO_NETWORK, calibrated
from vae import drift
from vae.detector import Detector
from vae.digests import canonical_json, sha256
from vae.errors import DetectorError
from vae.storage import FORMAT, read_bundle, write_bundle


def complete(**arguments) -> Detector:
    """Two calibrations, a profile and metadata."""
    detector = calibrated(**arguments)
    tiles = make_tiles(20, seed=3)
    histograms = detector.histograms(tiles.values, tiles.valid, detector.score(tiles.values, tiles.valid))
    profile = drift.Profile().add("here", date(2024, 5, 1), histograms)
    return replace(detector, profile=profile, metadata={"training_dates": ["2024-04-01"], "versions": {"torch": "2"}})


@pytest.mark.parametrize(
    "arguments",
    [{}, {"members": 2, "also": ("latent_knn", "nll")}, {"members": 0, **NO_NETWORK}],
    ids=["one network", "two networks", "no network"],
)
def test_a_detector_comes_back_from_disk_as_it_was(tmp_path, arguments):
    detector, tiles = complete(**arguments), make_tiles(20, seed=4)
    detector.save(tmp_path / "one")
    loaded = Detector.load(tmp_path / "one")
    past = make_past(tiles)
    scored, again = (one.score(tiles.values, tiles.valid, past=past) for one in (detector, loaded))
    assert bytes_of(again) == bytes_of(scored)
    judged, judged_again = (one.judge(scored.kind, scored.score) for one in (detector, loaded))
    assert judged_again.p_value.tobytes() == judged.p_value.tobytes()
    assert loaded.identity == detector.identity
    assert loaded.calibrations.keys() == detector.calibrations.keys()
    assert len(loaded.calibrations) == 2
    for name in ("normalisation", "model", "score_settings", "tile_size", "seed", "visible", "metadata", "names"):
        assert getattr(loaded, name) == getattr(detector, name)
    for name, members in detector.constants.items():
        for one, other in zip(members, loaded.constants[name], strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    for key, histograms in detector.profile.entries.items():
        np.testing.assert_array_equal(loaded.profile.entries[key].values, histograms.values)
        assert loaded.profile.entries[key].latent.shape == histograms.latent.shape
    loaded.save(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_detector_that_knows_nothing_yet_comes_back_too(tmp_path):
    make_detector(learn=False, visible=()).save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert (loaded.constants, loaded.calibrations, loaded.profile, loaded.visible) == ({}, {}, None, ())


def test_saving_again_replaces_the_detector(tmp_path):
    make_detector(seed=0).save(tmp_path)
    make_detector(seed=1).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert Detector.load(tmp_path).identity == make_detector(seed=1).identity


def test_the_same_content_gives_the_same_bytes_whatever_lies_behind_the_tensors(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    for number, tensor in enumerate((whole.T, whole.T.contiguous())):
        write_bundle(tmp_path / str(number), {"metadata": {}}, {"part": tensor, "again": tensor})
    one, other = (sorted(path.read_bytes() for path in (tmp_path / number).iterdir()) for number in "01")
    assert one == other
    about, tensors = read_bundle(tmp_path / "0")
    assert about["format"] == FORMAT
    assert torch.equal(tensors["again"], whole.T)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return complete()


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
    calibrations = json.loads((folder / "detector.json").read_text())["calibrations"]
    calibrations["change"]["settings"]["false_alarm_rate"] = 0.5
    rewrite(folder, calibrations=calibrations)


def of_another_detector(folder):
    rewrite(folder, seed=5)


def weights_changed(folder):
    (path,) = folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def weights_truncated(folder):
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-50])


def weights_of_another_kind(folder):
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(b"not tensors at all")
    rewrite(folder, weights={"file": path.name, "sha256": sha256(b"not tensors at all")})


def calibrated_elsewhere(folder):
    found = Detector.load(folder)
    elsewhere = {
        name: replace(made, runtime={**made.runtime, "backend": "openvino"})
        for name, made in found.calibrations.items()
    }
    replace(found, calibrations=elsewhere).save(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_threshold, "checksum differs"),
        (other_rate_with_checksum, "calibration of change is not the one it names"),
        (of_another_detector, "the calibration is of detector .*calibrate again"),
        (weights_changed, "sha256 differs"),
        (weights_truncated, "sha256 differs"),
        (weights_of_another_kind, "cannot be loaded"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), "cannot be loaded"),
        (lambda folder: (folder / "detector.json").unlink(), "there is no detector in"),
        (lambda folder: (folder / "detector.json").write_text('{"format": 2'), "not JSON"),
        (lambda folder: (folder / "detector.json").write_text("[]"), "names no format"),
        (lambda folder: rewrite(folder, format=3), "has format 3, this version reads up to 2: update tilewatch"),
        (lambda folder: rewrite(folder, format=1), "has format 1, this version reads format 2: train again"),
        (lambda folder: rewrite(folder, weights={"file": "../w.safetensors", "sha256": ""}), "outside its own folder"),
        (lambda folder: rewrite(folder, weights=None), "cannot be loaded"),
        (lambda folder: rewrite(folder, model={"width": 16, "depth": 2, "latent_channels": 4}), "cannot be loaded"),
        (lambda folder: rewrite(folder, score={"name": "unknown"}), "there is no score 'unknown'"),
        (lambda folder: rewrite(folder, visible=[0, 1]), "three channels"),
        (calibrated_elsewhere, "calibrated with backend openvino and would run with backend torch-eager"),
    ],
)
def test_damaged_altered_and_foreign_detectors_are_refused_in_words(tmp_path, damage, message, detector):
    detector.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(DetectorError, match=message):
        Detector.load(tmp_path)


def test_another_version_of_torch_is_logged(tmp_path, detector, caplog):
    older = {
        name: replace(made, runtime={**made.runtime, "torch": "1.0"}) for name, made in detector.calibrations.items()
    }
    replace(detector, calibrations=older).save(tmp_path)
    Detector.load(tmp_path)
    assert "calibrated with torch 1.0" in caplog.text

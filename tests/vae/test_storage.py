from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from configs.schema import ModelSettings
from tests.vae.conftest import bytes_of, make_detector, make_past, make_tiles
from tests.vae.test_detector import NO_NETWORK, calibrated
from vae.detector import SCORING, Detector
from vae.digests import canonical_json, sha256
from vae.drift_profile import Profile
from vae.errors import DetectorError
from vae.scoring import identity_of
from vae.storage import FORMAT, read_bundle, write_bundle

OLDER = Path(__file__).parent / "older" / "format-2"


def complete(**arguments) -> Detector:
    """Two calibrations, a profile and metadata."""
    detector = calibrated(**arguments)
    tiles = make_tiles(20, seed=3)
    histograms = detector.histograms(tiles.values, tiles.valid, detector.score(tiles.values, tiles.valid))
    profile = Profile().add("here", date(2024, 5, 1), histograms)
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


def with_setting(folder, section, **changes):
    about = json.loads((folder / "detector.json").read_text())
    rewrite(folder, **{section: {**about[section], **changes}})


def json_cut_off(folder):
    path = folder / "detector.json"
    path.write_bytes(path.read_bytes()[:-100])


def weights_empty(folder):
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(b"")


def weights_replaced(folder, content):
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(content)
    rewrite(folder, weights={"file": path.name, "sha256": sha256(content)})


def weights_are_a_pickle(folder):
    weights_replaced(folder, pickle.dumps(Trap(str(folder / "sprung"))))


def weights_are_a_link(folder):
    (path,) = folder.glob("*.safetensors")
    path.unlink()
    path.symlink_to(folder / "detector.json")


def a_tensor_missing(folder):
    _, tensors = read_bundle(folder)
    del tensors[next(name for name in tensors if name.startswith("network/"))]
    weights_replaced(folder, safetensors.torch.save(tensors))


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


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
        (lambda folder: rewrite(folder, format=4), "has format 4, this version reads up to 3: update tilewatch"),
        (lambda folder: rewrite(folder, format=1), "has format 1, this version reads 2 to 3: train again"),
        (lambda folder: rewrite(folder, colour="blue"), "has colour, .*made by a newer one, so update tilewatch"),
        (lambda folder: with_setting(folder, "model", experts=4), "has model.experts, .*update tilewatch"),
        (lambda folder: with_setting(folder, "score", tiers=2), "has score.tiers, .*update tilewatch"),
        (lambda folder: with_setting(folder, "model", latent="cloud"), "does not take .model.latent: Input should be"),
        (json_cut_off, "not JSON"),
        (weights_empty, "sha256 differs"),
        (weights_are_a_pickle, "cannot be loaded"),
        (weights_are_a_link, "sha256 differs"),
        (a_tensor_missing, "cannot be loaded"),
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
    assert not (tmp_path / "sprung").exists()


def test_the_trap_would_spring_if_it_were_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Trap(str(tmp_path / "sprung")))).close()
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_detector_that_was_cut_off_anywhere_is_refused(tmp_path, detector, share):
    detector.save(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        detector.save(tmp_path / path.stem)
        cut = tmp_path / path.stem / path.name
        cut.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(DetectorError):
            Detector.load(tmp_path / path.stem)


def test_any_single_changed_byte_is_noticed(tmp_path, detector):
    detector.save(tmp_path)
    draw = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for position in draw.integers(0, len(whole), 40):
            content = bytearray(whole)
            content[position] ^= 1 << int(draw.integers(0, 8))
            path.write_bytes(content)
            with pytest.raises(DetectorError):
                Detector.load(tmp_path)
        path.write_bytes(whole)
    assert Detector.load(tmp_path).identity == detector.identity


def test_the_bundle_tells_settings_bands_normalisation_calibration_versions_and_data(tmp_path, detector):
    told = {**detector.metadata, "data_fingerprint": "8f14"}
    replace(detector, metadata=told).save(tmp_path)
    about = json.loads((tmp_path / "detector.json").read_text())
    assert about["model"] == detector.model.model_dump(mode="json")
    assert about["score"] == detector.score_settings.model_dump(mode="json")
    assert about["normalisation"]["bands"] == list(detector.bands)
    assert about["calibrations"].keys() == detector.calibrations.keys()
    assert about["metadata"]["versions"] == {"torch": "2"}
    assert about["metadata"]["data_fingerprint"] == "8f14"
    assert about["weights"]["sha256"] == sha256((tmp_path / about["weights"]["file"]).read_bytes())
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_detector_of_the_format_before_scores_as_it_did_then():
    """Saved by the version before networks were made of parts: other names, fewer settings."""
    then = json.loads((OLDER / "scores.json").read_text())
    tiles = make_tiles(3, seed=4)
    loaded = Detector.load(OLDER)
    scored = loaded.score(tiles.values, tiles.valid, past=make_past(tiles))
    judged = loaded.judge(scored.kind, scored.score)
    assert list(scored.kind) == then["kind"]
    for name, wanted in then["components"].items():
        np.testing.assert_allclose(scored.components[name], wanted, rtol=1e-5)
    np.testing.assert_allclose(scored.latent.ravel(), then["latent"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(judged.p_value, then["p_value"], rtol=1e-6)


def test_a_detector_of_the_format_before_is_saved_in_that_of_today(tmp_path):
    loaded = Detector.load(OLDER)
    loaded.save(tmp_path)
    assert json.loads((tmp_path / "detector.json").read_text())["format"] == FORMAT
    assert Detector.load(tmp_path).identity == loaded.identity


def test_the_calibration_of_an_older_detector_still_belongs_to_its_weights(tmp_path):
    for path in OLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    _, tensors = read_bundle(tmp_path)
    tensors["network/0/sigma"] = tensors["network/0/sigma"] * 2
    weights_replaced(tmp_path, safetensors.torch.save(tensors))
    with pytest.raises(DetectorError, match=r"the calibration is of detector .*calibrate again"):
        Detector.load(tmp_path)


def test_settings_that_came_later_have_their_defaults(tmp_path, detector):
    detector.save(tmp_path)
    about, tensors = read_bundle(tmp_path)
    for name in ("network", "posterior", "likelihood"):
        assert about["model"].pop(name) == ModelSettings.model_fields[name].default
    # Saved so by a version that did not know them: its calibrations are of what it knew.
    known = identity_of(
        {key: part for key, part in about.items() if key in SCORING},
        {name: part for name, part in tensors.items() if name.startswith(("network/", "constants/"))},
    )
    for name, made in detector.calibrations.items():
        then = replace(made, detector=known)
        about["calibrations"][name] |= {"detector": known, "calibration_id": then.calibration_id}
    rewrite(tmp_path, **{key: about[key] for key in ("model", "calibrations")})
    assert Detector.load(tmp_path).identity == detector.identity


def test_another_version_of_torch_is_logged(tmp_path, detector, caplog):
    older = {
        name: replace(made, runtime={**made.runtime, "torch": "1.0"}) for name, made in detector.calibrations.items()
    }
    replace(detector, calibrations=older).save(tmp_path)
    Detector.load(tmp_path)
    assert "calibrated with torch 1.0" in caplog.text

"""`tilewatch export`: any registered version, as files that score as it does."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml

from configs import Settings, Workspace, load_settings
from tasks import registry, tracking
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch
from tests.vae.conftest import make_past, make_tiles
from tests.vae.test_detector import NO_NETWORK, calibrated
from vae.detector import Detector
from vae.export import ExportedScorer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, Workspace]:
    """Two registered detectors without a network, of different seeds."""
    folder = tmp_path_factory.mktemp("watch")
    config = folder / "meadow.yaml"
    config.write_text(yaml.safe_dump({"name": "meadow", "source": {"root": "scenes", "bands": ["B00", "B01", "B02"]}}))
    settings, workspace = load_settings(config, environment={}), Workspace(folder / "workspace")
    for seed in (0, 1):
        with tracking.run(settings, workspace, "train", f"seed {seed}", {}):
            registry.register(calibrated(members=0, seed=seed, **NO_NETWORK), settings, "")
    return folder, settings, workspace


def test_the_champion_or_any_version_is_exported_and_scores_as_it_does(
    watch: tuple[Path, Settings, Workspace], tmp_path: Path
) -> None:
    folder, settings, workspace = watch
    first = run_tilewatch(folder, tmp_path, "export", "-c", "meadow.yaml", "--to", "onnx", "--json")
    assert first.returncode == DONE, first.stderr
    told = result(first)
    assert (told["detector_version"], told["left_out"]) == ("v2", {})
    assert told["files"] == ["alone.onnx", "past.onnx"]
    assert told["largest_difference"] < 1e-4
    assert set(told["scores"]) == {"aligned_difference", "rx", "difference"}

    scorer = ExportedScorer(workspace.exported / "v2-onnx", threads=1)
    tiles = make_tiles(4)
    past = make_past(tiles)
    bundle, _ = registry.champion(settings, workspace)
    wanted = Detector.load(bundle).score(tiles.values, tiles.valid, past=past).components
    found = scorer.run(tiles.values, tiles.valid, past)
    np.testing.assert_allclose(found["score_aligned_difference"], wanted["aligned_difference"], rtol=1e-5)

    other = run_tilewatch(
        folder,
        tmp_path,
        "export",
        "-c",
        "meadow.yaml",
        "--to",
        "openvino",
        "--version",
        "v1",
        "--out",
        tmp_path / "out",
    )
    assert other.returncode == DONE, other.stderr
    about = ExportedScorer(tmp_path / "out", threads=1).about
    assert about["detector"]["version"] == "v1"
    assert about["detector"]["identity"] == Detector.load(registry.registered(settings, workspace, "1")[0]).identity


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--to", "onnx", "--version", "v7"), FAILED, "there is no version v7 of meadow in .*: there are v1, v2"),
        (("--to", "onnx", "--precision", "bf16"), FAILED, "no bf16 convolution"),
        (("--to", "tflite"), WRONG, "tflite"),
        (("--to", "onnx", "--out", "."), FAILED, "holds something that is no export"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_words(
    watch: tuple[Path, Settings, Workspace], tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    ran = run_tilewatch(watch[0], tmp_path, "export", "-c", "meadow.yaml", *arguments)
    assert ran.returncode == status
    assert in_words(ran)
    assert re.search(words, " ".join(ran.stderr.split()))


def test_a_model_that_was_never_trained_has_no_champion(watch: tuple[Path, Settings, Workspace]) -> None:
    _, settings, workspace = watch
    other = settings.model_copy(update={"name": "elsewhere"})
    with pytest.raises(registry.NoChampion, match=r"no champion of elsewhere .*run `tilewatch train` first"):
        registry.champion(other, workspace)
    assert mlflow.get_tracking_uri() == workspace.mlflow_uri

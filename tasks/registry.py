"""The registry of detectors: MLflow's registered model, whose alias `champion` is the one that scores tonight."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from configs import Settings, Workspace
from configs.workspace import safe_name
from tasks import tracking
from vae.detector import Detector
from vae.errors import DetectorError

CHAMPION = "champion"
DIGEST_TAG = "tilewatch.sha256"
ROOT = Path(__file__).resolve().parents[1]


class NoChampion(LookupError):
    """There is no detector to score with."""


def register(detector: Detector, settings: Settings, reason: str) -> str:
    """Log a detector to the active run as an MLflow model, and make it the champion.

    Returns:
        Its version, e.g. "v3".
    """
    client = mlflow.MlflowClient()
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "detector"
        detector.save(bundle)
        digest = _digest(bundle)
        with warnings.catch_warnings():
            # The signature is given, so MLflow's advice on how it could guess one does not apply.
            warnings.simplefilter("ignore", UserWarning)
            info = mlflow.pyfunc.log_model(
                name="detector",
                python_model=str(ROOT / "tasks" / "served_detector.py"),
                artifacts={"detector": str(bundle)},
                code_paths=[str(ROOT / "vae"), str(ROOT / "configs")],
                signature=_signature(detector),
                pip_requirements=["torch", "numpy", "scipy", "pandas", "safetensors", "pydantic", "pyyaml"],
                metadata={"calibration_id": detector.calibration_id},
            )
    version = mlflow.register_model(info.model_uri, settings.name, tags={DIGEST_TAG: digest, "reason": reason})
    client.set_registered_model_alias(settings.name, CHAMPION, version.version)
    return f"v{version.version}"


def champion(settings: Settings, workspace: Workspace) -> tuple[Path, str]:
    """The folder of the champion, to be loaded with `Detector.load`, and its version, e.g. "v3".

    Its files are copied to the workspace once, and checked against their digest at every call.

    Raises:
        NoChampion: Nothing was trained yet.
        DetectorError: The files are not those that were registered.
    """
    return registered(settings, workspace, CHAMPION)


def registered(settings: Settings, workspace: Workspace, which: str) -> tuple[Path, str]:
    """The same of any version.

    Args:
        settings: Name the model and the registry.
        workspace: Takes the copy.
        which: `champion`, or a version such as "v3" or "3".

    Raises:
        NoChampion: There is no such version.
        DetectorError: The files are not those that were registered.
    """
    version = _version(settings, workspace, which)
    folder = workspace.models / safe_name(settings.name) / f"v{version.version}"
    expected = version.tags.get(DIGEST_TAG)
    if not folder.is_dir() or _digest(folder) != expected:
        uri = f"models:/{settings.name}/{version.version}"
        with TemporaryDirectory() as download:
            model = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=download))
            bundle = model / "artifacts" / "detector"
            found = _digest(bundle)
            if found != expected:
                raise DetectorError(
                    f"the files of {settings.name} v{version.version} have the digest {found[:12]}, not "
                    f"{str(expected)[:12]} as registered: somebody changed them. Train again or restore them"
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
                copy = shutil.copytree(bundle, Path(beside) / "whole")
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(copy, folder)
    return folder, f"v{version.version}"


def _signature(detector: Detector) -> ModelSignature:
    """Any number of tiles of physical values."""
    shape = (-1, len(detector.bands), detector.tile_size, detector.tile_size)
    return ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), shape)]))


def _version(settings: Settings, workspace: Workspace, which: str) -> mlflow.entities.model_registry.ModelVersion:
    tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()
    try:
        if which == CHAMPION:
            return client.get_model_version_by_alias(settings.name, CHAMPION)
        return client.get_model_version(settings.name, which.removeprefix("v"))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise NoChampion(_not_there(settings, client, which)) from None


def _not_there(settings: Settings, client: mlflow.MlflowClient, which: str) -> str:
    found = client.search_model_versions(f"name = '{settings.name}'")
    versions = ", ".join(f"v{number}" for number in sorted(int(one.version) for one in found))
    words = f"there is no {which if which == CHAMPION else 'version ' + which} of {settings.name} in "
    return f"{words}{mlflow.get_tracking_uri()}: " + (
        f"there are {versions}" if versions else "run `tilewatch train` first"
    )


def _digest(folder: Path) -> str:
    """A digest of the names and contents of the files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

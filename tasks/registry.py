"""The registry of detectors: MLflow's registered model, whose alias `champion` is the one that scores tonight."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from configs import Settings, Workspace
from configs.workspace import safe_name
from tasks import tracking
from tasks.last_known import LastKnown, last_known, remember
from tasks.moves import (
    CHALLENGER,
    CHAMPION,
    LONGEST_WORDS,
    Move,
    champion_version,
    drop_challenger,
    move,
    moves_to,
    named,
)
from vae.detector import Detector
from vae.errors import DetectorError

log = logging.getLogger(__name__)

DIGEST_TAG = "tilewatch.sha256"
COMPARED_TAG = "tilewatch.compared"
ROOT = Path(__file__).resolve().parents[1]


class NoChampion(LookupError):
    """There is no detector to score with."""


class AnotherChampion(RuntimeError):
    """The champion is no longer the one that the challenger was compared with."""


@dataclass(frozen=True)
class ModelRow:
    """A version of the registry, for a table.

    Attributes:
        version: E.g. "v3".
        aliases: Those that it has: champion, challenger.
        made: When it was registered, UTC.
        reason: Why it was made.
        promoted: When it last became the champion, UTC; None when it never was.
        promoted_why: Why.
        instead_of: Which version it then took the place of.
        compared: What the last comparison with a champion gave, by name; empty without one.
        run_id: The MLflow run that made it.
    """

    version: str
    aliases: tuple[str, ...]
    made: str
    reason: str
    promoted: str | None
    promoted_why: str
    instead_of: str
    compared: Mapping[str, Any]
    run_id: str


def register(
    detector: Detector, settings: Settings, reason: str, alias: Literal["champion", "challenger"] = "champion"
) -> str:
    """Log a detector to the active run as an MLflow model, and give it an alias.

    Args:
        detector: What is registered.
        settings: Name the model.
        reason: Why it was made; kept with it.
        alias: As the champion it scores from now on; as the challenger it changes nothing yet.

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
    if alias == CHAMPION:
        move(client, settings, version.version, champion_version(client, settings), reason or "registered")
    else:
        client.set_registered_model_alias(settings.name, CHALLENGER, version.version)
    return f"v{version.version}"


def promote(
    settings: Settings, workspace: Workspace, version: str, reason: str, instead_of: str | None = None
) -> Move | None:
    """Make a version the champion. Its files are checked first, so that a broken one never becomes it.

    Args:
        settings: Name the model and the registry.
        workspace: Takes a copy of the detector.
        version: `challenger`, or a version such as "v3" or "3".
        reason: Why; kept with the version.
        instead_of: Only if this one is still the champion; '' if there is none. None: whichever it is.

    Returns:
        The move; None when the version is the champion already.

    Raises:
        NoChampion: There is no such version.
        DetectorError: Its files are not those that were registered.
        AnotherChampion: The champion is not `instead_of`.
    """
    _, version = registered(settings, workspace, version)
    client = mlflow.MlflowClient()
    before = champion_version(client, settings)
    if instead_of is not None and named(before) != instead_of:
        raise AnotherChampion(
            f"{named(before) or 'no version'} is the champion of {settings.name} now, not {instead_of or 'none'}, so "
            f"that {version} was not promoted: see `tilewatch models list`, and promote the one you want"
        )
    if named(before) == version:
        drop_challenger(client, settings, version.removeprefix("v"))
        return None
    return move(client, settings, version.removeprefix("v"), before, reason)


def rollback(settings: Settings, workspace: Workspace, reason: str = "") -> Move:
    """Put back the champion before this one. Done again, it goes back further.

    Returns:
        The move.

    Raises:
        NoChampion: There is no champion, or none before it is known.
        DetectorError: The files of the earlier one are not those that were registered.
    """
    now = _version(settings, workspace, CHAMPION)
    made = [one for one in moves_to(now.tags) if not one.back]
    before = made[-1].instead_of if made else ""
    if not before:
        raise NoChampion(
            f"it is not known which version was the champion of {settings.name} before v{now.version}: choose one of "
            "`tilewatch models list`, and promote it"
        )
    registered(settings, workspace, before)
    client = mlflow.MlflowClient()
    why = reason or f"back from v{now.version}"
    return move(client, settings, before.removeprefix("v"), now.version, why, back=True)


def listed(settings: Settings, workspace: Workspace) -> list[ModelRow]:
    """All versions, the newest first, with what became of each."""
    tracking.connect(settings, workspace)
    client = mlflow.MlflowClient()
    aliases: dict[str, list[str]] = {}
    for one in client.search_registered_models(f"name = '{settings.name}'"):
        for alias, number in one.aliases.items():
            aliases.setdefault(str(number), []).append(alias)
    versions = client.search_model_versions(f"name = '{settings.name}'")
    everything = {version.version: moves_to(version.tags) for version in versions}
    # What was never the champion afterwards, and nobody's predecessor, was written down by a run that was killed.
    happened = {one.instead_of for moves in everything.values() for one in moves}
    happened |= {named(number) for number, names in aliases.items() if CHAMPION in names}
    rows = []
    for version in sorted(versions, key=lambda one: -int(one.version)):
        moves = everything[version.version] if named(version.version) in happened else []
        last = moves[-1] if moves else None
        made = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
        rows.append(
            ModelRow(
                version=named(version.version),
                aliases=tuple(sorted(aliases.get(str(version.version), []))),
                made=made,
                reason=version.tags.get("reason", ""),
                promoted=last.at if last else None,
                promoted_why=last.why if last else "",
                instead_of=last.instead_of if last else "",
                compared=json.loads(version.tags.get(COMPARED_TAG, "{}")),
                run_id=version.run_id or "",
            )
        )
    return rows


def keep_comparison(settings: Settings, version: str, found: Mapping[str, Any]) -> None:
    """Keep what a comparison gave with the version that was the challenger; MLflow is connected already."""
    kept = {name: value[:LONGEST_WORDS] if isinstance(value, str) else value for name, value in found.items()}
    number = version.removeprefix("v")
    mlflow.MlflowClient().set_model_version_tag(settings.name, number, COMPARED_TAG, json.dumps(kept))


def champion(settings: Settings, workspace: Workspace) -> tuple[Path, str]:
    """The folder of the champion, to be loaded with `Detector.load`, and its version, e.g. "v3".

    Its files are copied to the workspace once, and checked against their digest at every call. When MLflow does not
    answer, it is the champion of the last call at which it did.

    Raises:
        NoChampion: Nothing was trained yet.
        DetectorError: The files are not those that were registered.
        TrackingUnreachable: MLflow does not answer, and no champion is known from before.
    """
    try:
        folder, version = registered(settings, workspace, CHAMPION)
    except tracking.AWAY as error:
        known = last_known(settings, workspace)
        if known is None:
            raise
        folder = workspace.models / safe_name(settings.name) / known.version
        if not folder.is_dir() or _digest(folder) != known.sha256:
            raise
        log.warning("%s goes on as the last known champion: %s", known.version, str(error).strip().partition("\n")[0])
        return folder, known.version
    remember(LastKnown(version, _digest(folder)), settings, workspace)
    return folder, version


def registered(settings: Settings, workspace: Workspace, which: str) -> tuple[Path, str]:
    """The same of any version.

    Args:
        settings: Name the model and the registry.
        workspace: Takes the copy.
        which: `champion`, `challenger`, or a version such as "v3" or "3".

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
        if which in (CHAMPION, CHALLENGER):
            return client.get_model_version_by_alias(settings.name, which)
        return client.get_model_version(settings.name, which.removeprefix("v"))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise NoChampion(_not_there(settings, client, which)) from None


def _not_there(settings: Settings, client: mlflow.MlflowClient, which: str) -> str:
    found = client.search_model_versions(f"name = '{settings.name}'")
    versions = ", ".join(f"v{number}" for number in sorted(int(one.version) for one in found))
    words = f"there is no {which if which in (CHAMPION, CHALLENGER) else 'version ' + which} of {settings.name} in "
    return f"{words}{mlflow.get_tracking_uri()}: " + (
        f"there are {versions}" if versions else "run `tilewatch train` first"
    )


def _digest(folder: Path) -> str:
    """A digest of the names and contents of the files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

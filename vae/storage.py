"""A detector on disk: `detector.json`, and beside it one safetensors file that it names by content.

Loading reads numbers and JSON, and never runs anything. The JSON is replaced last, so a kill at any moment leaves the
old detector or the new one.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from configs.schema import ModelSettings, ScoreSettings
from configs.workspace import write_bytes
from vae import detector as detectors
from vae.calibration import Calibration
from vae.digests import canonical_json, sha256
from vae.drift import Profile
from vae.errors import DetectorError, VaeError
from vae.model import ConvVAE, build
from vae.normalisation import Normalisation
from vae.training import choose_device

if TYPE_CHECKING:
    from vae.detector import Detector

log = logging.getLogger(__name__)

FORMAT = 2
DESCRIPTION = "detector.json"


def save_detector(detector: Detector, folder: Path) -> None:
    """Write a detector; the same detector gives the same bytes."""
    tensors: dict[str, torch.Tensor] = {}
    for number, network in enumerate(detector.networks):
        tensors |= {f"network/{number}/{name}": part.cpu().contiguous() for name, part in network.state_dict().items()}
    for name, members in detector.constants.items():
        for number, parts in enumerate(members):
            tensors |= {f"constants/{name}/{number}/{key}": part.contiguous() for key, part in parts.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "normalisation": detector.normalisation.to_dict(),
        "model": detector.model.model_dump(mode="json"),
        "score": detector.score_settings.model_dump(mode="json"),
        "tile_size": detector.tile_size,
        "seed": detector.seed,
        "visible": list(detector.visible),
        "calibrations": {},
        "profile": None,
        "metadata": dict(detector.metadata),
    }
    for name, made in detector.calibrations.items():
        about["calibrations"][name] = {**made.to_dict(), "calibration_id": made.calibration_id}
        arrays = made.arrays()
        tensors |= {f"calibration/{name}/{key}": torch.from_numpy(array.copy()) for key, array in arrays.items()}
    if detector.profile is not None:
        about["profile"], arrays = detector.profile.to_arrays()
        tensors |= {f"profile/{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}

    weights = save(tensors)
    digest = sha256(weights)
    about["weights"] = {"file": f"weights-{digest[:12]}.safetensors", "sha256": digest}
    about["checksum"] = sha256(canonical_json(about))
    write_bytes(folder / about["weights"]["file"], weights)
    write_bytes(folder / DESCRIPTION, canonical_json(about))
    for left_over in folder.glob("weights-*.safetensors"):
        if left_over.name != about["weights"]["file"]:
            left_over.unlink()


def load_detector(folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Detector:
    """Read a detector.

    Args:
        folder: Where it was saved.
        device: `auto` is the device of its calibration, and without one the GPU when there is one.

    Raises:
        DetectorError: Missing, incomplete, altered or too new files, or a calibration made by another runtime.
    """
    about = _read_description(folder)
    try:
        name = about["weights"]["file"]
        if Path(name).name != name:
            raise DetectorError(f"the detector in {folder} names a weights file outside its own folder: {name}")
        content = (folder / name).read_bytes()
        if sha256(content) != about["weights"]["sha256"]:
            raise DetectorError(
                f"{folder / name} is not what {DESCRIPTION} describes (its sha256 differs): "
                "it is incomplete or was altered, so fetch or train the detector again"
            )
        tensors = load(content)
        made = {
            name: _calibration(found, _group(tensors, f"calibration/{name}"))
            for name, found in about["calibrations"].items()
        }
        devices = {calibration.runtime["device"] for calibration in made.values()}
        where = choose_device(devices.pop() if device == "auto" and devices else device)  # type: ignore[arg-type]
        for calibration in made.values():
            _check_runtime(calibration, detectors.runtime_of(where))
        normalisation = Normalisation.from_dict(about["normalisation"])
        model = ModelSettings(**about["model"])
        profile = about["profile"]
        return detectors.Detector(
            networks=tuple(
                _network(_group(tensors, f"network/{number}"), len(normalisation.bands), model).to(where)
                for number in range(model.members)
            ),
            normalisation=normalisation,
            model=model,
            score_settings=ScoreSettings(**about["score"]),
            tile_size=about["tile_size"],
            seed=about["seed"],
            constants=_constants(tensors),
            visible=tuple(about["visible"]),
            calibrations=made,
            profile=None if profile is None else Profile.from_arrays(profile, _arrays(_group(tensors, "profile"))),
            metadata=about["metadata"],
        )
    except DetectorError:
        raise
    except (
        VaeError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        ValidationError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise DetectorError(f"the detector in {folder} cannot be loaded: {error}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        about = json.loads(path.read_bytes())
    except OSError as error:
        raise DetectorError(f"there is no detector in {folder}: {DESCRIPTION} cannot be read ({error})") from error
    except ValueError as error:
        raise DetectorError(f"{path} is not JSON ({error}): it is incomplete or was altered") from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise DetectorError(f"{path} does not describe a detector: it names no format")
    if about["format"] < FORMAT:
        raise DetectorError(f"{path} has format {about['format']}, this version reads format {FORMAT}: train again")
    if about["format"] > FORMAT:
        raise DetectorError(
            f"{path} has format {about['format']}, this version reads up to {FORMAT}: update tilewatch, or train again"
        )
    stated = about.pop("checksum", None)
    if stated != sha256(canonical_json(about)):
        raise DetectorError(
            f"{path} was altered or is incomplete (its checksum differs): fetch or train the detector again"
        )
    return about


def _network(weights: dict[str, torch.Tensor], bands: int, model: ModelSettings) -> ConvVAE:
    network = build(bands, model, seed=0)
    network.load_state_dict(weights)
    return network


def _constants(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[dict[str, torch.Tensor], ...]]:
    """What the scores learned: by score, for each network."""
    found: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    for name, tensor in _group(tensors, "constants").items():
        score, number, key = name.split("/", 2)
        found.setdefault(score, {}).setdefault(int(number), {})[key] = tensor
    return {score: tuple(members[number] for number in sorted(members)) for score, members in found.items()}


def _calibration(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Calibration:
    made = Calibration.from_dict(about, _arrays(tensors))
    if made.calibration_id != about["calibration_id"]:
        raise DetectorError("the detector's calibration is not the one it names: calibrate again")
    return made


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.numpy()) for name, tensor in tensors.items()}


def _check_runtime(made: Calibration, here: dict[str, str]) -> None:
    differing = [key for key in ("backend", "device", "dtype") if made.runtime.get(key) != here[key]]
    if differing:
        raise DetectorError(
            "the detector was calibrated with "
            + ", ".join(f"{key} {made.runtime.get(key)}" for key in differing)
            + " and would run with "
            + ", ".join(f"{key} {here[key]}" for key in differing)
            + ": its threshold would not hold, so calibrate again here"
        )
    if made.runtime.get("torch") != here["torch"]:
        log.warning("the detector was calibrated with torch %s, this is %s", made.runtime.get("torch"), here["torch"])


def _group(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of a folder, by their names in it."""
    return {key.removeprefix(f"{name}/"): part for key, part in tensors.items() if key.startswith(f"{name}/")}

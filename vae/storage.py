"""A detector on disk: `detector.json`, and beside it one safetensors file that it names by content.

Reading reads numbers and JSON, and never runs anything. The JSON is replaced last, so a kill at any moment leaves the
old detector or the new one. What the numbers mean, the detector knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from configs.workspace import write_bytes
from vae.digests import canonical_json, sha256
from vae.errors import DetectorError
from vae.older import OLDEST

FORMAT = 3
DESCRIPTION = "detector.json"


def write_bundle(folder: Path, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a description and tensors; the same content gives the same bytes."""
    weights = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    digest = sha256(weights)
    content: dict[str, Any] = {"format": FORMAT, **about}
    content["weights"] = {"file": f"weights-{digest[:12]}.safetensors", "sha256": digest}
    content["checksum"] = sha256(canonical_json(content))
    write_bytes(folder / content["weights"]["file"], weights)
    write_bytes(folder / DESCRIPTION, canonical_json(content))
    for left_over in folder.glob("weights-*.safetensors"):
        if left_over.name != content["weights"]["file"]:
            left_over.unlink()


def read_bundle(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read what `write_bundle` wrote, both files checked by their digests.

    Raises:
        DetectorError: Missing, incomplete, altered, older or newer files.
    """
    about = _read_description(folder)
    try:
        name, digest = about["weights"]["file"], about["weights"]["sha256"]
        if Path(name).name != name:
            raise DetectorError(f"the detector in {folder} names a weights file outside its own folder: {name}")
        content = (folder / name).read_bytes()
        if sha256(content) != digest:
            raise DetectorError(
                f"{folder / name} is not what {DESCRIPTION} describes (its sha256 differs): "
                "it is incomplete or was altered, so fetch or train the detector again"
            )
        return about, load(content)
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise DetectorError(f"the detector in {folder} cannot be loaded: {error}") from error


def group(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of a folder, by their names in it."""
    return {key.removeprefix(f"{name}/"): part for key, part in tensors.items() if key.startswith(f"{name}/")}


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
    if about["format"] < OLDEST:
        raise DetectorError(
            f"{path} has format {about['format']}, this version reads {OLDEST} to {FORMAT}: train again"
        )
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

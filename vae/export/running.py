"""An exported detector, run by onnxruntime or OpenVINO."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vae.backend import BATCH
from vae.conditions import Conditions
from vae.digests import canonical_json, sha256
from vae.errors import ExportError
from vae.scores import SceneStats
from vae.tile_scores import PastTiles
from vae.usable import check_shapes

EXPORT_FORMAT = 1
DESCRIPTION = "export.json"

Compiled = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]  # inputs by name to outputs by name


class ExportedScorer:
    """Raw scores from the files of an export; which tiles get one, and what they mean, the detector says.

    Args:
        folder: Where it was exported to.
        threads: Of the runtime; 0: as many as it likes.

    Raises:
        ExportError: Missing, incomplete, altered or newer files, or a runtime that is not installed.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.about = read_description(folder)
        self.graphs: dict[str, Compiled] = {}
        for name, graph in self.about["graphs"].items():
            if graph["opens"] not in graph["files"]:
                raise ExportError(f"the export in {folder} opens {graph['opens']!r}, which is none of its own files")
            for file, digest in graph["files"].items():
                _check_file(folder, file, digest)
            outputs = [port["name"] for port in graph["outputs"]]
            self.graphs[name] = compiled(
                folder / graph["opens"], self.about["runtime"], outputs, self.about["precision"], threads
            )

    def run(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        past: PastTiles | None = None,
        scene: SceneStats | None = None,
        conditions: Conditions | None = None,
    ) -> dict[str, np.ndarray]:
        """All outputs for N tiles by name, as `export.json` lists them, those of the past where there is one.

        Args:
            values: (N, C, H, W) float32, physical units.
            valid: (N, H, W) bool.
            past: What their past lets expect.
            scene: Of the whole scene; without it, that of normal tiles.
            conditions: What the networks are told; what is not given is unknown to them.

        Raises:
            ShapeError: Arrays that do not fit the detector or each other.
            ExportError: The scene is asked for, and no normal one is known.
        """
        bands, side = self.about["bands"], self.about["tile_size"]
        check_shapes(values, valid, past, bands, side)
        told = Conditions.unknown(len(values), self.about["model"]["condition"], len(bands), side)
        if conditions is not None:
            conditions.check(len(values), len(bands), side)
            told.put(slice(None), conditions)
        given = {"values": values, "valid": valid, **_past(past, values), **vars(told)}
        found = self._batches("alone", given, scene)
        return found if past is None or "past" not in self.graphs else found | self._batches("past", given, scene)

    def _batches(self, name: str, given: Mapping[str, Any], scene: SceneStats | None) -> dict[str, np.ndarray]:
        ports = self.about["graphs"][name]["inputs"]
        whole = self._scene(scene) if any(port["name"] == "scene_mean" for port in ports) else {}
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, max(len(given["values"]), 1), BATCH):
            rows = slice(start, start + BATCH)
            batch = {
                port["name"]: np.ascontiguousarray(
                    whole[port["name"]] if port["name"] in whole else given[port["name"]][rows], dtype=port["dtype"]
                )
                for port in ports
            }
            for output, part in self.graphs[name](batch).items():
                found.setdefault(output, []).append(part)
        return {output: np.concatenate(parts) for output, parts in found.items()}

    def _scene(self, scene: SceneStats | None) -> dict[str, np.ndarray]:
        if scene is not None:
            return {"scene_mean": scene.mean.cpu().numpy(), "scene_precision": scene.precision.cpu().numpy()}
        usual = self.about["usual_scene"]
        if usual is None:
            raise ExportError("the detector has learned of no normal scene: give the scene that the tiles are of")
        return {"scene_mean": np.asarray(usual["mean"]), "scene_precision": np.asarray(usual["precision"])}


def read_description(folder: Path) -> dict[str, Any]:
    """What `export.json` says.

    Raises:
        ExportError: It is missing, incomplete, altered, or of a newer version.
    """
    path = folder / DESCRIPTION
    try:
        about = json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(
            f"there is no exported detector in {folder}: {DESCRIPTION} cannot be read ({error})"
        ) from error
    except ValueError as error:
        raise ExportError(f"{path} is not JSON ({error}): it is incomplete or was altered") from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise ExportError(f"{path} does not describe an exported detector: it names no format")
    if about["format"] != EXPORT_FORMAT:
        raise ExportError(
            f"{path} has format {about['format']}, this version reads format {EXPORT_FORMAT}: "
            "export the detector again with this version"
        )
    if about.pop("checksum", None) != sha256(canonical_json(about)):
        raise ExportError(f"{path} was altered or is incomplete (its checksum differs): export the detector again")
    return about


def compiled(
    path: Path, runtime: str, outputs: Sequence[str], precision: str = "float32", threads: int = 0
) -> Compiled:
    """A file as a function from inputs to outputs by name, on the CPU.

    Args:
        path: `.onnx`, or `.xml` with its `.bin` beside it.
        runtime: `onnx` or `openvino`, which reads either kind.
        outputs: Their names, in order; OpenVINO may have others for the same tensors.
        precision: `float32`, or `bf16` for OpenVINO.
        threads: 0: as many as the runtime likes.

    Raises:
        ExportError: The runtime is not installed, or cannot read the file.
    """
    library = {"onnx": "onnxruntime", "openvino": "openvino"}[runtime]
    try:
        module = import_module(library)
    except ImportError as error:
        raise ExportError(f"{library} is needed to run this export: pip install 'tilewatch[export]'") from error
    try:
        if runtime == "onnx":
            return _onnx(module, path, outputs, threads)
        return _openvino(module, path, outputs, precision, threads)
    except Exception as error:  # each runtime raises its own
        raise ExportError(f"{library} cannot read {path}: {error}") from error


def differences(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the largest value; infinite where one is NaN and the other is not."""
    if not np.array_equal(np.isnan(found), np.isnan(wanted)):
        return float("inf")
    known = ~np.isnan(wanted)
    if not known.any():
        return 0.0
    largest = float(np.abs(wanted[known]).max())
    return float(np.abs(found[known] - wanted[known]).max()) / (largest or 1.0)


def _onnx(onnxruntime: Any, path: Path, outputs: Sequence[str], threads: int) -> Compiled:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: dict(zip(outputs, session.run(None, dict(given)), strict=True))


def _openvino(openvino: Any, path: Path, outputs: Sequence[str], precision: str, threads: int) -> Compiled:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision]}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    model = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda given: {name: np.array(part) for name, part in zip(outputs, model(dict(given)).values(), strict=True)}


def _past(past: PastTiles | None, values: np.ndarray) -> dict[str, np.ndarray]:
    """The past as inputs; without a witness none of it is valid."""
    if past is None:
        return {}
    given = {"past_values": past.values, "past_valid": past.valid}
    if past.witness is None or past.witness_expected is None or past.witness_valid is None:
        nothing = np.zeros_like(values)
        return given | {
            "witness": nothing,
            "witness_expected": nothing,
            "witness_valid": np.zeros_like(past.valid, dtype=bool),
        }
    return given | {
        "witness": past.witness,
        "witness_expected": past.witness_expected,
        "witness_valid": past.witness_valid,
    }


def _check_file(folder: Path, name: str, digest: str) -> None:
    if Path(name).name != name:
        raise ExportError(f"the export in {folder} names a file outside its own folder: {name}")
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ExportError(f"the export in {folder} is incomplete: {name} cannot be read ({error})") from error
    if sha256(content) != digest:
        raise ExportError(
            f"{folder / name} is not what {DESCRIPTION} describes (its sha256 differs): it is incomplete or was "
            "altered, so export the detector again"
        )

"""A detector as ONNX or OpenVINO: tiles in physical units in, raw scores out, on machines without torch.

There are two graphs, since scores of change have more inputs: `alone` is of tiles looked at by themselves, `past` of
tiles beside what their past lets expect. Both hold the normalisation and work the scores out by the functions of the
registry, as `Detector.score` does. What is not in them: which tiles get a score at all (`score.min_valid`,
`score.min_past`), and what becomes of the raw scores of a scene, which `Detector.judge` alone knows.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from vae import scores
from vae.detector import Detector
from vae.digests import canonical_json, sha256
from vae.errors import ExportError
from vae.export.graph import Graph, sample
from vae.export.running import DESCRIPTION, EXPORT_FORMAT, Compiled, compiled, differences
from vae.working_out import can_work_out

Target = Literal["onnx", "openvino"]
Precision = Literal["float32", "bf16"]

BESIDE = ("reconstruction", "squared_error", "nll")  # worked out beside the detector's own scores: they cost nothing
LEFT_OUT = {
    "complexity_corrected": "it packs each tile with zlib",
    "latent_knn": "ONNX has no operator for its distances",
    "likelihood_regret": "it trains the latent of each tile",
    "reconstruction_probability": "it draws from the posterior",
    "reconstruction_uncertainty": "it draws from the posterior",
}
TOLERANCE = {"float32": 1e-4, "bf16": 0.1}  # of the largest value of an output
TRACED, CHECKED = 2, 6  # tiles that a graph is traced with, and that its file is compared with torch on
FORMULA = "clip((f(x) - offset) / scale, ±clip); f is log(max(x, 1e-4) + log_offset) with log, else x"
LIBRARIES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


def export(
    detector: Detector,
    folder: Path,
    to: Target,
    precision: Precision = "float32",
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a detector as files of another runtime, compared with torch before they are put in place.

    Args:
        detector: What to write.
        folder: Made, or an earlier export that is replaced as a whole.
        to: The runtime.
        precision: Of the arithmetic. bf16 is for OpenVINO, which rounds as it runs.
        source: Where the detector comes from, kept in the description; JSON.

    Returns:
        The description, as in `export.json`.

    Raises:
        ExportError: A library is missing, the folder holds something else, a part cannot be exported, or its scores
            are not those of torch.
    """
    _check(to, precision, folder)
    alone, past, left_out = chosen(detector)
    graphs = {"alone": Graph(detector, alone, looks_back=False)}
    if past:
        graphs["past"] = Graph(detector, past, looks_back=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
        whole = Path(beside) / "whole"
        whole.mkdir()
        written = {name: _written(graph, whole, name, to, precision) for name, graph in graphs.items()}
        about = {
            "format": EXPORT_FORMAT,
            "runtime": to,
            "precision": precision,
            "graphs": written,
            "left_out": left_out,
            "versions": {library: version(library) for library in ("torch", *LIBRARIES[to])},
            **_described(detector, source or {}),
        }
        about["checksum"] = sha256(canonical_json(about))
        (whole / DESCRIPTION).write_bytes(canonical_json(about))
        shutil.rmtree(folder, ignore_errors=True)
        whole.rename(folder)
    return about


def chosen(detector: Detector) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """The scores of the detector that look at tiles alone, those that look back, and why others are left out."""
    names = dict.fromkeys((*detector.names, *(BESIDE if detector.networks else ())))
    left_out = {name: LEFT_OUT[name] for name in names if name in LEFT_OUT}
    left_out |= {
        name: "it has not learned what is usual, since there was no past"
        for name in names
        if not can_work_out(name, detector.constants, past=True)
    }
    kept = [name for name in names if name not in left_out]
    past = tuple(name for name in kept if "past" in scores.find(name).needs)
    return tuple(name for name in kept if name not in past), past, left_out


def onnx_bytes(graph: Graph, identity: str) -> bytes:
    """A graph as an ONNX file, any number of tiles; the same graph gives the same bytes.

    Raises:
        ExportError: torch cannot write it.
    """
    onnx = import_module("onnx")
    tiles = torch.export.Dim.DYNAMIC
    shapes = tuple({0: tiles} if port.per_tile else None for port in graph.inputs)
    given = sample(graph, TRACED)
    with torch.no_grad(), _quiet():
        names = list(graph.named(*given))  # first as it is, so that what is wrong with the detector is said plainly
        try:
            program = torch.onnx.export(
                graph,
                given,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=[port.name for port in graph.inputs],
                output_names=names,
                dynamic_shapes=(shapes,),
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"torch cannot write the scores {', '.join(graph.names)} as ONNX: {error}") from error
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]  # paths of this machine
        part.doc_string = ""
    del model.graph.value_info[:], model.metadata_props[:]
    onnx.helper.set_model_props(model, {"tilewatch.detector": identity, "tilewatch.scores": ",".join(graph.names)})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def parity(graph: Graph, run: Compiled, tiles: int = CHECKED) -> dict[str, float]:
    """How far what a file gives is from what torch gives, for each output, as a share of its largest value."""
    given = sample(graph, tiles)
    with torch.no_grad():
        wanted = {name: part.numpy() for name, part in graph.named(*given).items()}
    found = run({port.name: part.numpy() for port, part in zip(graph.inputs, given, strict=True)})
    return {name: differences(found[name], wanted[name]) for name in wanted}


def _written(graph: Graph, folder: Path, name: str, to: Target, precision: Precision) -> dict[str, Any]:
    """Write one graph and compare it with torch; what the description says of it."""
    content = onnx_bytes(graph, graph.identity)
    paths = [folder / f"{name}.onnx"]
    if to == "onnx":
        paths[0].write_bytes(content)
    else:
        paths = [folder / f"{name}.xml", folder / f"{name}.bin"]
        openvino = import_module("openvino")
        openvino.save_model(openvino.Core().read_model(content), paths[0], compress_to_fp16=False)
    with torch.no_grad():
        outputs = graph.named(*sample(graph, TRACED))
    found = parity(graph, compiled(paths[0], to, list(outputs), precision))
    worst = max(found, key=lambda output: found[output])
    if not found[worst] <= TOLERANCE[precision]:
        raise ExportError(
            f"{worst} of {name} differs from that of torch by {found[worst]:.2g} of its largest value, "
            f"{TOLERANCE[precision]:g} is allowed in {precision}: nothing was written. Use another --to or --precision"
        )
    return {
        "opens": paths[0].name,
        "files": {path.name: sha256(path.read_bytes()) for path in paths},
        "scores": list(graph.names),
        "inputs": [port.described() for port in graph.inputs],
        "outputs": [_output(output, part) for output, part in outputs.items()],
        "parity": {output: float(f"{share:.2g}") for output, share in found.items()},
    }


def _output(name: str, part: Tensor) -> dict[str, Any]:
    return {"name": name, "dtype": str(part.dtype).removeprefix("torch."), "shape": ["N", *part.shape[1:]]}


def _described(detector: Detector, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a user of the files has to know of the detector."""
    settings, normalisation = detector.score_settings, detector.normalisation
    spectra = (detector.constants[name][0] for name in detector.names if _has_spectra(detector, name))
    usual = next(spectra, None)
    return {
        "detector": {"identity": detector.identity, "calibration_id": detector.calibration_id, **source},
        "metadata": dict(detector.metadata),
        "bands": list(detector.bands),
        "visible": [detector.bands[channel] for channel in detector.visible],
        "units": "physical, as the scenes are read: reflectance from 0 to 1 unless the source says otherwise",
        "normalisation": {**normalisation.to_dict(), "formula": FORMULA},
        "sigma": [float(one) for one in detector.sigma] if detector.networks else None,
        "tile_size": detector.tile_size,
        "model": detector.model.model_dump(mode="json"),
        "places": list(detector.places),
        "sensors": list(detector.sensors),
        "score": settings.model_dump(mode="json"),
        "usual_scene": None if usual is None else {key: part.tolist() for key, part in sorted(usual.items())},
        "calibrations": {
            name: {
                "threshold": made.threshold,
                "of": "the raw score less `least`, as a multiple of what is usual at its place on that night",
                "false_alarm_rate": made.false_alarm_rate,
                "least": made.least,
                "basis": made.basis,
                "dates": list(made.dates),
                "tiles": made.tiles,
                "settings": made.settings.model_dump(mode="json"),
                "runtime": dict(made.runtime),
            }
            for name, made in sorted(detector.calibrations.items())
        },
    }


def _has_spectra(detector: Detector, name: str) -> bool:
    return "scene" in scores.find(name).needs and name in detector.constants


def _check(to: Target, precision: Precision, folder: Path) -> None:
    for library in LIBRARIES[to]:
        try:
            import_module(library)
        except ImportError as error:
            raise ExportError(f"{library} is needed to export to {to}: pip install 'tilewatch[export]'") from error
    if to == "onnx" and precision == "bf16":
        raise ExportError("onnxruntime has no bf16 convolution on a CPU: export float32, or bf16 to openvino")
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} holds something that is no export: choose another folder")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of libraries that are not there and of itself."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registry.setLevel(level)

"""Exported detectors: the same scores in onnxruntime and OpenVINO as in torch, and no file is trusted unread."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, ScoreSettings
from tests.vae.conftest import clouded, make_detector, make_normalisation, make_past, make_tiles
from tests.vae.test_detector import NO_NETWORK, calibrated
from vae.conditions import Conditions
from vae.detector import Detector, NormalTiles
from vae.digests import canonical_json, sha256
from vae.errors import ExportError, ShapeError
from vae.export.graph import Graph, sample
from vae.export.running import DESCRIPTION, ExportedScorer, compiled, differences
from vae.export.writing import CHECKED, LEFT_OUT, TOLERANCE, chosen, export, onnx_bytes
from vae.networks import build
from vae.scores import SCORES

SIDE = 8
TINY = {"width": 4, "depth": 2, "latent_channels": 2, "levels": 2, "flow_steps": 2, "codes": 8}
POSTERIORS = ("gaussian", "hierarchical", "flow", "quantised")
LIKELIHOODS = ("gaussian", "gaussian_shared", "gaussian_learned", "heteroscedastic", "bernoulli", "student_t")


def families() -> Iterator[object]:
    """Every posterior with every likelihood, shapes of the latent and trunks in turn; a third of them in haste too."""
    for (row, posterior), (column, likelihood) in product(enumerate(POSTERIORS), enumerate(LIKELIHOODS)):
        vector = column > 2 and posterior in ("gaussian", "flow")
        chosen = {
            "posterior": posterior,
            "likelihood": likelihood,
            "latent": "vector" if vector else "map",
            "network": ("convolutional", "residual")[row % 2],
        }
        settings = ModelSettings(**TINY | {"depth": 2 if posterior == "hierarchical" else 1}, **chosen)
        marks = () if column % 3 == row % 3 else (pytest.mark.slow,)
        yield pytest.param(settings, id="-".join(chosen.values()), marks=marks)


def of_model(settings: ModelSettings, bands: int = 2, **scoring: object) -> Detector:
    """An untrained detector none of whose weights is zero, so that no part of it is left out of the sum."""
    networks = []
    for member in range(settings.members):
        network = build(bands, settings, member)
        source = torch.Generator().manual_seed(member)
        with torch.no_grad():
            for part in network.parameters():
                part.add_(0.1 * torch.randn(part.shape, generator=source))
            network.sigma.fill_(0.3)
        networks.append(network)
    chosen = {
        "name": "reconstruction",
        "without_past": "reconstruction",
        "also": ("nll", "kl"),
        "min_valid": 0.0,
        "min_past": 0.0,
    } | scoring
    return Detector(tuple(networks), make_normalisation(bands), settings, ScoreSettings(**chosen), SIDE)


def in_openvino(folder: Path) -> ExportedScorer:
    """An ONNX export, read and run by OpenVINO."""
    scorer = ExportedScorer(folder, threads=1)
    for name, graph in scorer.about["graphs"].items():
        outputs = [port["name"] for port in graph["outputs"]]
        scorer.graphs[name] = compiled(folder / f"{name}.onnx", "openvino", outputs, threads=1)
    return scorer


def assert_like(found: np.ndarray, wanted: np.ndarray, tolerance: float = TOLERANCE["float32"]) -> None:
    assert differences(np.asarray(found), np.asarray(wanted, dtype=np.float32)) <= tolerance


@pytest.mark.parametrize("settings", list(families()))
def test_every_family_scores_the_same_in_onnxruntime_and_openvino_as_in_torch(tmp_path, settings):
    detector, tiles = of_model(settings, pool="mean"), make_tiles(5, bands=2, side=SIDE, seed=3)
    assert np.isnan(tiles.values).any()
    graph = Graph(detector, ("reconstruction", "nll", "kl"), looks_back=False)
    (tmp_path / "alone.onnx").write_bytes(onnx_bytes(graph, detector.identity))
    outputs = list(graph.named(*sample(graph, 2)))

    torch_says = detector.score(tiles.values, tiles.valid)
    for runtime in ("onnx", "openvino"):
        run = compiled(tmp_path / "alone.onnx", runtime, outputs, threads=1)
        found = run({"values": tiles.values, "valid": tiles.valid})
        for name in ("reconstruction", "nll", "kl"):
            assert_like(found[f"score_{name}"], torch_says.components[name])
        assert_like(found["heatmap_reconstruction"], torch_says.heatmap)
        assert_like(found["mu"].reshape(5, -1), torch_says.latent)
        assert_like(found["expected"], detector.expected(tiles.values, tiles.valid))
        assert ("log_scale" in found) == (settings.likelihood == "heteroscedastic")
        assert found["kl"].shape[0] == 5


@pytest.mark.parametrize("bands", [2, 3, 4, 6, 13])
def test_any_number_of_bands_is_exported(tmp_path, bands):
    detector, tiles = of_model(ModelSettings(**TINY), bands), make_tiles(4, bands, SIDE)
    export(detector, tmp_path / "out", "onnx")
    wanted = detector.score(tiles.values, tiles.valid)
    for scorer in (ExportedScorer(tmp_path / "out", threads=1), in_openvino(tmp_path / "out")):
        assert_like(scorer.run(tiles.values, tiles.valid)["score_nll"], wanted.components["nll"])


@pytest.fixture(scope="module")
def default(tmp_path_factory) -> tuple[Detector, Path]:
    """Two networks with the default scores: change where there is a past, novelty where there is none."""
    detector = make_detector(members=2, also=("reconstruction",), min_valid=0.0, min_past=0.0)
    folder = tmp_path_factory.mktemp("default") / "out"
    export(detector, folder, "onnx")
    return detector, folder


@pytest.mark.slow
@pytest.mark.parametrize("witness", [True, False], ids=["with a witness", "without one"])
def test_change_and_novelty_score_as_in_the_product(default, witness):
    detector, folder = default
    tiles = make_tiles(5, seed=3)
    past = make_past(tiles, witness=witness)
    for scorer in (ExportedScorer(folder, threads=1), in_openvino(folder)):
        found = scorer.run(tiles.values, tiles.valid, past)
        scored = detector.score(tiles.values, tiles.valid, past=past)
        alone = detector.score(tiles.values, tiles.valid)
        assert set(scored.kind) == {"change"}
        assert set(alone.kind) == {"novelty"}
        for name, wanted in (("change", scored), ("novelty", alone)):
            assert_like(found[f"score_{name}"], wanted.score)
            assert_like(found[f"heatmap_{name}"], wanted.heatmap)
        texture, bands = found["heatmap_change_texture"], found["heatmap_change_bands"]
        assert_like(texture + bands, scored.heatmap)
        assert (texture[np.isfinite(texture)] > 0).any()


@pytest.mark.slow
def test_the_scene_of_the_tiles_counts_for_novelty(default):
    detector, folder = default
    tiles = make_tiles(4)
    pixels = make_tiles(40, seed=9, masked=0).values.transpose(0, 2, 3, 1).reshape(-1, 3) * 1.3
    scene = detector.scene_stats(pixels)
    found = ExportedScorer(folder, threads=1).run(tiles.values, tiles.valid, scene=scene)
    assert_like(found["score_novelty"], detector.score(tiles.values, tiles.valid, scene=scene).score)
    assert differences(found["score_novelty"], detector.score(tiles.values, tiles.valid).score) > 1e-3


def test_a_network_that_is_told_things_is_told_them_in_the_export_too(tmp_path):
    told = ("season", "place", "sun", "sensor", "reference")
    detector = of_model(ModelSettings(**TINY, condition=told))
    tiles, count = make_tiles(5, bands=2, side=SIDE), 5
    reference = clouded(tiles.values, np.random.default_rng(3), 0.2)
    conditions = Conditions(
        season=np.linspace(0, 0.9, count, dtype=np.float32),
        place=np.array([0, 1, -1, 7, 2]),
        sun=np.array([[30, 100], [np.nan, np.nan], [60, 200], [45, 90], [10, 350]], np.float32),
        sensor=np.array([0, -1, 1, 1, 0]),
        reference=reference.values,
        reference_valid=reference.valid,
    )
    export(detector, tmp_path / "out", "onnx")
    wanted = detector.score(tiles.values, tiles.valid, conditions=conditions).score
    unknown = detector.score(tiles.values, tiles.valid).score
    assert differences(wanted, unknown) > 1e-3
    for scorer in (ExportedScorer(tmp_path / "out", threads=1), in_openvino(tmp_path / "out")):
        found = scorer.run(tiles.values, tiles.valid, conditions=conditions)
        assert_like(found["score_reconstruction"], wanted)
        assert_like(scorer.run(tiles.values, tiles.valid)["score_reconstruction"], unknown)
    with pytest.raises(ShapeError, match="season"):
        scorer.run(tiles.values, tiles.valid, conditions=replace(conditions, season=conditions.season[:2]))


@pytest.mark.slow
def test_every_registered_score_is_exported_or_left_out_with_a_reason(tmp_path):
    plain = sorted(name for name in SCORES if "condition" not in SCORES[name].needs)
    detector = make_detector(also=tuple(plain), min_valid=0.0, min_past=0.0)
    about = export(detector, tmp_path / "out", "onnx")
    exported = {name for graph in about["graphs"].values() for name in graph["scores"]}
    assert exported | set(about["left_out"]) == set(plain)
    assert about["left_out"] == LEFT_OUT
    tiles = make_tiles(5)
    past = make_past(tiles)
    wanted = detector.score(tiles.values, tiles.valid, past=past).components
    for scorer in (ExportedScorer(tmp_path / "out", threads=1), in_openvino(tmp_path / "out")):
        found = scorer.run(tiles.values, tiles.valid, past)
        for name in exported:
            assert_like(found[f"score_{name}"], wanted[name])


@pytest.mark.slow
def test_what_the_condition_lets_expect_is_exported(tmp_path):
    conditional = tuple(sorted(name for name in SCORES if "condition" in SCORES[name].needs))
    assert conditional
    detector = of_model(ModelSettings(**TINY, condition=("reference",)), also=conditional)
    tiles = make_tiles(5, bands=2, side=SIDE)
    past = make_past(tiles)
    conditions = Conditions(reference=past.values, reference_valid=past.valid)
    batches = [NormalTiles(tiles.values, tiles.valid, past, conditions)]
    detector = detector.with_constants(lambda: iter(batches))
    export(detector, tmp_path / "out", "onnx")
    found = ExportedScorer(tmp_path / "out", threads=1).run(tiles.values, tiles.valid, past, conditions=conditions)
    wanted = detector.score(tiles.values, tiles.valid, past=past, conditions=conditions).components
    for name in conditional:
        assert_like(found[f"score_{name}"], wanted[name])


@pytest.fixture(scope="module")
def without_network() -> Detector:
    """Quick to export."""
    return calibrated(members=0, min_valid=0.0, min_past=0.0, **NO_NETWORK)


@pytest.fixture(scope="module")
def exported(without_network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "out"
    export(without_network, folder, "onnx")
    return folder


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy to do harm to."""
    copy = tmp_path / "out"
    copy.mkdir()
    for path in exported.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_any_number_of_tiles_gives_the_same_scores(without_network, exported):
    tiles = make_tiles(70, seed=2)
    past = make_past(tiles)
    scorer = ExportedScorer(exported, threads=1)
    every = scorer.run(tiles.values, tiles.valid, past)
    wanted = without_network.score(tiles.values, tiles.valid, past=past)
    one = scorer.run(tiles.values[:1], tiles.valid[:1], past.rows(slice(0, 1)))
    for name, found in every.items():
        assert len(found) == 70
        assert_like(one[name], found[:1])
    for name in without_network.names:
        assert_like(every[f"score_{name}"], wanted.components[name])


def test_tiles_without_a_usable_pixel_have_no_score(exported):
    tiles = make_tiles(3)
    found = ExportedScorer(exported, threads=1).run(tiles.values, np.zeros_like(tiles.valid))
    assert np.isnan(found["score_rx"]).all()
    assert np.isnan(found["heatmap_rx"]).all()


def test_the_same_detector_gives_the_same_files_which_name_no_path_of_this_machine(without_network, exported, tmp_path):
    export(without_network, tmp_path / "again", "onnx")
    for path in exported.iterdir():
        content = path.read_bytes()
        assert (tmp_path / "again" / path.name).read_bytes() == content
        assert str(Path(__file__).parents[2]).encode() not in content


def test_the_description_tells_all_that_a_user_needs(without_network, exported):
    about = json.loads((exported / DESCRIPTION).read_text())
    assert about["bands"] == list(without_network.bands)
    assert about["normalisation"]["offset"] == list(without_network.normalisation.offset)
    assert about["tile_size"] == without_network.tile_size
    assert about["detector"]["identity"] == without_network.identity
    for name, made in without_network.calibrations.items():
        assert about["calibrations"][name]["threshold"] == made.threshold
    session = {port["name"]: port["shape"] for port in about["graphs"]["past"]["inputs"]}
    assert session == {
        "values": ["N", 3, 16, 16],
        "valid": ["N", 16, 16],
        "past_values": ["N", 3, 16, 16],
        "past_valid": ["N", 16, 16],
        "witness": ["N", 3, 16, 16],
        "witness_expected": ["N", 3, 16, 16],
        "witness_valid": ["N", 16, 16],
    }
    outputs = {port["name"] for graph in about["graphs"].values() for port in graph["outputs"]}
    assert outputs >= {f"score_{name}" for name in without_network.names}


def test_openvino_files_score_the_same_in_float32_and_nearly_so_in_bf16(tmp_path):
    detector, tiles = of_model(ModelSettings(**TINY)), make_tiles(6, bands=2, side=SIDE)
    wanted = detector.score(tiles.values, tiles.valid).score
    about = export(detector, tmp_path / "full", "openvino")
    assert set(about["graphs"]["alone"]["files"]) == {"alone.xml", "alone.bin"}
    assert_like(ExportedScorer(tmp_path / "full", 1).run(tiles.values, tiles.valid)["score_reconstruction"], wanted)
    export(detector, tmp_path / "half", "openvino", "bf16")
    found = ExportedScorer(tmp_path / "half", 1).run(tiles.values, tiles.valid)
    assert_like(found["score_reconstruction"], wanted, TOLERANCE["bf16"])


def rewrite(folder: Path, **changes: object) -> None:
    """Edit the description as someone would who also mends its checksum."""
    about = {**json.loads((folder / DESCRIPTION).read_text()), **changes}
    del about["checksum"]
    (folder / DESCRIPTION).write_bytes(canonical_json({**about, "checksum": sha256(canonical_json(about))}))


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_threshold(folder: Path) -> None:
    path = folder / DESCRIPTION
    path.write_text(path.read_text().replace('"threshold": ', '"threshold": 1'))


def outside(folder: Path) -> None:
    graphs = json.loads((folder / DESCRIPTION).read_text())["graphs"]
    graphs["alone"] |= {"files": {"../alone.onnx": "0"}, "opens": "../alone.onnx"}
    rewrite(folder, graphs=graphs)


def opens_another(folder: Path) -> None:
    graphs = json.loads((folder / DESCRIPTION).read_text())["graphs"]
    graphs["alone"]["opens"] = "../alone.onnx"
    rewrite(folder, graphs=graphs)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: changed(folder / "alone.onnx"), "sha256 differs"),
        (lambda folder: (folder / "past.onnx").write_bytes(b""), "sha256 differs"),
        (lambda folder: (folder / "past.onnx").unlink(), "is incomplete"),
        (other_threshold, "checksum differs"),
        (lambda folder: (folder / DESCRIPTION).unlink(), "there is no exported detector"),
        (lambda folder: (folder / DESCRIPTION).write_text('{"format": 1'), "not JSON"),
        (lambda folder: (folder / DESCRIPTION).write_text("[]"), "names no format"),
        (lambda folder: rewrite(folder, format=2), "has format 2, this version reads format 1"),
        (outside, "outside its own folder"),
        (opens_another, "none of its own files"),
    ],
)
def test_damaged_and_foreign_exports_are_refused_in_words(folder, damage, message):
    damage(folder)
    with pytest.raises(ExportError, match=message):
        ExportedScorer(folder)


def test_an_export_is_replaced_whole_and_nothing_else_is(without_network, folder):
    (folder / "stale.onnx").write_bytes(b"")
    export(without_network, folder, "onnx")
    assert {path.name for path in folder.iterdir()} == {"alone.onnx", "past.onnx", DESCRIPTION}
    (folder / DESCRIPTION).unlink()
    with pytest.raises(ExportError, match="holds something that is no export"):
        export(without_network, folder, "onnx")


def test_scores_that_differ_from_those_of_torch_are_not_written(without_network, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setitem(TOLERANCE, "float32", -1.0)
    with pytest.raises(ExportError, match="differs from that of torch"):
        export(without_network, folder, "onnx")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_cannot_be_had_is_refused_in_words(without_network, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match="no bf16 convolution"):
        export(without_network, tmp_path / "out", "onnx", "bf16")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r"openvino is needed.*tilewatch\[export\]"):
        export(without_network, tmp_path / "out", "openvino")
    assert not any(tmp_path.iterdir())


def test_the_tiles_that_files_are_compared_on_hold_what_is_hard(without_network):
    graph = Graph(without_network, chosen(without_network)[1], looks_back=True)
    given = dict(zip((port.name for port in graph.inputs), sample(graph, CHECKED), strict=True))
    for values, valid in (("values", "valid"), ("past_values", "past_valid")):
        assert torch.isnan(given[values]).any()
        assert not given[valid].all()
        assert given[valid][0].all()
    assert not given["witness_valid"][-1].any()

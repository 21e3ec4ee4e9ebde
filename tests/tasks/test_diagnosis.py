"""What of a diagnosis reaches MLflow, and that its figures show what they say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mlflow
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from configs.schema import ModelSettings
from tasks import diagnosis as steps
from tasks import latent_figures as draw
from tests.vae.conftest import SMALL, make_normalisation, make_tiles
from vae.diagnostics import Diagnosis, diagnose
from vae.networks import build

ALWAYS = {"reconstructions", "samples", "map"}
ALL = ALWAYS | {"channels", "posterior", "interpolations", "traversals", "arithmetic"}


@cache
def made(bands: int = 3, tiles: int = 12, groups: int = 2, posterior: str = "gaussian") -> Diagnosis:
    """Of an untrained network."""
    network = build(bands, ModelSettings(**SMALL, posterior=posterior, codes=16), 0)
    network.sigma.fill_(0.3)
    labels = [f"place {number % groups}" for number in range(tiles)]
    return diagnose(network, make_tiles(tiles, bands), make_normalisation(bands), 0, labels)


def png(figure: Figure) -> bytes:
    """A figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow.MlflowClient]:
    """MLflow with a database of its own."""
    before = mlflow.get_tracking_uri()
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment("diagnoses", artifact_location=(folder / "artifacts").as_uri())
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def test_numbers_become_metrics_by_epoch_and_each_figure_a_file(
    server: mlflow.MlflowClient, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    hierarchy = made(posterior="hierarchical")
    experiment = server.get_experiment_by_name("diagnoses").experiment_id
    with mlflow.start_run(experiment_id=experiment) as run, caplog.at_level(logging.WARNING):
        steps.log_diagnosis(hierarchy, 3)
        steps.log_diagnosis(hierarchy, 6, stage="final")

    for name, number in hierarchy.numbers().items():
        history = server.get_metric_history(run.info.run_id, f"diagnosis/{name}")
        assert [(one.step, one.value) for one in history] == [(3, number), (6, number)]
    assert hierarchy.kl_channels is not None
    last = server.get_metric_history(run.info.run_id, "diagnosis/kl/level_2/channel_03")
    assert last[0].value == hierarchy.kl_channels[1, 3]
    for stage in ("epoch-0003", "final"):
        names = {Path(one.path).name for one in server.list_artifacts(run.info.run_id, f"diagnosis/{stage}")}
        assert names == {f"{name}.png" for name in ALL} | {"diagnosis.json"}
    table = json.loads(
        Path(server.download_artifacts(run.info.run_id, "diagnosis/final/diagnosis.json", str(tmp_path))).read_text()
    )
    assert table["numbers"] == hierarchy.numbers()
    assert table["warnings"] == list(hierarchy.warnings)
    assert np.array(table["kl_by_level_and_channel"]) == pytest.approx(hierarchy.kl_channels)
    assert "epoch 3: level 2 of the latent is not in use" in caplog.text


def test_a_diagnosis_is_always_drawn_to_the_same_bytes() -> None:
    drawn = {name: png(figure) for name, figure in steps.figures(made())}
    assert set(drawn) == ALL
    assert {name: png(figure) for name, figure in steps.figures(made())} == drawn


@pytest.mark.parametrize("bands", [1, 2, 13])
def test_tiles_of_any_number_of_bands_are_shown(bands: int) -> None:
    assert png(dict(steps.figures(made(bands)))["samples"])


def test_what_was_left_out_has_no_figure() -> None:
    assert {name for name, _ in steps.figures(made(posterior="quantised"))} == ALWAYS
    assert {name for name, _ in steps.figures(made(groups=1))} == ALL - {"arithmetic"}


def test_pixels_of_a_mosaic_are_those_of_its_tiles() -> None:
    tiles = np.random.default_rng(0).integers(0, 255, (5, 30, 30, 3), np.uint8)
    figure, axis = draw.mosaic([tiles[:3], tiles[3:]], ["one", "another\nrow"], ["a", "b", "c"], "of five tiles")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    seen = np.asarray(canvas.buffer_rgba())[..., :3]
    box = axis.get_window_extent()
    left, top = round(box.x0), round(seen.shape[0] - box.y1)

    for number, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        corner = (top + 94 * row, left + 94 * column)
        shown = seen[corner[0] : corner[0] + 90, corner[1] : corner[1] + 90]
        assert np.array_equal(shown, tiles[number].repeat(3, axis=0).repeat(3, axis=1))
    assert (seen[top + 94 : top + 184, left + 188 : left + 278] == 255).all()


@pytest.mark.parametrize("posterior", ["gaussian", "hierarchical"])
def test_all_that_is_drawn_and_written_lies_within_the_figure(posterior: str) -> None:
    for name, figure in steps.figures(made(posterior=posterior), latent_map="tsne"):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = figure.get_tightbbox(canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > -0.02, (name, drawn)


def test_masked_pixels_are_hatched_and_the_band_shown_red_is_red() -> None:
    diagnosis = made()
    shown = draw.Shown.of(diagnosis, ("B02", "B01", "B00"))
    images = shown.images(diagnosis.pictures.originals, diagnosis.pictures.valid)
    values, valid = diagnosis.pictures.originals, diagnosis.pictures.valid

    low, high = shown.limits["B02"]
    expected = np.rint(255 * np.clip((values[:, 2] - low) / (high - low), 0, 1) ** draw.GAMMA)
    assert np.array_equal(images[..., 0][valid], expected[valid])
    greys = images[~valid].astype(int)
    assert (greys.max(axis=1) - greys.min(axis=1) <= 8).all()
    assert shown.words == "red, green, blue: B02, B01, B00"


def test_more_groups_than_colours_share_grey() -> None:
    figure = draw.latent_plane(made(tiles=30, groups=10))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["samples from the prior", "3 others", *(f"place {number}" for number in range(7))]


def test_a_map_by_neighbours_stands_beside_principal_components_and_is_the_same_twice() -> None:
    places = steps.embedded(made(), "tsne")
    assert places is not None
    assert places.shape == (12, 2)
    assert np.array_equal(places, steps.embedded(made(), "tsne"))
    figure = dict(steps.figures(made(), latent_map="tsne"))["map"]
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Principal components of the latents",
        "t-SNE: neighbours count, distances do not",
    ]


def test_without_the_package_or_with_few_tiles_there_are_principal_components_alone_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "find_spec", lambda name: None)
    assert steps.embedded(made(), "umap") is None
    assert "umap-learn is not installed" in caplog.text
    assert steps.embedded(made(tiles=5), "tsne") is None
    assert "5 tiles are too few for a map by t-SNE" in caplog.text
    assert len(dict(steps.figures(made(tiles=5), latent_map="tsne"))["map"].axes) == 1

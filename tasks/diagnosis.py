"""What of a diagnosis goes to MLflow: metrics, figures, and a table with words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import mlflow
import numpy as np
from matplotlib.figure import Figure

from tasks import latent_figures as draw
from tasks import tracking
from vae.diagnostics import Diagnosis

log = logging.getLogger(__name__)

LatentMap = Literal["pca", "tsne", "umap"]
MAPS: dict[LatentMap, str] = {"pca": "", "tsne": "t-SNE", "umap": "UMAP"}
MOST_METRICS = 64  # latent channels that get a metric each; of more, the figure and the table tell


def log_diagnosis(
    diagnosis: Diagnosis,
    epoch: int,
    rgb: tuple[str, str, str] | None = None,
    latent_map: LatentMap = "pca",
    stage: str | None = None,
) -> None:
    """Numbers, figures and a table of a diagnosis, to the active MLflow run; its warnings to the log as well.

    Args:
        diagnosis: Of a network.
        epoch: The epoch whose weights they were, which is the step of the metrics.
        rgb: Bands that are shown as red, green and blue; by their usual names without it.
        latent_map: What stands beside the principal components: t-SNE or UMAP.
        stage: Folder of the figures below `diagnosis/`; by default named after the epoch.
    """
    folder = f"diagnosis/{stage or f'epoch-{epoch:04d}'}"
    metrics = {f"diagnosis/{name}": number for name, number in diagnosis.numbers().items()}
    if diagnosis.kl_channels is not None and diagnosis.kl_channels.size <= MOST_METRICS:
        for (level, channel), nats in np.ndenumerate(diagnosis.kl_channels):
            metrics[f"diagnosis/kl/level_{level + 1}/channel_{channel:02d}"] = float(nats)
    tracking.log_finite(metrics, step=epoch)
    mlflow.log_dict(table(diagnosis), f"{folder}/diagnosis.json")
    for name, figure in figures(diagnosis, rgb, latent_map):
        mlflow.log_figure(figure, f"{folder}/{name}.png")
    for warning in diagnosis.warnings:
        log.warning("epoch %d: %s", epoch, warning)


def table(diagnosis: Diagnosis) -> dict[str, object]:
    """All numbers and words, for JSON."""
    channels = diagnosis.channels
    return {
        "tiles": diagnosis.tiles,
        "seed": diagnosis.seed,
        "numbers": diagnosis.numbers(),
        "kl_by_level_and_channel": None if diagnosis.kl_channels is None else diagnosis.kl_channels.tolist(),
        "activity_by_channel": None if channels is None else channels.activity.tolist(),
        "explained_by_principal_components": diagnosis.plane.explained.tolist(),
        "warnings": list(diagnosis.warnings),
        "left_out": list(diagnosis.left_out),
    }


def figures(
    diagnosis: Diagnosis, rgb: tuple[str, str, str] | None = None, latent_map: LatentMap = "pca"
) -> Iterator[tuple[str, Figure]]:
    """Each figure with its name; what the diagnosis left out has none."""
    shown = draw.Shown.of(diagnosis, rgb)
    if diagnosis.kl_channels is not None and diagnosis.channels is not None:
        yield "channels", draw.channel_bars(diagnosis.kl_channels, diagnosis.channels, diagnosis.tiles)
        yield "posterior", draw.posterior_histograms(diagnosis.kl_channels, diagnosis.channels)
        yield "traversals", draw.traversals(diagnosis.traversals, diagnosis.kl_channels[0], shown)
    yield "reconstructions", draw.reconstructions(diagnosis, shown)
    yield "samples", draw.samples(diagnosis, shown)
    if diagnosis.interpolations:
        yield "interpolations", draw.interpolations(diagnosis.interpolations, shown)
    if diagnosis.arithmetic is not None:
        yield "arithmetic", draw.arithmetic(diagnosis.arithmetic, shown)
    yield "map", draw.latent_plane(diagnosis, MAPS[latent_map], embedded(diagnosis, latent_map))


def embedded(diagnosis: Diagnosis, latent_map: LatentMap) -> draw.Array | None:
    """Places (N, 2) by t-SNE (van der Maaten & Hinton 2008) or UMAP (McInnes, Healy & Melville 2018).

    None where neither is wanted, and with a warning for very few tiles, or UMAP where it is not installed.
    """
    neighbours = min(30, (diagnosis.tiles - 1) // 3)
    if latent_map == "pca":
        return None
    if neighbours < 2:
        log.warning("%d tiles are too few for a map by %s", diagnosis.tiles, MAPS[latent_map])
        return None
    if latent_map == "tsne":
        from sklearn.manifold import TSNE  # takes most of a second to import

        tsne = TSNE(perplexity=neighbours, init="pca", random_state=diagnosis.seed)
        return np.asarray(tsne.fit_transform(diagnosis.features))
    if find_spec("umap") is None:
        log.warning("train.latent_map is umap, and the package umap-learn is not installed: install it, or set tsne")
        return None
    umap = import_module("umap")
    made = umap.UMAP(n_neighbors=min(15, neighbours), random_state=diagnosis.seed)
    return np.asarray(made.fit_transform(diagnosis.features))

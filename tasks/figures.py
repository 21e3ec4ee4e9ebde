"""Figures of a training run, for MLflow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tasks.challenge import Challenge
from tasks.pictures import default_rgb, rgb_image
from tasks.train import Sample
from vae.calibration import Calibration
from vae.detector import Detector
from vae.training import EpochMetrics


def loss_curves(history: Sequence[EpochMetrics]) -> Figure:
    """The ELBO on training and held-out tiles, and the parts of the loss, epoch by epoch."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [metrics.epoch for metrics in history]
    left.plot(epochs, [metrics.elbo_train for metrics in history], label="training tiles")
    held_out = [metrics.elbo_held_out for metrics in history]
    if any(value is not None for value in held_out):
        left.plot(epochs, [np.nan if value is None else value for value in held_out], label="held-out dates")
    left.set(xlabel="epoch", ylabel="ELBO, nats per pixel and band", title="Evidence lower bound (higher is better)")
    left.legend()
    right.plot(epochs, [metrics.reconstruction for metrics in history], label="reconstruction")
    right.plot(epochs, [metrics.kl for metrics in history], label="KL")
    right.set(xlabel="epoch", ylabel="nats a tile", title="Parts of the loss")
    right.set_yscale("symlog")
    right.legend()
    return figure


def reconstructions(detector: Detector, sample: Sample, rgb: tuple[str, str, str] | None) -> Figure:
    """A few training tiles above what the network expects of them."""
    bands = detector.bands
    expected = sample.values if sample.expected is None else sample.expected
    shown = rgb or default_rgb(bands)
    limits = {band: tuple(ends) for band, ends in detector.metadata["rgb_limits"].items()}
    count = len(sample.values)
    figure = Figure(figsize=(1.5 * count, 3.4), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for column in range(count):
        for row, (name, values) in enumerate((("seen", sample.values), ("expected", expected))):
            axis = axes[row, column]
            axis.imshow(rgb_image(values[column], bands, shown, limits, sample.valid[column]), interpolation="nearest")
            axis.set_axis_off()
            if column == 0:
                axis.set_title(name, loc="left")
    return figure


def score_histogram(scores: pd.Series, calibration: Calibration) -> Figure:
    """The distribution of the scores that set the threshold."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    positive = scores[np.isfinite(scores) & (scores > 0)].to_numpy()
    if len(positive):
        low, high = positive.min(), max(positive.max(), calibration.threshold)
        axis.hist(positive, bins=np.geomspace(low, high * 1.01, 60).tolist(), color="tab:blue", alpha=0.8)
        axis.set_xscale("log")
    axis.axvline(calibration.threshold, color="tab:red", label=f"threshold {calibration.threshold:.4g}")
    axis.set(
        xlabel=f"{calibration.score} ({calibration.pool})",
        ylabel="tiles",
        title=f"{calibration.tiles} calibration tiles, false-alarm rate {calibration.false_alarm_rate:.2%}",
    )
    axis.legend()
    return figure


def challenge_figure(found: Challenge) -> Figure:
    """Average precision of each kind of anomaly by champion and challenger, and their difference with its interval."""
    table, old, new = found.kinds.iloc[::-1], found.champion, found.challenger
    figure = Figure(figsize=(9, 0.34 * len(table) + 2.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    places = np.arange(len(table))
    left.hlines(places, table["ap_champion"], table["ap_challenger"], color="0.7")
    left.plot(table["ap_champion"], places, "o", color="0.4", label=f"{old.version}, champion: {old.ap:.3f} of all")
    left.plot(table["ap_challenger"], places, "o", color="tab:blue", label=f"{new.version}: {new.ap:.3f} of all")
    left.set_yticks(places, [f"{row.kind}, {row.tiles} tiles" for row in table.itertuples()])
    left.set(xlim=(0, 1.02), xlabel="average precision", title="By kind")
    left.legend(fontsize="small")
    difference = found.difference
    right.axvline(0, color="0.7", linestyle=":")
    right.hlines(0, difference.low, difference.high, color="tab:blue")
    right.plot(difference.value, 0, "o", color="tab:blue")
    right.set_yticks([])
    right.set(xlabel="average precision, challenger minus champion", title=f"{difference.groups} blocks")
    return figure

"""Figures of an evaluation, for MLflow. Each draws tiles with `score`, `flagged`, `positive` (1 or 0) and `kind`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tasks import metrics


def detection_curves(tiles: pd.DataFrame) -> Figure:
    """Precision over recall and the ROC of tiles with `score`, `flagged` and `positive`; a dot where the flags are."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    score, flags, positive = (tiles[name] for name in ("score", "flagged", "positive"))
    recalls, precisions = metrics.precision_recall(score, positive)
    left.plot(recalls, precisions, drawstyle="steps-post")
    left.axhline(positive.mean(), color="tab:gray", linestyle=":", label="random order")
    false, true = metrics.roc(score, positive)
    right.plot(false, true)
    right.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", label="random order")
    if flags.notna().any():
        recall, dot = metrics.recall(flags, positive), {"color": "tab:red", "zorder": 3, "label": "flags in force"}
        left.scatter([recall], [metrics.precision(flags, positive)], **dot)
        right.scatter([metrics.false_alarm_rate(flags, positive)], [recall], **dot)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    left.set_title(f"average precision {metrics.average_precision(score, positive):.3f}")
    right.set(xlabel="false-alarm rate", ylabel="recall", xlim=(0, 1), ylim=(0, 1.02))
    right.set_title(f"AUROC {metrics.auroc(score, positive):.3f}")
    left.legend()
    right.legend()
    return figure


def recall_by_kind(tiles: pd.DataFrame) -> Figure:
    """Recall of each kind of event over the false-alarm rate, which is drawn to 1 in 1000."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    positive = tiles["positive"] > 0
    kinds = tiles["kind"].where(tiles["kind"] != "", "event")
    for kind in sorted(kinds[positive].unique()):
        rows = tiles[~positive | (kinds == kind)]
        false, true = metrics.roc(rows["score"], rows["positive"])
        axis.plot(np.maximum(false, 1e-3), true, label=f"{kind} ({int(rows['positive'].sum())} tiles)")
    axis.set(xlabel="false-alarm rate", ylabel="recall", xlim=(1e-3, 1), ylim=(0, 1.02), title="Recall by kind")
    axis.set_xscale("log")
    figure.legend(loc="outside right upper")
    return figure


def scores_by_label(tiles: pd.DataFrame, name: str) -> Figure:
    """The distribution of the scores of tiles with an event and without, each to the same area."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    scores, positive = tiles["score"], tiles["positive"] > 0
    spread = scores.min() > 0 and scores.max() > 10 * scores.min()
    if spread:
        bins = np.geomspace(scores.min(), scores.max() * 1.01, 50)
        axis.set_xscale("log")
    else:
        bins = np.linspace(scores.min(), scores.max() + 1e-9, 50)
    for rows, label, color in ((~positive, "no event", "tab:blue"), (positive, "event", "tab:red")):
        share = np.full(int(rows.sum()), 1 / max(1, int(rows.sum())))
        axis.hist(scores[rows], bins=bins.tolist(), weights=share, alpha=0.5, label=label, color=color)
    axis.set(
        xlabel=name, ylabel="share of the tiles", title=f"{int(positive.sum())} tiles of {len(tiles)} show an event"
    )
    axis.legend()
    return figure

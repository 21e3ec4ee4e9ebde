"""What methods reached, in numbers, tables and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.harness import Measured
from benchmarks.problems.common import Pair
from tasks.metrics import Interval, auroc, average_precision, bootstrap_mean, mean_over_groups, paired_bootstrap_mean

Row = dict[str, Any]
Scores = dict[str, np.ndarray]  # (N,) by place
METRICS = {"ap": average_precision, "auroc": auroc}


def rows_of(measured: Sequence[Measured], tests: Sequence[Pair], condition: str, default: str) -> list[Row]:
    """One row a score: quality with intervals, by place and by kind, how far behind the default it is, and its cost.

    Args:
        measured: What methods gave.
        tests: The scored pairs, with the truth.
        condition: Which of them count.
        default: Name of the score that the others are compared with.
    """
    pairs = [pair for pair in tests if pair.condition == condition]
    found = {name: (one, by[condition]) for one in measured for name, by in one.scores.items() if condition in by}
    best = found[default][1] if default in found else None
    return [_row(name, one, scores, pairs, best if name != default else None) for name, (one, scores) in found.items()]


def _row(name: str, one: Measured, scores: Scores, pairs: Sequence[Pair], best: Scores | None) -> Row:
    together, truth, places = _together(scores, pairs)
    row: Row = {"score": name, "method": one.name, "family": one.family, "uses_before": one.uses_before}
    for key, metric in METRICS.items():
        row[key] = _interval(bootstrap_mean(metric, together, truth, places))
    if best is not None:
        ours = _together(best, pairs)[0]
        behind = paired_bootstrap_mean(average_precision, ours, together, truth, places)
        row["ap_behind_default"] = _interval(behind) | {"excludes_zero": behind.excludes_zero}
    row["by_city"] = {
        pair.name: {key: _number(metric(scores[pair.name], pair.positive)) for key, metric in METRICS.items()}
        for pair in pairs
    }
    if any(pair.kinds is not None for pair in pairs):
        row["auroc_by_kind"] = _by_kind(scores, pairs)
    return row | costs(one)


def costs(one: Measured) -> Row:
    """What a method takes: seconds a fit, tiles a second, learned numbers, peak memory beyond the scenes."""
    return {
        "fit_seconds": round(float(np.mean(one.fit_seconds)), 2),
        "tiles_per_second": round(one.tiles / one.score_seconds, 1),
        "parameters": one.parameters,
        "peak_megabytes": round(one.megabytes),
    }


def _together(scores: Scores, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) scores, truth and place of all tiles."""
    return (
        np.concatenate([scores[pair.name] for pair in pairs]),
        np.concatenate([pair.positive for pair in pairs]),
        np.concatenate([np.full(len(pair.tiles), pair.name) for pair in pairs]),
    )


def _by_kind(scores: Scores, pairs: Sequence[Pair]) -> dict[str, float | None]:
    """AUROC of the tiles of each kind against those that hold nothing, mean over the places that have any."""
    together, truth, places = _together(scores, pairs)
    kinds = np.concatenate([pair.kinds for pair in pairs if pair.kinds is not None])
    found = {}
    for kind in sorted(set(kinds[truth == 1])):
        only = np.where((truth == 1) & (kinds != kind), np.nan, truth)
        found[str(kind)] = _number(mean_over_groups(auroc, together, only, places))
    return found


def widespread_rows(measured: Sequence[Measured], tests: Sequence[Pair]) -> list[Row]:
    """One row a score: AUROC by what was turned and by share, mean over the places."""
    conditions = sorted({pair.condition for pair in tests if pair.condition[-1].isdigit()})
    rows = []
    for one in measured:
        for name, by in one.scores.items():
            found: dict[str, dict[str, float]] = {}
            for condition in conditions:
                pairs = [pair for pair in tests if pair.condition == condition]
                kind, share = condition.split(" ")
                found.setdefault(kind, {})[share] = mean_over_groups(auroc, *_together(by[condition], pairs))
            shares = {
                share: float(np.mean([of[share] for of in found.values()])) for share in next(iter(found.values()))
            }
            rows.append({"score": name, "family": one.family, "auroc": _rounded(shares)} | _rounded(found))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The rows of one problem as a table, the best first."""
    lines = [
        "| method | AP | AUROC | default ahead by (AP) | tiles/s | fit, s | parameters | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -(row["ap"]["value"] or 0)):
        behind = row.get("ap_behind_default")
        lines.append(
            f"| {row['score']} | {_words(row['ap'])} | {_words(row['auroc'])} | {_words(behind) if behind else ''} "
            f"| {row['tiles_per_second']:.0f} | {row['fit_seconds']:.1f} | {row['parameters']} "
            f"| {row['peak_megabytes']} |"
        )
    return "\n".join(lines)


def widespread_markdown(rows: Sequence[Row]) -> str:
    """AUROC by share, mean of what was turned, the best at the greatest share first."""
    shares = list(rows[0]["auroc"])
    heads = [f"{float(share):.0%}" for share in shares]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(shares) + 1) + "|"]
    for row in sorted(rows, key=lambda row: -row["auroc"][shares[-1]]):
        lines.append(f"| {row['score']} | " + " | ".join(f"{row['auroc'][share]:.3f}" for share in shares) + " |")
    return "\n".join(lines)


def plot_cost(rows: Sequence[Row], default: str, path: Path) -> None:
    """Quality over cost: AP over tiles a second; the best score of each method."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["method"] not in best or row["ap"]["value"] > best[row["method"]]["ap"]["value"]:
            best[row["method"]] = row
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for family, colour in _colours(rows).items():
        shown = [row for row in best.values() if row["family"] == family]
        x, y = [row["tiles_per_second"] for row in shown], [row["ap"]["value"] for row in shown]
        axes.scatter(x, y, color=colour, label=family, s=[90 if row["score"] == default else 30 for row in shown])
        for row in shown:
            place = row["tiles_per_second"], row["ap"]["value"]
            axes.annotate(row["score"], place, (4, 3), textcoords="offset points", fontsize=6)
    axes.set_xscale("log")
    axes.set_xlabel("tiles scored a second")
    axes.set_ylabel("average precision, mean of the cities")
    _finish(figure, axes, path)


def plot_widespread(rows: Sequence[Row], default: str, path: Path) -> None:
    """AUROC of each score over the share of the scene that was turned; the best of each family and ours are named."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours, named = _colours(rows), _best_of_families(rows)
    for row in rows:
        shares, values, strong = (
            [float(share) for share in row["auroc"]],
            [*row["auroc"].values()],
            row["score"] == default,
        )
        best = row["score"] == named[row["family"]]
        label = f"{row['family']}, best: {row['score']}" if best else None
        style = {"lw": 3 if strong else 1.5 if best else 0.6, "alpha": 1 if strong or best else 0.4}
        axes.plot(shares, values, color=colours[row["family"]], label=label, marker=".", **style)
        if strong:
            axes.annotate(row["score"], (shares[-1], values[-1]), (6, -2), textcoords="offset points", fontsize=7)
    axes.axhline(0.5, color="#888888", lw=0.5)
    axes.set_xlabel("share of the scene's pixels that were turned")
    axes.set_ylabel("AUROC, mean of the cities")
    axes.set_xlim(right=0.45)
    _finish(figure, axes, path)


def _best_of_families(rows: Sequence[Row]) -> dict[str, str]:
    """By family, its score with the highest mean over the shares."""
    ranked = sorted(rows, key=lambda row: sum(row["auroc"].values()))
    return {row["family"]: row["score"] for row in ranked}


def _colours(rows: Sequence[Row]) -> dict[str, Any]:
    """A colour a family; ours is the loud one."""
    families = list(dict.fromkeys(row["family"] for row in rows))
    return {
        family: "#d9730d" if family == "ours" else plt.get_cmap("tab10")((number + 2 * (number > 0)) % 10)
        for number, family in enumerate(families)
    }


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=7, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _interval(interval: Interval) -> Row:
    return {end: _number(getattr(interval, end)) for end in ("value", "low", "high")}


def _words(interval: Row) -> str:
    value, low, high = (math.nan if interval[end] is None else interval[end] for end in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: _rounded(one) if isinstance(one, dict) else _number(one) for key, one in numbers.items()}


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None

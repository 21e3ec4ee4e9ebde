"""Metrics of detection, each with a bootstrap interval: how well scores tell tiles with an event from those without.

A metric is a function of (N,) scores and (N,) truth to one number, NaN where it is not defined. Scores are higher for
what is more anomalous. The truth is 1 (or True) for an event, 0 for none. A row whose score or truth is NaN does not
count; `known` says which rows count, so that the others can be counted.

Tiles of one place, or of one date, are alike, so whole groups are drawn and never single tiles (cluster bootstrap:
Field & Welsh 2007, "Bootstrapping clustered data"): an interval made of single tiles would be far too narrow.
Intervals are percentile intervals; with fewer than about ten groups they are themselves somewhat too narrow.

scikit-learn is imported where it is used: that takes most of a second, and most commands do without it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.intervals import LEVEL, REPETITIONS, Interval, draws, percentile_interval
from tasks.regions import pro

__all__ = [
    "Interval",
    "Metric",
    "auroc",
    "average_precision",
    "bootstrap",
    "bootstrap_mean",
    "false_alarm_rate",
    "fpr_at_recall",
    "group_values",
    "known",
    "mean_over_groups",
    "paired_bootstrap",
    "paired_bootstrap_mean",
    "precision",
    "precision_recall",
    "pro",
    "recall",
    "roc",
]

Metric = Callable[[ArrayLike, ArrayLike], float]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def known(*columns: ArrayLike) -> Bools:
    """(N,) bool: the rows that are numbers in all of some (N,) columns."""
    return np.logical_and.reduce([np.isfinite(np.asarray(column, dtype=float)) for column in columns])


def average_precision(scores: ArrayLike, positives: ArrayLike) -> float:
    """Average precision: the sum over thresholds of precision times the gain in recall, not interpolated.

    NaN unless there are positives and negatives. That of a random order is the share of positives.
    """
    from sklearn.metrics import average_precision_score

    scores, positives = _clean(scores, positives)
    return float(average_precision_score(positives, scores)) if _both(positives) else float("nan")


def auroc(scores: ArrayLike, positives: ArrayLike) -> float:
    """Probability that a positive scores higher than a negative, ties half (Hanley & McNeil 1982).

    NaN unless there are both.
    """
    from sklearn.metrics import roc_auc_score

    scores, positives = _clean(scores, positives)
    return float(roc_auc_score(positives, scores)) if _both(positives) else float("nan")


def fpr_at_recall(scores: ArrayLike, positives: ArrayLike, least: float = 0.95) -> float:
    """The smallest share of negatives that must be flagged to flag a share of the positives (FPR95). Lower is better.

    Args:
        scores: (N,) higher = more anomalous.
        positives: (N,) truth.
        least: Share of the positives, 0–1.

    Returns:
        0–1; NaN unless there are positives and negatives.
    """
    false, true = roc(scores, positives)
    return float(false[np.argmax(true >= least)]) if len(false) else float("nan")


def precision(flags: ArrayLike, positives: ArrayLike) -> float:
    """Share of the flags (N,) that are positives; NaN without a flag."""
    flags, positives = _clean(flags, positives)
    return _share(positives, flags > 0)


def recall(flags: ArrayLike, positives: ArrayLike) -> float:
    """Share of the positives that are flagged; NaN without a positive."""
    flags, positives = _clean(flags, positives)
    return _share(flags > 0, positives)


def false_alarm_rate(flags: ArrayLike, positives: ArrayLike) -> float:
    """Share of the negatives that are flagged; NaN without a negative."""
    flags, positives = _clean(flags, positives)
    return _share(flags > 0, ~positives)


def roc(scores: ArrayLike, positives: ArrayLike) -> tuple[Floats, Floats]:
    """False-positive and true-positive rate at every threshold, the highest first; empty unless there are both."""
    from sklearn.metrics import roc_curve

    scores, positives = _clean(scores, positives)
    if not _both(positives):
        return np.empty(0), np.empty(0)
    false, true, _ = roc_curve(positives, scores, drop_intermediate=False)
    return false, true


def precision_recall(scores: ArrayLike, positives: ArrayLike) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold, recall ascending; empty without a positive."""
    from sklearn.metrics import precision_recall_curve

    scores, positives = _clean(scores, positives)
    if not positives.any():
        return np.empty(0), np.empty(0)
    precisions, recalls, _ = precision_recall_curve(positives, scores)
    return recalls[::-1], precisions[::-1]


def group_values(metric: Metric, scores: ArrayLike, positives: ArrayLike, groups: ArrayLike) -> dict[str, float]:
    """A metric of each group alone, by the group's name in order; NaN where it is not defined."""
    scores, positives = np.asarray(scores, dtype=float), np.asarray(positives, dtype=float)
    names, member = _members(groups)
    rows = [np.flatnonzero(member == number) for number in range(len(names))]
    return {str(name): metric(scores[those], positives[those]) for name, those in zip(names, rows, strict=True)}


def mean_over_groups(metric: Metric, scores: ArrayLike, positives: ArrayLike, groups: ArrayLike) -> float:
    """The mean of a metric over groups, each counting the same; groups where it is not defined are left out."""
    return _mean(np.array(list(group_values(metric, scores, positives, groups).values())))


def bootstrap(
    metric: Metric,
    scores: ArrayLike,
    positives: ArrayLike,
    groups: ArrayLike,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """A metric of all rows together, with the interval that comes of drawing whole groups with replacement.

    Args:
        metric: E.g. `average_precision`.
        scores: (N,) higher = more anomalous, or flags; NaN does not count.
        positives: (N,) truth; NaN does not count.
        groups: (N,) what each row belongs to: location, or date.
        repetitions: How often groups are drawn.
        seed: Of the draws; the same seed and groups give the same draws, whatever the metric.
        level: Coverage of the interval, 0–1.
    """
    return paired_bootstrap(metric, scores, None, positives, groups, repetitions, seed, level)


def paired_bootstrap(
    metric: Metric,
    scores: ArrayLike,
    others: ArrayLike | None,
    positives: ArrayLike,
    groups: ArrayLike,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """How much greater a metric is of some scores than of others of the same rows, drawn together.

    Only rows that have both scores count, so both are judged on the same rows.

    Args:
        metric: E.g. `average_precision`.
        scores: (N,) scores.
        others: (N,) scores of the same rows that they are compared with; None compares with nothing.
        positives: (N,) truth.
        groups: (N,) what each row belongs to.
        repetitions: How often groups are drawn.
        seed: Of the draws.
        level: Coverage of the interval, 0–1.

    Returns:
        metric(scores) − metric(others), over all rows together.
    """
    columns = [np.asarray(column, dtype=float) for column in (scores, others) if column is not None]
    truth = np.asarray(positives, dtype=float)
    rows = known(*columns, truth)
    names, member = _members(np.asarray(groups)[rows])
    # Sorted once: a repetition keeps the order, and a stable sort of what is sorted already costs next to nothing.
    ranked = []
    for column in columns:
        order = np.argsort(-column[rows], kind="stable")
        ranked.append((column[rows][order], truth[rows][order], member[order]))

    def difference(times: NDArray[np.int64]) -> float:
        found = []
        for score, event, group in ranked:
            drawn = np.repeat(np.arange(len(group)), times[group])
            found.append(metric(score[drawn], event[drawn]))
        return found[0] - found[1] if others is not None else found[0]

    drawn = (difference(times) for times in draws(len(names), repetitions, seed))
    return percentile_interval(difference(np.ones(len(names), dtype=np.int64)), drawn, len(names), level)


def bootstrap_mean(
    metric: Metric,
    scores: ArrayLike,
    positives: ArrayLike,
    groups: ArrayLike,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The mean of a metric over groups (as the mean of ten cities), groups drawn; for the arguments see `bootstrap`."""
    return paired_bootstrap_mean(metric, scores, None, positives, groups, repetitions, seed, level)


def paired_bootstrap_mean(
    metric: Metric,
    scores: ArrayLike,
    others: ArrayLike | None,
    positives: ArrayLike,
    groups: ArrayLike,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """How much greater the mean of a metric over groups is of some scores than of others, groups drawn together.

    For the arguments see `paired_bootstrap`. Groups in which the metric is not defined are left out.
    """
    columns = [np.asarray(column, dtype=float) for column in (scores, others) if column is not None]
    truth = np.asarray(positives, dtype=float)
    rows = known(*columns, truth)
    kept = np.asarray(groups)[rows]
    found = [np.array(list(group_values(metric, one[rows], truth[rows], kept).values())) for one in columns]
    values = found[0] - found[1] if others is not None else found[0]
    values = values[np.isfinite(values)]
    drawn = (_mean(np.repeat(values, times)) for times in draws(len(values), repetitions, seed))
    return percentile_interval(_mean(values), drawn, len(values), level)


def _members(groups: ArrayLike) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """The distinct groups in order, and the number of each row's."""
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    return names, member


def _clean(scores: ArrayLike, positives: ArrayLike) -> tuple[Floats, Bools]:
    """The rows that count; float, bool."""
    numbers, truth = np.asarray(scores, dtype=float), np.asarray(positives, dtype=float)
    if numbers.shape != truth.shape:
        raise ValueError(f"{numbers.shape} scores and {truth.shape} labels: one label a score is needed")
    rows = known(numbers, truth)
    return numbers[rows], truth[rows] > 0


def _both(positives: Bools) -> bool:
    return bool(positives.any() and not positives.all())


def _share(of: Bools, among: Bools) -> float:
    return float(of[among].mean()) if among.any() else float("nan")


def _mean(values: Floats) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")

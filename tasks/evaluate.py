"""Evaluate: scores against a known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu


@dataclass(frozen=True)
class Detection:
    """How well flags and scores agree with the truth; a number that is not defined is None.

    Attributes:
        tiles: Tiles with a score and a clear truth.
        positives: How many of them show an event.
        flags: How many of them are flagged.
        precision: Share of the flags that show an event.
        recall: Share of the events' tiles that are flagged.
        auroc: Probability that a tile with an event scores higher than one without (Hanley & McNeil 1982).
        false_alarm_rate: Share of the tiles without an event that are flagged.
    """

    tiles: int
    positives: int
    flags: int
    precision: float | None
    recall: float | None
    auroc: float | None
    false_alarm_rate: float | None


def detection(score: ArrayLike, flagged: ArrayLike, positive: ArrayLike) -> Detection:
    """Compare (N,) scores and flags with (N,) truth.

    Args:
        score: Higher = more anomalous; NaN for tiles without a score, which do not count.
        flagged: bool.
        positive: 1 where the tile shows an event, 0 where not, NaN where neither can be said, which does not count.
    """
    scores, flags, truth = (np.asarray(array, dtype=float) for array in (score, flagged, positive))
    known = np.isfinite(scores) & np.isfinite(truth)
    scores, flag, event = scores[known], flags[known] > 0, truth[known] > 0
    auroc = None
    if event.any() and not event.all():
        statistic = mannwhitneyu(scores[event], scores[~event]).statistic
        auroc = float(statistic / (event.sum() * (~event).sum()))
    return Detection(
        tiles=len(scores),
        positives=int(event.sum()),
        flags=int(flag.sum()),
        precision=_share(event, flag),
        recall=_share(flag, event),
        auroc=auroc,
        false_alarm_rate=_share(flag, ~event),
    )


def _share(of: np.ndarray, among: np.ndarray) -> float | None:
    return float(of[among].mean()) if among.any() else None

"""The distribution of normal scores, and the p-values it gives.

Conformal p-values (Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World): when tonight's normal tile
is exchangeable with the calibration tiles, its p-value is at most α with a probability of at most α. Tiles of one date
are alike, so this holds for tiles only as far as what they share was taken out. With blocks the dates, not the tiles,
need to be exchangeable: each date then weighs 1 / (K + 1), and as much lies at infinity (pooled hierarchical conformal
prediction: Dunn, Wasserman & Ramdas 2022, JASA 118; Lee, Barber & Willett 2023, arXiv:2306.06342).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vae.calibration.robust import Floats
from vae.calibration.tail import ParetoTail

Blocks = Literal["tile", "date"]


@dataclass(frozen=True)
class Null:
    """Normal scores, thinned, with what lies above each.

    Attributes:
        scores: (K,) stored scores, ascending, float64.
        above: (K,) weight of all scores that follow each, float64.
        total: Weight of all scores: their number, or the number of dates.
        tail: Beyond its start p-values follow it; None where they are all counted.
    """

    scores: Floats
    above: Floats
    total: float
    tail: ParetoTail | None = None

    def p_values(self, scores: np.ndarray) -> Floats:
        """(1 + weight of calibration ≥ score) / (1 + total) of (N,) scores; NaN for NaN.

        Where thinning left a gap the larger p-value of the gap is given, so they stay valid.
        """
        scores = np.asarray(scores, dtype=np.float64)
        below = np.searchsorted(self.scores, scores, side="left")  # stored scores that are smaller
        at_least = np.where(below > 0, self.above[np.maximum(below - 1, 0)], self.total)
        counted = (1 + at_least) / (1 + self.total)
        if self.tail is not None:
            counted = np.where(scores > self.tail.start, self.tail.p_values(scores), counted)
        return np.where(np.isnan(scores), np.nan, counted)

    def threshold(self, rate: float) -> float:
        """The score beyond which p-values are at most `rate`; inf where none is as small."""
        if self.tail is not None and rate < self.tail.share:
            return self.tail.score_of(rate)
        reached = (1 + self.above) / (1 + self.total) <= rate
        return float(self.scores[np.argmax(reached)]) if reached.any() else math.inf

    @property
    def median(self) -> float:
        """What a normal tile scores."""
        return float(self.scores[np.argmax(self.above <= self.total / 2)])

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {"total": self.total, "tail": None if self.tail is None else self.tail.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], scores: Floats, above: Floats) -> Null:
        """Rebuild from what `to_dict` gave and the two arrays."""
        tail = None if content["tail"] is None else ParetoTail.from_dict(content["tail"])
        return cls(np.asarray(scores, np.float64), np.asarray(above, np.float64), float(content["total"]), tail)


def fit_null(scores: Floats, blocks: np.ndarray | None, rate: float, most_stored: int) -> Null:
    """Count normal scores.

    Args:
        scores: (N,) normal scores, finite.
        blocks: (N,) the date of each, as numbers; None weighs all tiles alike.
        rate: The p-value that decides on a flag, which thinning must not move.
        most_stored: More scores are thinned evenly by rank; the highest half of what is stored has no gap.
    """
    weights = np.ones(len(scores)) if blocks is None else _equal_dates(blocks)
    order = np.lexsort((weights, scores))
    scores, weights = scores[order], weights[order]
    from_top = np.cumsum(weights[::-1])[::-1]
    above = np.append(from_top[1:], 0.0)
    total = float(len(scores)) if blocks is None else float(len(np.unique(blocks)))
    kept = _ranks_to_store((1 + above) / (1 + total), rate, most_stored)
    return Null(scores[kept], above[kept], total)


def fewest(false_alarm_rate: float) -> int:
    """With fewer calibration tiles (or dates) no p-value is as small as the rate: ceil(1 / rate) - 1."""
    needed = max(1, math.ceil(1 / false_alarm_rate) - 2)
    while 1 / (needed + 1) > false_alarm_rate:
        needed += 1
    return needed


def flagged_by_fdr(p_values: Floats, fdr: float) -> np.ndarray:
    """Which tiles to flag so that at most a share `fdr` of them is expected to be false; NaN is never flagged.

    Benjamini & Hochberg (1995), JRSS B 57: needs p-values that are independent, or positively dependent (PRDS,
    Benjamini & Yekutieli 2001). Conformal p-values of one calibration set are PRDS (Bates et al. 2023, Annals of
    Statistics 51) where tiles are independent; neighbouring tiles, which overlap or share weather, are not quite.
    """
    known = np.sort(p_values[np.isfinite(p_values)])
    passed = np.flatnonzero(known <= fdr * np.arange(1, len(known) + 1) / max(len(known), 1))
    flagged: np.ndarray = p_values <= known[passed[-1]] if len(passed) else np.zeros(len(p_values), dtype=bool)
    return flagged


def _equal_dates(blocks: np.ndarray) -> Floats:
    """(N,) weights by which each date counts 1."""
    _, date, counts = np.unique(blocks, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / counts[date]
    return weights


def _ranks_to_store(p_just_above: Floats, rate: float, most: int) -> np.ndarray:
    """All ranks; or the highest without a gap, evenly spaced ones below, and the one that decides the threshold."""
    count = len(p_just_above)
    if count <= most:
        return np.arange(count)
    highest = most // 2
    spaced = np.linspace(0, count - highest - 1, most - highest - 1).round().astype(np.int64)
    deciding = np.argmax(p_just_above <= rate)
    return np.unique(np.concatenate([spaced, [deciding], np.arange(count - highest, count)]))

"""From score to p-value: conformal calibration on scenes that are taken to be normal.

Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World; Angelopoulos & Bates (2021), A Gentle
Introduction to Conformal Prediction. If tonight's normal tiles are exchangeable with the calibration tiles, the share
of them with a p-value of at most α is at most α, whatever the score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np

from configs.schema import CalibrationSettings
from vae.digests import canonical_json, sha256
from vae.errors import CalibrationError

MOST_STORED = 100_000  # scores; half of them are the highest, without a gap

Basis = Literal["held_out", "validation", "training"]


@dataclass(frozen=True)
class Calibration:
    """The distribution of one score on normal tiles.

    Args:
        score: Name in the registry of scores.
        pool: How pixels became one number.
        scores: (K,) stored calibration scores, ascending, float64. All of them, or thinned ones.
        ranks: (K,) place of each stored score among all `tiles` of them, from 0, int64.
        tiles: How many scores there were.
        false_alarm_rate: Share of normal tiles that may be flagged.
        basis: Whether the dates were held out, served for early stopping, or were trained on (optimistic).
        dates: ISO dates of the scenes.
        runtime: The backend, device type, dtype and torch version that gave the scores.
    """

    score: str
    pool: str
    scores: np.ndarray
    ranks: np.ndarray
    tiles: int
    false_alarm_rate: float
    basis: Basis
    dates: tuple[str, ...]
    runtime: Mapping[str, str]

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Conformal p-values (1 + #{calibration ≥ score}) / (n + 1) of (N,) scores; NaN for NaN.

        Where thinning left a gap the larger p-value of the gap is given, so they stay valid.
        """
        scores = np.asarray(scores, dtype=np.float64)
        below = np.searchsorted(self.scores, scores, side="left")  # stored scores that are smaller
        at_least = np.where(below > 0, self.tiles - 1 - self.ranks[np.maximum(below - 1, 0)], self.tiles)
        return np.where(np.isnan(scores), np.nan, (1 + at_least) / (self.tiles + 1))

    @property
    def threshold(self) -> float:
        """A tile is flagged when its score is greater, which is when its p-value is at most the false-alarm rate."""
        p_just_above = (self.tiles - self.ranks) / (self.tiles + 1)
        return float(self.scores[np.argmax(p_just_above <= self.false_alarm_rate)])

    @property
    def median(self) -> float:
        """What a normal tile scores."""
        return float(np.interp((self.tiles - 1) / 2, self.ranks, self.scores))

    def flagged(self, scores: np.ndarray) -> np.ndarray:
        """(N,) bool; NaN is never flagged."""
        return self.p_values(scores) <= self.false_alarm_rate

    @property
    def calibration_id(self) -> str:
        """Short digest of the content."""
        return sha256(canonical_json(self.to_dict()), self.scores.tobytes(), self.ranks.tobytes())[:12]

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {
            "score": self.score,
            "pool": self.pool,
            "tiles": self.tiles,
            "false_alarm_rate": self.false_alarm_rate,
            "threshold": self.threshold,
            "basis": self.basis,
            "dates": list(self.dates),
            "runtime": dict(self.runtime),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], scores: np.ndarray, ranks: np.ndarray) -> Calibration:
        """Rebuild from what `to_dict` gave and the two arrays."""
        return cls(
            score=content["score"],
            pool=content["pool"],
            scores=np.asarray(scores, dtype=np.float64),
            ranks=np.asarray(ranks, dtype=np.int64),
            tiles=int(content["tiles"]),
            false_alarm_rate=float(content["false_alarm_rate"]),
            basis=content["basis"],
            dates=tuple(content["dates"]),
            runtime=dict(content["runtime"]),
        )


def fit_calibration(
    scores: np.ndarray,
    dates: Sequence[str | date],
    settings: CalibrationSettings,
    *,
    score: str,
    pool: str,
    basis: Basis,
    runtime: Mapping[str, str],
    most_stored: int = MOST_STORED,
) -> Calibration:
    """Calibrate on the scores of normal tiles.

    Args:
        scores: (N,) scores from `Detector.score(..., calibrated=False)`; NaN (tiles without a score) are left out.
        dates: Acquisition dates of the scenes, or one for each score.
        settings: The false-alarm rate and the fewest tiles.
        score: Name of the score.
        pool: How pixels became one number.
        basis: Where the dates come from.
        runtime: Of the detector that gave the scores, see `vae.detector.runtime_of`.
        most_stored: More scores are thinned evenly by rank; the highest half of what is stored has no gap.

    Raises:
        CalibrationError: Too few scores for the settings or for the rate, or infinite ones.
    """
    scores = np.asarray(scores, dtype=np.float64).ravel()
    if np.isinf(scores).any():
        raise CalibrationError(
            f"{int(np.isinf(scores).sum())} of {len(scores)} calibration scores are infinite: "
            "the detector does not fit these scenes, so check their units and train again"
        )
    scores = np.sort(scores[~np.isnan(scores)])
    rate = settings.false_alarm_rate
    if len(scores) < settings.min_tiles:
        raise CalibrationError(
            f"{len(scores)} tiles have a score, calibration.min_tiles asks for {settings.min_tiles}: "
            "add calibration dates, or lower calibration.min_tiles"
        )
    needed = fewest_tiles(rate)
    if len(scores) < needed:
        raise CalibrationError(
            f"a false-alarm rate of {rate:g} cannot be reached with {len(scores)} calibration tiles, {needed} are "
            "needed: add calibration dates, or raise calibration.false_alarm_rate"
        )
    ranks = _ranks_to_store(len(scores), rate, most_stored)
    days = sorted({day.isoformat() if isinstance(day, date) else str(day) for day in dates})
    return Calibration(
        score, pool, scores[ranks], ranks, len(scores), rate, basis, tuple(days), dict(sorted(runtime.items()))
    )


def fewest_tiles(false_alarm_rate: float) -> int:
    """With fewer calibration tiles no p-value is as small as the rate: ceil(1 / rate) - 1."""
    tiles = max(1, math.ceil(1 / false_alarm_rate) - 2)
    while 1 / (tiles + 1) > false_alarm_rate:
        tiles += 1
    return tiles


def _ranks_to_store(tiles: int, rate: float, most: int) -> np.ndarray:
    """All ranks; or the highest without a gap, evenly spaced ones below, and the one that decides the threshold."""
    if tiles <= most:
        return np.arange(tiles)
    highest = most // 2
    spaced = np.linspace(0, tiles - highest - 1, most - highest - 1).round().astype(np.int64)
    ranks = np.arange(tiles)
    deciding = np.argmax((tiles - ranks) / (tiles + 1) <= rate)
    return np.unique(np.concatenate([spaced, [deciding], np.arange(tiles - highest, tiles)]))

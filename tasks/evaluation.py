"""What an evaluation found: plain records, for JSON, tables and people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.intervals import Interval


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval; what is not defined is None."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, interval: Interval) -> Estimate:
        """From an interval, whose NaN is no number."""
        return cls(number(interval.value), number(interval.low), number(interval.high))

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class KindFound:
    """How well the tiles of one kind of event are told from those without any.

    Attributes:
        positives: Tiles that show it.
        flagged: How many of them are flagged; None for a score without a threshold.
        interval_by: See `Evaluation`.
        estimates: Some metrics, by name.
    """

    positives: int
    flagged: int | None
    interval_by: str
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class Regions:
    """What PRO was computed from.

    Attributes:
        counted: Connected regions of the truth, scene by scene, with a scored pixel.
        unseen: Regions without one; they are left out.
        masked_share: Share of the regions' pixels without a score; they are left out too.
    """

    counted: int
    unseen: int
    masked_share: float | None


@dataclass(frozen=True)
class Comparison:
    """Two scores of the same tiles; a difference is how much greater the first one's number is.

    Attributes:
        against: What the score is compared with: a score, or a version.
        tiles: Tiles that have both, with a clear truth.
        own: Metrics of the score on these tiles.
        other: Metrics of the other one.
        differences: Their differences, both drawn together.
    """

    against: str
    tiles: int
    own: dict[str, float | None]
    other: dict[str, float | None]
    differences: dict[str, Estimate]


@dataclass(frozen=True)
class LeftOut:
    """What does not count, and why.

    Attributes:
        scenes: Scored scenes that the truth says nothing of.
        no_score: Tiles without a score.
        no_truth: Tiles of which nothing is known.
        between: Tiles with an event too small for a positive, too large for a negative.
    """

    scenes: int
    no_score: int
    no_truth: int
    between: int


@dataclass(frozen=True)
class Evaluation:
    """How good a score is.

    Attributes:
        detector_version: What scored.
        score: Which of its scores.
        scenes: Scenes that count.
        locations: Their locations.
        tiles: Tiles that count.
        positives: How many of them show an event.
        flags: How many of them are flagged; None for a score without a threshold.
        left_out: What does not count.
        interval_by: What the bootstrap draws: "location", or "date" where all events lie in one location.
        groups: How many of these there are.
        estimates: Every metric, by name.
        regions: What PRO stands on; None when the truth is not one of pixels.
        kinds: By kind of event, where kinds are known.
        comparison: With another score or version, if asked for.
        run_id: The MLflow run.
    """

    detector_version: str
    score: str
    scenes: int
    locations: int
    tiles: int
    positives: int
    flags: int | None
    left_out: LeftOut
    interval_by: str
    groups: int
    estimates: dict[str, Estimate]
    regions: Regions | None
    kinds: dict[str, KindFound]
    comparison: Comparison | None = None
    run_id: str = ""


def flat_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Every estimate as a row of a table: `of`, `metric`, `value`, `low`, `high`."""
    parts = {"all": evaluation.estimates} | {name: found.estimates for name, found in evaluation.kinds.items()}
    if evaluation.comparison:
        parts[f"minus {evaluation.comparison.against}"] = evaluation.comparison.differences
    return [
        {"of": part, "metric": name, "value": one.value, "low": one.low, "high": one.high}
        for part, estimates in parts.items()
        for name, one in estimates.items()
    ]


def number(value: float) -> float | None:
    """A number that JSON knows: None in place of NaN."""
    return float(value) if np.isfinite(value) else None

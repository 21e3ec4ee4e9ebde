"""What verdicts say in numbers: how many of the flags were anomalies, how many anomalies were no flags.

Intervals hold for independent verdicts. Tiles of one event are not independent: where events cover many tiles, the true
uncertainty is greater.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

from tasks.review.verdicts import Verdict

LEVEL = 0.95  # coverage of the intervals

By = Literal["all", "location", "kind", "detector"]


@dataclass(frozen=True)
class Precision:
    """How many of the reviewed flags were anomalies.

    Attributes:
        group: What was counted: `all`, a location, the kind of event, or a detector version; '' where it is not known.
        anomalies: Flags that are anomalies.
        false_alarms: Flags that are none.
        clouds: Flags that are a cloud or a shadow: no anomalies either.
        bad: Flags of which the data are bad. They count neither way.
        share: Anomalies among anomalies, false alarms and clouds; NaN without any.
        low: Lower end of its 95 % interval (Clopper & Pearson 1934, Biometrika 26: exact, never too narrow).
        high: Upper end.
    """

    group: str
    anomalies: int
    false_alarms: int
    clouds: int
    bad: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Missed:
    """How many anomalies there are among tiles of which only some, drawn at random, were reviewed.

    Attributes:
        asked: Tiles that were reviewed, but for those with bad data.
        anomalies: Those of them that are anomalies.
        tiles: For how many tiles they stand: the sum of 1 / share.
        estimate: Anomalies among these tiles (Horvitz & Thompson 1952, JASA 47): the sum of 1 / share over those found.
        low: Lower end of its 95 % interval, by the gamma distribution (Fay & Feuer 1997, Statistics in Medicine 16:
            for sums of counts with different weights; with one weight it is the exact interval of a Poisson number).
        high: Upper end, no more than `tiles`.
    """

    asked: int
    anomalies: int
    tiles: float
    estimate: float
    low: float
    high: float


def precision(verdicts: Sequence[Verdict], by: By = "all") -> list[Precision]:
    """Precision among the reviewed flags, by group, sorted by their names.

    By kind, a verdict counts for the kind that its reviewer chose, whatever they said of the tile: a false alarm of the
    kind fire is something that was taken for a fire. Those without a kind, as most false alarms, are the group ''.

    Args:
        verdicts: Any; those of tiles that were no flags do not count.
        by: What is told apart.
    """
    group_of: Mapping[By, Callable[[Verdict], str]] = {
        "all": lambda one: "all",
        "location": lambda one: one.location,
        "kind": lambda one: one.kind,
        "detector": lambda one: one.detector_version,
    }
    groups: dict[str, list[str]] = defaultdict(list)
    for one in verdicts:
        if one.asked == "flag":
            groups[group_of[by](one)].append(one.verdict)
    return [_precision(group, groups[group]) for group in sorted(groups)]


def missed(verdicts: Sequence[Verdict]) -> Missed | None:
    """Anomalies among the tiles below their threshold, by those drawn at random; None when none of them was reviewed.

    Tiles that were drawn and never reviewed count neither way: the estimate is of the tiles that the others stand for.
    """
    return _estimated([one for one in verdicts if one.asked == "sample"])


def wrongly_suppressed(verdicts: Sequence[Verdict]) -> Missed | None:
    """Anomalies among the flags that were suppressed, by those drawn at random; None when none was reviewed."""
    return _estimated([one for one in verdicts if one.asked == "suppressed"])


def recent(verdicts: Sequence[Verdict], until: date, days: int) -> list[Verdict]:
    """The verdicts of scenes of the last days.

    Args:
        verdicts: Any.
        until: The last day.
        days: How many days, the last one included.
    """
    return [one for one in verdicts if until - timedelta(days=days) < one.night <= until]


def _precision(group: str, said: Sequence[str]) -> Precision:
    anomalies, alarms, clouds = (said.count(one) for one in ("anomaly", "false alarm", "cloud or shadow"))
    known = anomalies + alarms + clouds
    share, low, high = np.nan, np.nan, np.nan
    if known:
        from scipy.stats import binomtest  # when it is asked for: most commands do without scipy

        interval = binomtest(anomalies, known).proportion_ci(LEVEL, method="exact")
        share, low, high = anomalies / known, float(interval.low), float(interval.high)
    return Precision(group, anomalies, alarms, clouds, said.count("bad data"), share, low, high)


def _estimated(drawn: Sequence[Verdict]) -> Missed | None:
    known = [one for one in drawn if one.anomaly is not None]
    if not known:
        return None
    weights = np.array([1 / one.share for one in known])
    found = weights[[bool(one.anomaly) for one in known]]
    low, high = _gamma_interval(found, weights.max())
    tiles = float(weights.sum())
    return Missed(len(known), len(found), tiles, float(found.sum()), min(low, tiles), min(high, tiles))


def _gamma_interval(found: np.ndarray, greatest: float) -> tuple[float, float]:
    """Interval of a sum of weights over what was found; `greatest` is the largest weight that could have been found."""
    from scipy.stats import chi2  # as above

    beyond = (1 - LEVEL) / 2
    total, variance = float(found.sum()), float((found**2).sum())
    low = variance / (2 * total) * float(chi2.ppf(beyond, 2 * total**2 / variance)) if total else 0.0
    total, variance = total + greatest, variance + greatest**2
    return low, variance / (2 * total) * float(chi2.isf(beyond, 2 * total**2 / variance))

"""How scores of a series are judged: false alarms, and events found within some clear dates of their start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.problems.romania import FEW, Altered, Event, Scores, Series
from configs.schema import CalibrationSettings
from tasks.intervals import REPETITIONS, Interval, draws, percentile_interval
from vae.calibration import Calibration, fit_calibration, fit_place_levels

RATES = (0.01, 0.05)
AFTER = (1, 3, 5)  # clear dates
LEAST = 0.03  # of a score: less is nothing
ALARMING = 5.0  # times the nominal rate: no date should have such a share of flags without an alarm for the scene


@dataclass
class Run:
    """What a method gave.

    Attributes:
        family: Of the method.
        untouched: (T, N) scores of the series as it is.
        copies: The same of each copy with events.
    """

    family: str
    untouched: Scores
    copies: list[Scores] = field(default_factory=list)


class Judgement(NamedTuple):
    """Dates, judged by the product's own calibration.

    Attributes:
        relative: (T, N) scores as multiples of what is usual at the place on this night; NaN on dates with too few.
        flags: (T, N) bool.
        alarms: (T,) bool, the scene as a whole is unusual.
    """

    relative: Scores
    flags: NDArray[np.bool_]
    alarms: NDArray[np.bool_]


def calibrated(scores: Scores, dates: NDArray[np.int64], rate: float) -> Calibration:
    """Calibrate on some dates: as in a training, the earlier half says what is usual where, the later half how often
    what is seen.

    Args:
        scores: (T, N) raw scores.
        dates: Indices of the dates that may be learned from, ascending.
        rate: Of false alarms.
    """
    earlier, later = np.array_split(dates, 2)
    settings = CalibrationSettings(false_alarm_rate=rate)
    places = fit_place_levels(*_rows(scores, earlier), least=0.0, prior=settings.place_prior)
    values, days, tiles = _rows(scores, later)
    made = {"score": "", "pool": "p90", "least": 0.0, "runtime": {}, "bands": (), "detector": ""}
    return fit_calibration(values, days, days, tiles, settings, basis="held_out", levels=places, **made)


def _rows(scores: Scores, dates: NDArray[np.int64]) -> tuple[Scores, list[str], list[str]]:
    """All scores of some dates one after another, with their dates and places."""
    days = [str(date) for date in dates for _ in range(scores.shape[1])]
    return _floored(scores[dates]).ravel(), days, _places(scores) * len(dates)


def judged(scores: Scores, by: Calibration) -> Judgement:
    """Judge (T, N) raw scores date by date."""
    found = Judgement(np.full(scores.shape, np.nan), np.zeros(scores.shape, bool), np.zeros(len(scores), bool))
    for date in np.flatnonzero(np.isfinite(scores).sum(axis=1) >= FEW):
        one = by.judge(_floored(scores[date]), _places(scores))
        found.relative[date], found.flags[date], found.alarms[date] = one.score, one.flagged, bool(one.night.alarm)
    return found


def calibrated_row(name: str, run: Run, series: Series, copies: Sequence[Altered]) -> dict[str, Any]:
    """False alarms and recall of a method at its own threshold, which knows nothing of the tests."""
    tested, before = (_usable(series, run.untouched, later) for later in (True, False))
    row: dict[str, Any] = {"score": name, "calibrating_dates": len(before)}
    for rate in RATES:
        calibration = calibrated(run.untouched, before, rate)
        untouched = judged(run.untouched, calibration)
        row["calibrating_tiles"] = calibration.tiles
        row[percent(rate)] = false_alarms(
            untouched.flags[tested], run.untouched[tested], untouched.alarms[tested], series, tested, rate
        ) | recall([judged(copy, calibration).flags for copy in run.copies], untouched.flags, copies)
    return row


def false_alarms(
    flags: NDArray[np.bool_],
    scores: Scores,
    alarms: NDArray[np.bool_],
    series: Series,
    dates: NDArray[np.int64],
    rate: float,
) -> dict[str, Any]:
    """The rate on all test dates, with an interval by dates; on the worst one; and by year and area."""
    share = _share(flags, scores)
    flagged, known = flags.sum(axis=1), np.isfinite(scores).sum(axis=1)
    drawn = (times @ flagged / (times @ known) for times in draws(len(flags), REPETITIONS, 0))
    worst = int(np.argmax(share))
    high = share > ALARMING * rate
    per = series.years * series.area
    side = int(np.sqrt(flags.shape[1]))
    areas = sum(ndimage.label(row.reshape(side, side), np.ones((3, 3)))[1] for row in flags)
    return {
        "false_alarm_rate": _interval(percentile_interval(float(flagged.sum() / known.sum()), drawn, len(flags))),
        "worst_date": str(series.days[dates[worst]]),
        "worst_date_rate": round(float(share[worst]), 3),
        "dates_above_5_nominal": int(high.sum()),
        "of_these_without_alarm": int((high & ~alarms).sum()),
        "scene_alarms": int(alarms.sum()),
        "false_tiles_per_year_km2": round(float(flagged.sum() / per), 2),
        "false_areas_per_year_km2": round(areas / per, 2),
    }


def equal_row(name: str, run: Run, series: Series, copies: Sequence[Altered], rate: float) -> dict[str, Any]:
    """Recall of a method at a share of false alarms."""
    scores, altered_scores, threshold = at_equal(run, series, rate)
    found = recall([one > threshold for one in altered_scores], scores > threshold, copies)
    tested = _usable(series, run.untouched, True)
    actual = (scores[tested] > threshold).sum() / np.isfinite(scores[tested]).sum()
    return {"score": name, "family": run.family, "rate": rate, "false_alarm_rate": round(float(actual), 4)} | found


def at_equal(run: Run, series: Series, rate: float) -> tuple[Scores, list[Scores], float]:
    """Scores of the untouched series and of the copies, and the threshold that flags at most a share of the tests.

    Ours are relative to the place and the date, as they are calibrated; the peers' are as they are.
    """
    tested = _usable(series, run.untouched, True)
    if run.family == "ours":
        calibration = calibrated(run.untouched, _usable(series, run.untouched, False), rate)
        scores, copies = (
            judged(run.untouched, calibration).relative,
            [judged(c, calibration).relative for c in run.copies],
        )
    else:
        scores, copies = run.untouched, run.copies
    known = np.sort(scores[tested][np.isfinite(scores[tested])])
    return scores, copies, float(known[int(np.ceil((1 - rate) * len(known))) - 1])


def recall(
    flags: Sequence[NDArray[np.bool_]], untouched: NDArray[np.bool_], copies: Sequence[Altered]
) -> dict[str, Any]:
    """Share of the events found within some clear dates, with intervals by copies, and what chance would find."""
    found: dict[str, Any] = {}
    for strength in (True, False):
        groups = [[event for event in copy.events if event.strong == strength] for copy in copies]
        delays = [[delay(event, flag) for event in group] for group, flag in zip(groups, flags, strict=True)]
        chance = [[delay(event, untouched) for event in group] for group in groups]
        word = "strong" if strength else "subtle"
        found[word] = {f"within_{dates}": _interval(_recall(delays, dates)) for dates in AFTER}
        found[word] |= {"by_chance_within_3": round(_recall(chance, 3).value, 3)}
        seen = [one for group in delays for one in group if np.isfinite(one)]
        found[word] |= {"median_delay": float(np.median(seen)) if seen else None}
    return found


def delay(event: Event, flags: NDArray[np.bool_]) -> float:
    """On which of its clear dates an event is flagged first, the first being 1; infinite when on none of them."""
    hits = np.flatnonzero(flags[event.dates][:, event.tiles].any(axis=1))
    return float(hits[0] + 1) if len(hits) else float("inf")


def paired(runs: Mapping[str, Run], default: str, series: Series, copies: Sequence[Altered]) -> dict[str, Any]:
    """How far our default is ahead of the best score of nrt, at 1 % of false alarms, by recall within 3 clear dates."""
    rate = RATES[0]

    def found(run: Run) -> list[list[float]]:
        _, scores, threshold = at_equal(run, series, rate)
        return [
            [float(delay(event, one > threshold) <= 3) for event in copy.events]
            for one, copy in zip(scores, copies, strict=True)
        ]

    peers = {name: found(run) for name, run in runs.items() if run.family == "nrt"}
    best = max(peers, key=lambda name: np.mean([hit for group in peers[name] for hit in group]))
    ours, theirs = found(runs[default]), peers[best]
    differences = np.array([sum(a) - sum(b) for a, b in zip(ours, theirs, strict=True)], dtype=float)
    sizes = np.array([len(group) for group in ours])
    drawn = (times @ differences / (times @ sizes) for times in draws(len(copies), REPETITIONS, 0))
    interval = percentile_interval(float(differences.sum() / sizes.sum()), drawn, len(copies))
    return {"default": default, "best_nrt": best, "rate": rate, "difference_of_recall_within_3": _interval(interval)}


def _usable(series: Series, scores: Scores, tested: bool) -> NDArray[np.int64]:
    """Indices of the dates of the tests, or before them, on which enough tiles have a score."""
    enough = np.isfinite(scores).sum(axis=1) >= FEW
    return np.flatnonzero(enough & (series.tested == tested))


def _floored(scores: Scores) -> Scores:
    """Scores, what is almost nothing made the least number that matters: their logarithms are compared."""
    return np.maximum(scores, LEAST)


def _places(scores: Scores) -> list[str]:
    """Names of the N tiles."""
    return [str(tile) for tile in range(scores.shape[1])]


def _share(flags: NDArray[np.bool_], scores: Scores) -> Scores:
    """(dates,) share of the tiles with a score that are flagged."""
    return flags.sum(axis=1) / np.maximum(np.isfinite(scores).sum(axis=1), 1)


def _recall(delays: Sequence[Sequence[float]], dates: int) -> Interval:
    """Share of the events found in time, with an interval by copies of the series."""
    hits = np.array([sum(one <= dates for one in group) for group in delays], dtype=float)
    sizes = np.array([len(group) for group in delays], dtype=float)
    drawn = (
        times @ hits / (times @ sizes) if times @ sizes else float("nan") for times in draws(len(sizes), REPETITIONS, 0)
    )
    return percentile_interval(float(hits.sum() / max(sizes.sum(), 1)), drawn, len(sizes))


def _interval(interval: Interval) -> dict[str, float]:
    return {name: round(getattr(interval, name), 4) for name in ("value", "low", "high")}


def percent(rate: float) -> str:
    """A rate in words, as keys of what is reported."""
    return f"{rate:.0%}"

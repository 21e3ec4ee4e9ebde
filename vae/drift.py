"""Is tonight's input still what the detector was made for?

Everything is judged from the histograms of `vae.drift_profile`, in four steps. (1) A location's last few nights, taken
together, are compared with the training dates of its season: per band the population stability index,
Kolmogorov-Smirnov and Wasserstein distances, how far all bands moved the same way, and how far the latent means and the
median score moved. (2) The statistic is the median over the locations, each weighing as many tiles as it has: a flood
in one place is no drift, a changed sensor is seen everywhere. (3) The same number is computed for every run of as many
training dates against the other dates: how far those scatter by nature is the null, one for all statistics together.
(4) A night alarms beyond `margin` times the null; only `patience` such nights in a row are drift.

Dates, not tiles, are what is drawn: the null is as wide as dates differ, however many tiles each has. A test that took
tiles for independent would, with enough of them, call every night different.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date

import numpy as np

from configs.schema import DriftSettings
from vae.drift_profile import (
    BAND_BINS,
    LATENT_BINS,
    LATENT_RANGE,
    SCORE_DECADES,
    Histograms,
    Profile,
)
from vae.errors import DriftError

PSI_GROUPS = 10  # the index is computed over tenths of the baseline
PSI_FLOOR = 1e-3  # share that an empty group is taken to hold, so that its logarithm stays finite
REPORTED_ONLY = ("psi_", "ks_")  # told, never judged: heavy-tailed, and in simulated seasons without power of their own
FEWEST_NULL_RUNS = 3
INDEPENDENT_RUNS = 10
DAYS_OF_YEAR = 365.25


def statistics(tonight: Histograms, baseline: Histograms) -> dict[str, float]:
    """How far two sets of histograms lie apart.

    Returns:
        For each band `psi_<band>` (population stability index over tenths of the baseline), `ks_<band>` (largest
        difference of the distribution functions) and `wasserstein_<band>` (normalised units);
        `brightness_shift`, |mean over the bands of how far their means moved|: seasons move bands apart, a changed
        gain moves all one way; `latent_shift`, the mean over latent channels of |difference of means| / baseline
        standard deviation (not of a detector without a network);
        `score_shift`, |difference of the median log10 scores|. All are 0 for equal histograms.
    """
    if tonight.bands != baseline.bands or tonight.clip != baseline.clip:
        raise DriftError(
            f"tonight has bands {', '.join(tonight.bands)}, the baseline {', '.join(baseline.bands)}: "
            "both must come from one detector"
        )
    found, shifts = {}, []
    width = 2 * tonight.clip / BAND_BINS
    for number, band in enumerate(tonight.bands):
        now, before = _shares(tonight.values[number]), _shares(baseline.values[number])
        difference = np.cumsum(before) - np.cumsum(now)
        shifts.append(width * difference.sum())  # between distribution functions lies the difference of the means
        found[f"psi_{band}"] = _psi(now, before)
        found[f"ks_{band}"] = float(np.abs(difference).max())
        found[f"wasserstein_{band}"] = float(np.abs(difference).sum() * width)
    found["brightness_shift"] = abs(float(np.mean(shifts)))
    if len(baseline.latent):
        found["latent_shift"] = _latent_shift(tonight.latent, baseline.latent)
    found["score_shift"] = abs(median(tonight.scores, *SCORE_DECADES) - median(baseline.scores, *SCORE_DECADES))
    return found


def baseline_for(
    profile: Profile, location: str, day: date, settings: DriftSettings, without: Collection[date] = ()
) -> Histograms | None:
    """What training saw at this location and time of the year, in whatever year; None for an unknown location.

    Args:
        profile: Of the training dates.
        location: Where.
        day: The night that is judged.
        settings: With fewer than `min_dates` dates within `season_days` of the day of the year, all dates are taken.
        without: Dates to leave out.
    """
    dates = {w: found for (where, w), found in profile.entries.items() if where == location and w not in without}
    season = [found for when, found in dates.items() if days_of_year_apart(when, day) <= settings.season_days]
    return _sum(season if len(season) >= settings.min_dates else dates.values())


def days_of_year_apart(one: date, other: date) -> float:
    """Days between two dates when the year is a circle: 31 December and 1 January are one day apart."""
    apart = abs(one.timetuple().tm_yday - other.timetuple().tm_yday)
    return min(apart, DAYS_OF_YEAR - apart)


def window_length(profile: Profile, settings: DriftSettings) -> int:
    """How many nights are looked at together: `window`, or fewer when training has not ten times as many dates.

    Overlapping runs of few dates resemble each other, and would make the null too narrow.
    """
    dates = len(profile.usable_dates(settings.min_tiles))
    return max(1, min(settings.window, dates // INDEPENDENT_RUNS))


def window_statistics(
    window: Mapping[str, Histograms],
    profile: Profile,
    day: date,
    settings: DriftSettings,
    without: Collection[date] = (),
) -> dict[str, float] | None:
    """Some nights together against training: the median over their locations, weighed by tiles.

    Args:
        window: Histograms of the nights by location, see `Profile.pooled`.
        profile: Of the training dates.
        day: The last of the nights.
        settings: `season_days`, `min_dates`.
        without: Training dates to leave out, when the nights are these themselves.

    Returns:
        None when nothing can be compared: no tile, or no location that training knows.
    """
    pairs = compared(window, profile, day, settings, without)
    if not pairs:
        return None
    found = [statistics(tonight, baseline) for tonight, baseline in pairs.values()]
    weights = [tonight.tiles for tonight, _ in pairs.values()]
    return {name: weighted_median([one[name] for one in found], weights) for name in found[0]}


def compared(
    window: Mapping[str, Histograms],
    profile: Profile,
    day: date,
    settings: DriftSettings,
    without: Collection[date] = (),
) -> dict[str, tuple[Histograms, Histograms]]:
    """What is held against what: the nights and their baseline, by location; arguments as of `window_statistics`."""
    found = {}
    for location, tonight in sorted(window.items()):
        baseline = baseline_for(profile, location, day, settings, without)
        if tonight.tiles and baseline is not None and baseline.tiles:
            found[location] = tonight, baseline
    return found


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The smallest value that, with all smaller ones, holds half of the weight; with two halves, their mean."""
    order = np.argsort(values, kind="stable")
    ordered, reached = np.asarray(values)[order], np.cumsum(np.asarray(weights)[order])
    half = reached[-1] / 2
    middle = int(np.searchsorted(reached, half))
    return float((ordered[middle] + ordered[middle + 1]) / 2 if reached[middle] == half else ordered[middle])


def median(counts: np.ndarray, low: float, high: float) -> float:
    """Median of a histogram over [low, high], linear within its bin."""
    width = (high - low) / len(counts)
    half = counts.sum() / 2
    bin_number = int(np.searchsorted(np.cumsum(counts), half))
    before = counts[:bin_number].sum()
    return float(low + width * (bin_number + (half - before) / max(1, counts[bin_number])))


def null_by_dates(profile: Profile, settings: DriftSettings) -> dict[str, float]:
    """How far training dates lie from each other by nature.

    Every run of `window_length` training dates is judged as if it were the last nights, against the other dates of its
    season. Each statistic's 95th percentile over the runs is widened by one common factor, so that 95 % of the runs lie
    below *all* that are judged: many are looked at every night, and each would add its own false alarms.

    Returns:
        This simultaneous 95th percentile, by statistic.

    Raises:
        DriftError: Fewer than three runs can be judged.
    """
    judged = []
    days = profile.usable_dates(settings.min_tiles)
    length = window_length(profile, settings)
    for end in range(length, len(days) + 1):
        run = days[end - length : end]
        found = window_statistics(profile.pooled(run), profile, run[-1], settings, without=run)
        if found is not None:
            judged.append(found)
    if len(judged) < FEWEST_NULL_RUNS:
        raise DriftError(
            f"{len(judged)} training dates can be compared with others of their location, {FEWEST_NULL_RUNS} are "
            "needed to know how far nights lie apart by nature: train on more dates, or lower drift.min_tiles"
        )
    table = np.array([list(found.values()) for found in judged])
    ordinary = np.maximum(np.percentile(table, 95, axis=0), 1e-9)
    is_judged = [not name.startswith(REPORTED_ONLY) for name in judged[0]]
    together = max(1.0, float(np.percentile((table / ordinary)[:, is_judged].max(axis=1), 95)))
    return {name: float(value * together) for name, value in zip(judged[0], ordinary, strict=True)}


def verdict(
    found: Mapping[str, float],
    null: Mapping[str, float],
    settings: DriftSettings,
    moved: Mapping[str, str] | None = None,
) -> list[str]:
    """Why a night alarms, in words, the strongest first; empty when it does not.

    Args:
        found: From `window_statistics`.
        null: From `null_by_dates`.
        settings: Beyond `margin` times the null a statistic alarms.
        moved: What moved, which way, how far and where, by statistic, see `vae.drift_effects`; it is said as well.

    Raises:
        DriftError: The statistics are not those of the null.
    """
    if found.keys() != null.keys():
        raise DriftError(
            "tonight's statistics and those of training have different names: both must be of one detector"
        )
    times = {name: value / null[name] for name, value in found.items()}
    more = {name: f": {words}" for name, words in (moved or {}).items()}
    return [
        f"{in_words(name)} {found[name]:.2g} is {times[name]:.1f} × what training dates show ({null[name]:.2g})"
        + more.get(name, "")
        for name in sorted(times, key=lambda name: -times[name])
        if times[name] > settings.margin and not name.startswith(REPORTED_ONLY)
    ]


def lasting(alarms: Sequence[bool | None], patience: int) -> int | None:
    """Where the drift that lasts until now began.

    Args:
        alarms: One entry a night in date order; None for a night without a verdict, which neither counts nor breaks
            a run.
        patience: Alarming nights in a row that make it a drift.

    Returns:
        Index of the first alarm of the run that reaches to the end; None when there is none or it is too short.
    """
    run: list[int] = []
    for index, alarm in enumerate(alarms):
        if alarm is not None:
            run = [*run, index] if alarm else []
    return run[0] if len(run) >= patience else None


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())


def _sum(parts: Iterable[Histograms]) -> Histograms | None:
    total: Histograms | None = None
    for part in parts:
        total = part if total is None else total + part
    return total


def _psi(now: np.ndarray, before: np.ndarray) -> float:
    """Σ (now - before) ln(now / before) over tenths of the baseline: finer groups would measure mere emptiness."""
    group = np.minimum((np.cumsum(before) - before / 2) * PSI_GROUPS, PSI_GROUPS - 1).astype(int)
    now, before = (
        np.maximum(np.bincount(group, weights=part, minlength=PSI_GROUPS), PSI_FLOOR) for part in (now, before)
    )
    return float(((now - before) * np.log(now / before)).sum())


def _latent_shift(now: np.ndarray, before: np.ndarray) -> float:
    width = 2 * LATENT_RANGE / LATENT_BINS
    centres = -LATENT_RANGE + width * (np.arange(LATENT_BINS) + 0.5)
    mean_now, mean_before = ((counts @ centres) / np.maximum(1, counts.sum(axis=1)) for counts in (now, before))
    spread = (before @ centres**2) / np.maximum(1, before.sum(axis=1)) - mean_before**2
    # A channel that is never used hardly varies; its spread cannot be known to better than a bin.
    return float(np.mean(np.abs(mean_now - mean_before) / np.maximum(np.sqrt(np.maximum(spread, 0)), width)))


def in_words(name: str) -> str:
    """The name of a statistic for people."""
    kind, _, rest = name.partition("_")
    kinds = {"psi": "PSI", "ks": "Kolmogorov-Smirnov", "wasserstein": "Wasserstein"}
    return f"{rest} {kinds[kind]}" if kind in kinds else name.replace("_", " ")

"""What a drift is made of, for people: which band, which way, how far, and where.

The statistics of `vae.drift` say how unusual a night is among training dates. These effect sizes say how far it moved,
in standard deviations of what training saw there (Glass 1976, *Primary, secondary, and meta-analysis of research*):
neither grows with the number of tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np

from configs.schema import DriftSettings
from vae.drift import compared, median, weighted_median
from vae.drift_profile import LATENT_RANGE, SCORE_DECADES, Histograms, Profile

TYPICAL_DEVIATION = 0.8  # mean |x| of a normal variable, in standard deviations: √(2/π)


@dataclass(frozen=True)
class Effect:
    """How far one thing moved: over all locations, and where it moved most. Negative is lower.

    Attributes:
        what: A band, all bands, a channel of the latent, or the scores.
        size: Standard deviations of training; the median over the locations, weighed by tiles.
        location: Where it moved most.
        there: Its size there.
        widened: How many times as wide as in training the values spread there.
        medians: In training and now, there, in physical units; None of what has none.
        alone: There is no other location.
    """

    what: str
    size: float
    location: str
    there: float
    widened: float = 1.0
    medians: tuple[float, float] | None = None
    alone: bool = True

    def __str__(self) -> str:
        where = "" if self.alone else f", most at {self.location} ({self.there:+.2g})"
        if abs(self.there) < TYPICAL_DEVIATION * abs(self.widened - 1):
            return f"{self.what} spread {self.widened:.2g} × as wide as in training at {self.location}"
        if self.medians:
            before, now = self.medians
            where += f", median {_short(now)} instead of {_short(before)}"
        way = "higher" if self.size > 0 else "lower"
        return f"{self.what} {way} by {abs(self.size):.2g} standard deviations{where}"


def effects(
    window: Mapping[str, Histograms],
    profile: Profile,
    day: date,
    settings: DriftSettings,
    physical: Callable[[str, float], float] = lambda band, value: value,
) -> dict[str, Effect]:
    """How far what each judged statistic looks at has moved.

    Args:
        window: Histograms of some nights by location, see `Profile.pooled`.
        profile: Of the training dates.
        day: The last of the nights.
        settings: `season_days`, `min_dates`.
        physical: Gives a normalised value of a band in physical units.

    Returns:
        By the name of the statistic: `wasserstein_<band>`, `brightness_shift` (all bands together), `latent_shift` (the
        channel that moved most; not of a detector without a network), `score_shift`. Empty when nothing compares.
    """
    pairs = compared(window, profile, day, settings)
    if not pairs:
        return {}
    some = next(iter(pairs.values()))[0]
    weights = {location: tonight.tiles for location, (tonight, _) in pairs.items()}

    def of(counts: Callable[[Histograms], np.ndarray], low: float, high: float) -> dict[str, _Moved]:
        return {place: _moved(counts(now), counts(before), low, high) for place, (now, before) in pairs.items()}

    def band(one: Histograms, number: int) -> np.ndarray:
        return one.values[number]

    def channel(one: Histograms, number: int) -> np.ndarray:
        return one.latent[number]

    by_band = [of(partial(band, number=number), -some.clip, some.clip) for number in range(len(some.bands))]
    latent = [of(partial(channel, number=n), -LATENT_RANGE, LATENT_RANGE) for n in range(len(some.latent))]
    together = {place: _Moved(float(np.mean([moved[place].size for moved in by_band]))) for place in pairs}
    found = {
        f"wasserstein_{name}": _effect(name, moved, weights, partial(physical, name))
        for name, moved in zip(some.bands, by_band, strict=True)
    }
    found["brightness_shift"] = _effect("all bands together", together, weights)
    if latent:
        channels = [_effect(f"latent channel {number}", moved, weights) for number, moved in enumerate(latent)]
        found["latent_shift"] = max(channels, key=lambda effect: abs(effect.size))
    scores = of(lambda one: one.scores, *SCORE_DECADES)
    found["score_shift"] = _effect("scores", scores, weights, lambda decades: 10**decades)
    return found


@dataclass(frozen=True)
class _Moved:
    """A distribution against that of training: difference of means and spread, in units of its spread; medians."""

    size: float
    widened: float = 1.0
    medians: tuple[float, float] = (math.nan, math.nan)


def _moved(now: np.ndarray, before: np.ndarray, low: float, high: float) -> _Moved:
    (mean_now, spread_now, median_now), (mean, spread, median) = (_moments(one, low, high) for one in (now, before))
    return _Moved(float(mean_now - mean) / spread, spread_now / spread, (median, median_now))


def _moments(counts: np.ndarray, low: float, high: float) -> tuple[float, float, float]:
    """Mean, standard deviation (one bin at least: it cannot be known to better) and median of a histogram."""
    width = (high - low) / len(counts)
    centres = low + width * (np.arange(len(counts)) + 0.5)
    total = max(1, counts.sum())
    mean = float(counts @ centres / total)
    spread = math.sqrt(max(0.0, float(counts @ (centres - mean) ** 2) / total))
    return mean, max(spread, width), median(counts, low, high)


def _effect(
    what: str, moved: Mapping[str, _Moved], weights: Mapping[str, int], units: Callable[[float], float] | None = None
) -> Effect:
    most = max(moved, key=lambda place: abs(moved[place].size))
    there = moved[most]
    return Effect(
        what,
        size=weighted_median([one.size for one in moved.values()], list(weights.values())),
        location=most,
        there=there.size,
        widened=there.widened,
        medians=(units(there.medians[0]), units(there.medians[1])) if units else None,
        alone=len(moved) == 1,
    )


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"

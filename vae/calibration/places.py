"""What a score usually is at each place: towns and forest edges score high every night, and that is no news."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae.calibration.robust import MAD_TO_STD, MEDIAN_VARIANCE, Floats, groups, log_scores
from vae.errors import CalibrationError

SWEEPS = 10  # of the median polish; it settles in two or three


@dataclass(frozen=True)
class PlaceLevels:
    """The usual log score of each place, shrunk towards that of all places.

    Attributes:
        names: (P,) tile ids, ascending.
        levels: (P,) float64, usual logarithm of the score above its least value, shrunk.
        counts: (P,) int64, dates that each place was seen on.
        elsewhere: The level of a place without a history: the median of the places.
        prior: Dates that weigh as much as what is known of all places; inf where places do not differ.
    """

    names: tuple[str, ...]
    levels: Floats
    counts: np.ndarray
    elsewhere: float
    prior: float

    def of(self, places: Sequence[str] | None, count: int) -> Floats:
        """(N,) usual log scores of N places; without names, all have the level of all places."""
        if places is None:
            return np.full(count, self.elsewhere)
        if len(places) != count:
            raise CalibrationError(f"{len(places)} places were named for {count} scores: name one for each")
        index = {name: number for number, name in enumerate(self.names)}
        return np.array([self.levels[index[p]] if p in index else self.elsewhere for p in places], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON; a prior without bound is null."""
        prior = self.prior if np.isfinite(self.prior) else None
        return {"names": list(self.names), "elsewhere": self.elsewhere, "prior": prior}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], levels: Floats, counts: np.ndarray) -> PlaceLevels:
        """Rebuild from what `to_dict` gave and the two arrays."""
        prior = float("inf") if content["prior"] is None else float(content["prior"])
        return cls(
            tuple(content["names"]),
            np.asarray(levels, np.float64),
            np.asarray(counts, np.int64),
            float(content["elsewhere"]),
            prior,
        )


def fit_place_levels(
    scores: np.ndarray, scenes: Sequence[str], places: Sequence[str], *, least: float, prior: float | None
) -> PlaceLevels:
    """The usual log score of each place, from dates that do not calibrate.

    Places and scenes are told apart by a median polish (Tukey 1977, Exploratory Data Analysis, ch. 11): a place that
    was seen on hazy nights only is not taken for an unusual one. A place's level is then drawn towards that of all
    places by n / (n + prior), n being its dates. Without a given prior, it is the one by which the error of a median
    of n dates and the true differences of places balance (empirical Bayes; Morris 1983, JASA 78).

    Args:
        scores: (N,) raw scores; NaN (tiles without a score) are left out.
        scenes: (N,) scene of each.
        places: (N,) tile of each.
        least: Smallest value the score can take.
        prior: Dates that all places weigh; 0 takes each place at its word, null is estimated.

    Raises:
        CalibrationError: There is no score at all.
    """
    values = log_scores(scores, least)
    seen = np.flatnonzero(np.isfinite(values))
    if not len(seen):
        raise CalibrationError("no tile of the training dates has a score, so nothing is usual: check the masks")
    values = values[seen]
    names, place = np.unique(np.asarray(places, dtype=str)[seen], return_inverse=True)
    _, scene = np.unique(np.asarray(scenes, dtype=str)[seen], return_inverse=True)
    by_place, by_scene = groups(place), groups(scene)

    at_scene = np.zeros(len(by_scene))
    at_place = np.zeros(len(names))
    for _ in range(SWEEPS):  # places first: what several locations differ by is then the places', not the nights'
        at_place = np.array([np.median(values[rows] - at_scene[scene[rows]]) for rows in by_place])
        before, at_scene = at_scene, np.array([np.median(values[rows] - at_place[place[rows]]) for rows in by_scene])
        if np.abs(at_scene - before).max() < 1e-6:
            break
    counts = np.array([len(rows) for rows in by_place], dtype=np.int64)
    elsewhere = float(np.median(at_place))
    if prior is None:
        prior = _estimated_prior(values - at_place[place] - at_scene[scene], at_place, counts)
    weights = counts / (counts + prior) if np.isfinite(prior) else np.zeros(len(counts))
    return PlaceLevels(
        tuple(names.tolist()), elsewhere + weights * (at_place - elsewhere), counts, elsewhere, float(prior)
    )


def _estimated_prior(left: Floats, at_place: Floats, counts: np.ndarray) -> float:
    """Variance of a place's median over one date, divided by the variance between places."""
    freedom = len(left) / max(len(left) - len(counts), 1)
    error = MEDIAN_VARIANCE * freedom * float(np.square(MAD_TO_STD * np.median(np.abs(left))))
    found = float(np.square(MAD_TO_STD * np.median(np.abs(at_place - np.median(at_place)))))
    between = found - error * float(np.mean(1 / counts))
    if error <= 0:
        return 0.0
    return error / between if between > 0 else float("inf")

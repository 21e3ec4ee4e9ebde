"""What a score usually is at each place: cities reconstruct badly every night, and that is no news."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vae.errors import CalibrationError

SMALLEST = 1e-6  # a score above its least value is taken to be at least this, so that its logarithm exists


@dataclass(frozen=True)
class PlaceLevels:
    """The usual score of each place, by which its scores are divided.

    Args:
        levels: Place to the median of its scores on the dates that were learned from.
        elsewhere: The level of a place with too short a history: the median over the known places.
    """

    levels: dict[str, float]
    elsewhere: float

    def of(self, places: Sequence[str] | None, count: int) -> np.ndarray:
        """(N,) levels of N places; without names, all are judged by the same level."""
        if places is None:
            return np.full(count, self.elsewhere)
        return np.array([self.levels.get(place, self.elsewhere) for place in places], dtype=np.float64)


def fit_levels(places: Sequence[str], scores: np.ndarray, min_history: int) -> PlaceLevels:
    """The usual score of each place.

    A median is not moved by the few dates on which something did happen.

    Args:
        places: Tile of each score.
        scores: (N,) scores above the least they can be; NaN (tiles without a score) are left out.
        min_history: A place with fewer scores is judged by the level of all places.

    Raises:
        CalibrationError: There is no score at all.
    """
    by_place: dict[str, list[float]] = {}
    for place, score in zip(places, scores, strict=True):
        if np.isfinite(score):
            by_place.setdefault(place, []).append(max(float(score), SMALLEST))
    if not by_place:
        raise CalibrationError("no tile of the training dates has a score, so nothing is usual: check the masks")
    medians = {place: float(np.median(found)) for place, found in sorted(by_place.items())}
    elsewhere = float(np.median(list(medians.values())))
    return PlaceLevels({p: level for p, level in medians.items() if len(by_place[p]) >= min_history}, elsewhere)

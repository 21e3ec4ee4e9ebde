"""A scene judged: tiles with a past and tiles without one are judged by calibrations of their own, and put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vae.calibration import Judged, NightLevel


@dataclass(frozen=True, eq=False)
class SceneJudgement:
    """All tiles of one scene, judged.

    Attributes:
        score: (N,) how many times the usual: 1 is as usual for this place on this night. NaN without a score.
        p_value: (N,).
        flagged: (N,) bool.
        threshold: (N,) the score that had to be passed.
        nights: What the scene's tiles have in common, by name of the score; the kind with most tiles first.
        basis: (N,) `calibrated`, or `in_scene`: judged by the other tiles of its scene only, and not calibrated.
    """

    score: np.ndarray
    p_value: np.ndarray
    flagged: np.ndarray
    threshold: np.ndarray
    nights: Mapping[str, NightLevel]
    basis: np.ndarray
    judged: Mapping[str, Judged]
    kind: np.ndarray
    place: np.ndarray  # (N,) row of the tile among those of its kind

    @property
    def night(self) -> NightLevel | None:
        """Of the kind with most tiles; None when no tile has a score."""
        return next(iter(self.nights.values()), None)

    @property
    def alarm(self) -> str | None:
        """Why the scene as a whole is unusual, in words."""
        return next((night.alarm for night in self.nights.values() if night.alarm), None)

    def relative(self, raw: np.ndarray, index: int) -> np.ndarray:
        """A heatmap of raw scores of tile `index`, on the scale of `score`."""
        made = self.judged.get(self.kind[index])
        return raw if made is None else made.relative(raw, int(self.place[index]))


def joined(kind: np.ndarray, judged: Mapping[str, Judged]) -> SceneJudgement:
    """Put the tiles of a scene together.

    Args:
        kind: (N,) name of the score of each tile, '' without one.
        judged: By name of the score, its tiles in the order of the scene.
    """
    count = len(kind)
    score, p_value, threshold = (np.full(count, np.nan) for _ in range(3))
    flagged, place = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64)
    basis = np.full(count, "", dtype=object)
    most_first = dict(sorted(judged.items(), key=lambda item: (-len(item[1].score), item[0])))
    for name, made in most_first.items():
        rows = np.flatnonzero(kind == name)
        score[rows], p_value[rows], flagged[rows] = made.score, made.p_value, made.flagged
        threshold[rows], basis[rows], place[rows] = made.threshold, made.basis, np.arange(len(rows))
    nights = {name: made.night for name, made in most_first.items()}
    return SceneJudgement(score, p_value, flagged, threshold, nights, basis, judged, kind, place)

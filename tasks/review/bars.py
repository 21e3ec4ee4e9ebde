"""Raised bars: a tile that people have called a false alarm again and again must score higher than it did then.

Only what was said of earlier nights counts, so that a night that is reported again is judged as of its day. A cloud or
shadow raises no bar, since it does not come back. A confirmed anomaly takes the false alarms before it back: what is
there now is another thing, and is not to be lost for what it was. Nor do those that follow it at once count: while it
lasts they are mistakes, and when it is over the ground differs from a reference that shows it. Neither says that the
ground is restless.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from configs import Settings, Workspace
from configs.workspace import safe_name
from imagery.catalog import named_file
from tasks.review.verdicts import Verdict
from vae.calibration.repeats import age_weights, raised_bar, reviewed_p_values
from vae.detector import IN_SCENE_RATE, Detector

FORGOTTEN = 10  # half-lives after which a false alarm counts no more


@dataclass(frozen=True)
class Alarm:
    """A false alarm, and how its tile was judged then.

    Attributes:
        said: The verdict.
        kind: Name of the score that the tile was judged by; None when that is not known any more.
        basis: As in the table of scores; None when that is not known any more.
    """

    said: Verdict
    kind: str | None = None
    basis: str | None = None


def standing(verdicts: Sequence[Verdict], night: date, scene_days: Sequence[date], reach: int) -> list[Verdict]:
    """The false alarms of a place that still stand on a night, by scene and tile.

    Args:
        verdicts: All of the place.
        night: Its date; what was said of it or of later nights does not count.
        scene_days: The UTC date of each of its scenes, in order.
        reach: So many scenes after a confirmed anomaly its tile may be compared with a reference that shows it, and
            false alarms there do not count.
    """
    confirmed: dict[str, date] = {}
    past = [one for one in verdicts if one.night < night]
    for one in past:
        if one.anomaly:
            confirmed[one.tile_id] = max(confirmed.get(one.tile_id, date.min), one.night)

    def stands(alarm: Verdict) -> bool:
        last = confirmed.get(alarm.tile_id)
        return last is None or bisect_right(scene_days, alarm.night) - bisect_right(scene_days, last) > reach

    # A tile that was drawn below its threshold was no flag, and to say that it is none is no news.
    return [one for one in past if one.verdict == "false alarm" and one.asked != "sample" and stands(one)]


def as_judged(verdicts: Sequence[Verdict], workspace: Workspace) -> dict[str, list[Alarm]]:
    """False alarms by tile, with what the score files still tell of how they were judged."""
    scenes: dict[Path, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        scenes[scene_path(workspace.scores, one.detector_version, one.scene_id)].append(one)
    found: dict[str, list[Alarm]] = defaultdict(list)
    for path, here in scenes.items():
        judged: dict[str, tuple[str, str]] = {}
        if path.is_file():
            table = pd.read_parquet(path, columns=["tile_id", "kind", "basis"])
            judged = dict(zip(table["tile_id"], zip(table["kind"], table["basis"], strict=True), strict=True))
        for one in here:
            found[one.tile_id].append(Alarm(one, *judged.get(one.tile_id, ())))
    return found


def scene_path(folder: Path, detector_version: str, scene_id: str) -> Path:
    """The Parquet file of a scene among the scores or latents of a detector, by the scene's name alone."""
    return named_file(folder / safe_name(detector_version), scene_id, ".parquet")


def raise_bars(
    scores: pd.DataFrame, alarms: Mapping[str, Sequence[Alarm]], night: date, detector: Detector, settings: Settings
) -> pd.DataFrame:
    """The scores of a scene with the bars of its tiles, and without the flags that do not pass them.

    Args:
        scores: Of one scene, with `bar`, `p_reviewed` and `suppressed` as without any verdict.
        alarms: Standing false alarms, by tile.
        night: Its date.
        detector: It scored them.
        settings: `review` says how much a false alarm counts.
    """
    repeats, half_life = settings.review.repeats, settings.review.half_life
    changed: dict[Any, dict[str, Any]] = {}
    for index, row in scores[scores["tile_id"].isin(alarms.keys()) & scores["score"].notna()].iterrows():
        rate, score_of = _null(row, scores, detector)
        then = {one.said.scene_id: _score_now(one, row, score_of) for one in alarms[row["tile_id"]]}
        counted = [one.said for one in alarms[row["tile_id"]] if then[one.said.scene_id] is not None]
        weights = age_weights(np.array([(night - one.night).days for one in counted]), half_life)
        if repeats is None or not counted or weights.max() < 2.0**-FORGOTTEN:
            continue
        theirs = np.array([then[one.scene_id] for one in counted], dtype=np.float64)
        bar = max(float(row["threshold"]), raised_bar(theirs, weights, repeats, rate, score_of))
        p_value = np.array([row["p_value"]]), np.array([row["score"]])
        changed[index] = {"bar": bar, "p_reviewed": reviewed_p_values(*p_value, theirs, weights, repeats, rate)[0]}
        if row["flagged"] and row["score"] <= bar:
            as_high = [one for one, score in zip(counted, theirs, strict=True) if score >= row["score"]]
            changed[index] |= {"flagged": False, "suppressed": _in_words(bar, as_high)}
    scores = scores.copy()
    for index, values in changed.items():
        scores.loc[index, list(values)] = list(values.values())
    return scores


def _null(row: pd.Series, scores: pd.DataFrame, detector: Detector) -> tuple[float, Callable[[float], float]]:
    """The p-value that a flag of this kind must reach tonight, and the score beyond which p-values are at most so."""
    made, threshold = detector.calibrations.get(row["kind"]), float(row["threshold"])
    if made is None or row["basis"] != "calibrated":
        rate = detector.calibration.false_alarm_rate if detector.calibration else IN_SCENE_RATE
        normal = NormalDist()
        return rate, lambda p: float(threshold ** (normal.inv_cdf(p) / normal.inv_cdf(rate)))
    rate = made.false_alarm_rate
    if made.settings.fdr is not None:  # then the night itself has decided
        passed = scores.loc[(scores["kind"] == row["kind"]) & (scores["score"] > scores["threshold"]), "p_value"]
        rate = float(passed.max()) if len(passed) else rate
    return rate, made.null.threshold


def _score_now(alarm: Alarm, row: pd.Series, score_of: Callable[[float], float]) -> float | None:
    """The score of a false alarm on the scale of tonight's; None where it says nothing of tonight's.

    Scores of one detector are compared as they are, since p-values no longer tell apart what lies beyond all of the
    calibration. Those of another detector, or of scenes without a calibration, are compared by their p-values.
    """
    kind, basis = alarm.kind or row["kind"], alarm.basis or row["basis"]
    if (kind, basis) != (row["kind"], row["basis"]):
        return None
    said = alarm.said
    if said.score is not None and basis == "calibrated" and said.detector_version == row["detector_version"]:
        return said.score
    return score_of(said.p_value) if said.p_value is not None and 0 < said.p_value < 1 else None


def _in_words(bar: float, alarms: Sequence[Verdict]) -> str:
    last = max(one.night for one in alarms)
    several = "a false alarm" if len(alarms) == 1 else f"{len(alarms)} false alarms"
    return f"not above the bar of {bar:.3g} at this tile, which scored as high in {several}, last on {last}"

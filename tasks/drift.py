"""Drift: is tonight's input still what the detector was made for?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from configs import Settings, Workspace
from configs.schema import DriftSettings
from imagery.catalog import SceneRecord
from tasks.nights import NightRecord
from tasks.score import read_profile, score_files
from vae.detector import Detector
from vae.drift import Profile, lasting, null_by_dates, verdict, window_length, window_statistics
from vae.errors import DriftError

MOST_NIGHTS = 30  # of the past that are read to find the last usable ones


@dataclass(frozen=True)
class Drift:
    """The verdict on a night.

    Attributes:
        alarmed: Whether the statistics alarm; None when there is no verdict.
        reasons: Why they alarm, or why there is no verdict.
        began: First night of the drift that lasts until this one; None when there is none.
        statistics: How far the night lies from training.
        limits: What each statistic may be.
        usable_nights: Nights with a verdict since the drift began, this one included.
    """

    alarmed: bool | None
    reasons: tuple[str, ...]
    began: date | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    usable_nights: tuple[date, ...] = ()


def judge_night(
    night: date,
    scenes: Sequence[SceneRecord],
    detector: Detector,
    detector_version: str,
    past: Sequence[NightRecord],
    settings: Settings,
    workspace: Workspace,
) -> Drift:
    """Compare a scored night, and the nights before it, with training.

    Args:
        night: The night.
        scenes: Scenes that this detector scored: those of the night, and of the nights before it.
        detector: The detector, which holds what training looked like.
        detector_version: Its version.
        past: Earlier nights of the same detector, oldest first.
        settings: Limits and patience.
        workspace: Holds the scored scenes' histograms.
    """
    try:
        training, null = _training(detector, settings.drift)
    except DriftError as error:
        return Drift(None, (str(error),))
    seen = Profile()
    recent = {record.night for record in past[-MOST_NIGHTS:]} | {night}
    for record in scenes:
        files = score_files(workspace, detector_version, record)
        if record.day in recent and files.complete:
            seen = seen.merge(read_profile(files.profile))
    usable = seen.usable_dates(settings.drift.min_tiles)
    if night not in usable:
        return Drift(None, (f"fewer than {settings.drift.min_tiles} tiles have a score",))
    window = seen.pooled(usable[-window_length(training, settings.drift) :])
    found = window_statistics(window, training, night, settings.drift)
    if found is None:
        return Drift(None, ("no location of this night is known from training",))
    reasons = tuple(verdict(found, null, settings.drift))
    limits = {name: value * settings.drift.margin for name, value in null.items()}
    alarms = [*((record.night, record.alarmed) for record in past), (night, bool(reasons))]
    start = lasting([alarm for _, alarm in alarms], settings.drift.patience)
    if start is None:
        return Drift(bool(reasons), reasons, None, found, limits)
    nights = tuple(day for day, alarm in alarms[start:] if alarm is not None)
    return Drift(True, reasons, alarms[start][0], found, limits, nights)


@lru_cache(maxsize=4)
def _training(detector: Detector, settings: DriftSettings) -> tuple[Profile, dict[str, float]]:
    """What training looked like, and how far its dates lie apart; computed once a detector."""
    if detector.profile is None:
        raise DriftError("this detector does not hold what its training looked like")
    return detector.profile, null_by_dates(detector.profile, settings)

"""Drift: is tonight's input still what the detector was made for?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache, partial

import torch

from configs import Settings, Workspace
from configs.schema import DriftSettings
from imagery.catalog import SceneRecord
from tasks.nights import NightRecord
from tasks.score import read_profile, score_files
from vae.detector import Detector
from vae.drift import lasting, null_by_dates, verdict, window_length, window_statistics
from vae.drift_effects import Effect, effects
from vae.drift_profile import Profile
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
        effects: How far what it looks at has moved, which way and where.
    """

    alarmed: bool | None
    reasons: tuple[str, ...]
    began: date | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    effects: Mapping[str, Effect] = field(default_factory=dict)


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
        if record.day in recent and files.measured:
            seen = seen.merge(read_profile(files.profile))
    limits = {name: value * settings.drift.margin for name, value in null.items()}
    usable = seen.usable_dates(settings.drift.min_tiles)
    if night not in usable:
        tiles = sum(one.tiles for one in seen.pooled([night]).values())
        return Drift(
            None, (f"{tiles} tiles have a score, drift.min_tiles asks for {settings.drift.min_tiles}",), limits=limits
        )
    window = seen.pooled(usable[-window_length(training, settings.drift) :])
    found = window_statistics(window, training, night, settings.drift)
    if found is None:
        return Drift(None, (f"training knows none of {', '.join(sorted(window))}",), limits=limits)
    moved = effects(window, training, night, settings.drift, partial(_physical, detector))
    reasons = tuple(verdict(found, null, settings.drift, {name: str(effect) for name, effect in moved.items()}))
    alarms = [*((record.night, record.alarmed) for record in past), (night, bool(reasons))]
    start = lasting([alarm for _, alarm in alarms], settings.drift.patience)
    began = None if start is None else alarms[start][0]
    return Drift(bool(reasons), reasons, began, found, limits, moved)


@lru_cache(maxsize=4)
def _training(detector: Detector, settings: DriftSettings) -> tuple[Profile, dict[str, float]]:
    """What training looked like, and how far its dates lie apart; computed once a detector."""
    if detector.profile is None:
        raise DriftError("this detector does not hold what its training looked like")
    return detector.profile, null_by_dates(detector.profile, settings)


def _physical(detector: Detector, band: str, value: float) -> float:
    """A normalised value of a band in physical units."""
    number = detector.bands.index(band)
    return float(detector.normalisation.invert(torch.full((1, len(detector.bands), 1, 1), value))[0, number])

"""Nights: which are due, what became of each, and the record that makes a finished one recognisable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from configs import Period, Settings, Workspace
from configs.remembered import Remembered
from configs.workspace import write_text
from imagery.catalog import SceneRecord
from imagery.quarantine import Quarantine, QuarantineRecord
from tasks.train import usable_scenes
from vae.detector import Detector


@dataclass(frozen=True)
class NightRecord:
    """What became of a night; kept as `reports/<night>/night.json`.

    Attributes:
        night: The UTC date its scenes were acquired.
        detector_version: The one detector that scored it.
        calibration_id: The calibration that made p-values of its scores.
        scenes: Fingerprint of each scene that was used.
        unknown: Scenes of locations the detector was never trained on, which get no score.
        quarantined: Scenes that could not be used, with the reason.
        tiles: Number of tiles of the scenes used.
        scored: How many of them have a score.
        flags: How many of those are flagged.
        suppressed: How many more would be, were it not for people's verdicts.
        alarmed: Whether the drift statistics alarm; None when there is no verdict.
        drift_reasons: Why they alarm, or why there is no verdict.
        drift_began: First night of the drift that lasts until this one; None when there is none.
        statistics: The drift statistics.
        report: Path of the page, relative to the workspace.
        run_id: The MLflow run.
    """

    night: date
    detector_version: str
    calibration_id: str
    scenes: Mapping[str, str]
    unknown: tuple[str, ...]
    quarantined: Mapping[str, str]
    tiles: int
    scored: int
    flags: int
    alarmed: bool | None
    drift_reasons: tuple[str, ...]
    drift_began: date | None
    statistics: Mapping[str, float] = field(default_factory=dict)
    report: str = ""
    run_id: str = ""
    suppressed: int = 0

    def judged_again(self, alarmed: bool | None) -> NightRecord:
        """The same night with another verdict on its drift."""
        return replace(self, alarmed=alarmed)

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self), default=str, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> NightRecord:
        """The inverse of `to_json`."""
        content: dict[str, Any] = json.loads(text)
        began = content["drift_began"]
        return cls(
            **content
            | {
                "night": date.fromisoformat(content["night"]),
                "drift_began": date.fromisoformat(began) if began else None,
                "unknown": tuple(content["unknown"]),
                "drift_reasons": tuple(content["drift_reasons"]),
            }
        )


@dataclass(frozen=True)
class Night:
    """A night that is due: its scenes, and those that cannot be used."""

    night: date
    scenes: tuple[SceneRecord, ...]
    quarantined: tuple[QuarantineRecord, ...]


_record = Remembered(lambda path: NightRecord.from_json(path.read_text(encoding="utf-8")))


def night_folder(workspace: Workspace, night: date) -> Path:
    """Where the page and the record of a night are."""
    return workspace.reports / night.isoformat()


def read_night(workspace: Workspace, night: date) -> NightRecord | None:
    """The record of a finished night; None when it is not finished."""
    try:
        return _record(night_folder(workspace, night) / "night.json")
    except FileNotFoundError:
        return None


def write_night(workspace: Workspace, record: NightRecord) -> None:
    """Finish a night: its record is the last thing written."""
    write_text(night_folder(workspace, record.night) / "night.json", record.to_json())


def unfinish(workspace: Workspace, night: date) -> None:
    """Take away the record of a night whose files are about to be written anew: until it is back, the night is due."""
    (night_folder(workspace, night) / "night.json").unlink(missing_ok=True)


def read_nights(workspace: Workspace, detector_version: str, before: date | None = None) -> list[NightRecord]:
    """The finished nights that a detector scored, before a date if one is given, oldest first."""
    records = [_record(path) for path in workspace.reports.glob("*/night.json")]
    mine = [record for record in records if record.detector_version == detector_version]
    return sorted((one for one in mine if before is None or one.night < before), key=lambda one: one.night)


def learned_until(detector: Detector) -> date:
    """The last date that the detector was trained, stopped or calibrated on."""
    names = ("training_dates", "validation_dates", "calibration_dates")
    return max(date.fromisoformat(day) for name in names for day in detector.metadata[name])


def due_nights(
    settings: Settings, workspace: Workspace, detector: Detector, period: Period, force: bool = False
) -> list[Night]:
    """The nights that have no report, or one that misses a scene, oldest first.

    Args:
        settings: How scenes are read.
        workspace: The catalog, the quarantine and the finished nights.
        detector: By default only nights after all that it learned from are due.
        period: Dates to consider; its start replaces that default.
        force: Finished nights are due as well.
    """
    after = learned_until(detector)
    return [
        candidate
        for candidate in _nights(settings, workspace)
        if candidate.night in period
        and (period.start is not None or candidate.night > after)
        and (force or not _finished(candidate, read_night(workspace, candidate.night)))
    ]


def finished_nights(settings: Settings, workspace: Workspace) -> set[date]:
    """The nights that have a record which misses nothing, whichever detector scored them."""
    recorded = {path.parent.name for path in workspace.reports.glob("*/night.json")}
    due = {one.night for one in _nights(settings, workspace) if not _finished(one, read_night(workspace, one.night))}
    return {date.fromisoformat(name) for name in recorded} - due


def refresh(night: Night, workspace: Workspace) -> Night:
    """The same night, after some of its scenes may have been quarantined."""
    quarantine = Quarantine(workspace)
    bad = {record.scene_id: quarantine.get(record.scene) for record in night.scenes}
    newly = tuple(record for record in bad.values() if record is not None)
    kept = tuple(record for record in night.scenes if bad[record.scene_id] is None)
    return Night(night.night, kept, (*night.quarantined, *newly))


def _nights(settings: Settings, workspace: Workspace) -> list[Night]:
    """The dates of all scenes that are there or in quarantine, oldest first."""
    scenes: dict[date, list[SceneRecord]] = {}
    quarantined: dict[date, list[QuarantineRecord]] = {}
    for record in usable_scenes(settings, workspace):
        scenes.setdefault(record.day, []).append(record)
    for bad in Quarantine(workspace).records():
        quarantined.setdefault(bad.day, []).append(bad)
    return [
        Night(night, tuple(scenes.get(night, [])), tuple(quarantined.get(night, [])))
        for night in sorted({*scenes, *quarantined})
    ]


def _finished(night: Night, record: NightRecord | None) -> bool:
    if record is None:
        return False
    same_scenes = dict(record.scenes) == {scene.scene_id: scene.fingerprint for scene in night.scenes}
    return same_scenes and set(record.quarantined) == {bad.scene_id for bad in night.quarantined}

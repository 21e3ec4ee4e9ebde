"""Scenes that cannot be used: one JSON record each, in words a person can act on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from configs.workspace import Workspace, write_text
from imagery.catalog import list_files, scene_file
from imagery.sources.scene import Scene

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuarantineRecord:
    """Why a scene is not used.

    Attributes:
        scene_id: `<location>/<acquired>[/<n>]`.
        location: Name of the place.
        acquired: Time of acquisition, UTC, ISO 8601.
        step: Where it failed: ingest, validate or score.
        reason: What is wrong, and what to do.
        stamp: Size and time of its files: when they change, the scene is tried again.
        key: Digest of the settings in force: when they change, the scene is tried again.
        at: When it was quarantined, UTC, ISO 8601.
    """

    scene_id: str
    location: str
    acquired: str
    step: str
    reason: str
    stamp: tuple[str, ...]
    key: str
    at: str

    @property
    def day(self) -> date:
        """The night it belongs to: its UTC date."""
        return datetime.fromisoformat(self.acquired).date()


class Quarantine:
    """The quarantined scenes of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def add(self, scene: Scene, step: str, reason: str, stamp: tuple[str, ...], key: str) -> QuarantineRecord:
        """Quarantine a scene."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        acquired = scene.acquired.isoformat()
        record = QuarantineRecord(scene.scene_id, scene.location, acquired, step, reason, stamp, key, now)
        path = scene_file(self.workspace.quarantine, scene, ".json")
        write_text(path, json.dumps(asdict(record), indent=1, ensure_ascii=False))
        return record

    def get(self, scene: Scene) -> QuarantineRecord | None:
        """The record of a scene; None when it is not quarantined, or was by another version of tilewatch."""
        return _read(scene_file(self.workspace.quarantine, scene, ".json"))

    def release(self, scene: Scene) -> None:
        """Forget that a scene was quarantined."""
        scene_file(self.workspace.quarantine, scene, ".json").unlink(missing_ok=True)

    def records(
        self, locations: Iterable[str] | None = None, since: date | None = None, until: date | None = None
    ) -> list[QuarantineRecord]:
        """The records of some places and times, oldest scene first. Of others no file is opened.

        Args:
            locations: Names of locations; None is all.
            since: First UTC date.
            until: Last UTC date.
        """
        paths = list_files(self.workspace.quarantine, locations, since, until)
        return sorted(filter(None, map(_read, paths)), key=lambda record: (record.acquired, record.scene_id))


def _read(path: Path) -> QuarantineRecord | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return QuarantineRecord(**record | {"stamp": tuple(record["stamp"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        log.warning("%s was written by another version of tilewatch, or is damaged: its scene is tried again", path)
        return None

"""The champion as it was known last: a night goes on with it when MLflow does not answer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from configs import Settings, Workspace
from configs.workspace import safe_name, write_text


@dataclass(frozen=True)
class LastKnown:
    """A champion: its version, e.g. "v3", and the digest of its files."""

    version: str
    sha256: str


def remember(champion: LastKnown, settings: Settings, workspace: Workspace) -> None:
    """Keep which detector is the champion, in `models/<name>/champion.json`."""
    if last_known(settings, workspace) != champion:
        write_text(_file(settings, workspace), json.dumps(asdict(champion)))


def last_known(settings: Settings, workspace: Workspace) -> LastKnown | None:
    """The champion at the last successful look-up; None before the first one."""
    try:
        return LastKnown(**json.loads(_file(settings, workspace).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _file(settings: Settings, workspace: Workspace) -> Path:
    return workspace.models / safe_name(settings.name) / "champion.json"

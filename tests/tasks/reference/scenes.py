"""What tests of references ask of the scenes of a place."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.reference import Member, Reference
from tasks.reference import Usual, usual_of
from tests.places import FIRST

AFTER = date(2020, 7, 1)


def write_scores(workspace: Workspace, record: SceneRecord, flagged: int, version: str = "v1", scored: int = 8) -> None:
    """The scores of a scene of nine tiles."""
    path = workspace.scores / version / "here" / f"{record.file_name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(9)
    table = {
        "tile_id": [f"here-r{number}-c0" for number in numbers],
        "score": np.where(numbers < scored, 1.0, np.nan),
        "flagged": numbers < flagged,
    }
    pd.DataFrame(table).to_parquet(path)


def known_usual(record: SceneRecord, settings: Settings, workspace: Workspace) -> Usual:
    found = usual_of(record, settings, workspace)
    assert found is not None
    return found


def days_in(members: Iterable[Member | SceneRecord]) -> list[int]:
    """Days after the first scene of the place."""
    return [(date.fromisoformat(member.scene_id.removeprefix("here/")) - FIRST).days for member in members]


def days_of(reference: Reference) -> list[int]:
    """The same of the scenes that a reference is made of."""
    return days_in(reference.members)


def kept_expectation(workspace: Workspace, record: SceneRecord) -> Path:
    return workspace.reference / f"here/{record.day}_expected.json"

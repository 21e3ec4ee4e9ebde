"""Verdicts of people, as a file of the workspace keeps them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from configs import Workspace
from tasks.verdicts import Verdict, VerdictError, read_verdicts


def write(workspace: Workspace, *rows: tuple[str, str, str, str]) -> None:
    workspace.root.mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["tile_id", "scene_id", "verdict", "reviewed_at"])
    table.to_parquet(workspace.root / "verdicts.parquet")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def test_a_workspace_without_verdicts_has_none(workspace: Workspace) -> None:
    assert read_verdicts(workspace) == []


def test_the_latest_verdict_of_a_tile_and_scene_counts(workspace: Workspace) -> None:
    write(
        workspace,
        ("b", "here/2024-01-02", "false alarm", "2024-01-05"),
        ("a", "here/2024-01-02", "anomaly", "2024-01-03"),
        ("b", "here/2024-01-02", "anomaly", "2024-01-04"),
        ("b", "here/2024-01-01", "bad data", "2024-01-03"),
        ("c", "here/2024-01-01", "cloud or shadow", "2024-01-03"),
    )

    assert read_verdicts(workspace) == [
        Verdict("here/2024-01-01", "b", None),
        Verdict("here/2024-01-01", "c", False),
        Verdict("here/2024-01-02", "a", True),
        Verdict("here/2024-01-02", "b", False),
    ]


def test_a_verdict_that_nobody_knows_is_refused(workspace: Workspace) -> None:
    write(workspace, ("a", "here/2024-01-02", "perhaps", "2024-01-03"))
    with pytest.raises(VerdictError, match="'perhaps': there are anomaly, false alarm"):
        read_verdicts(workspace)


def test_a_table_without_a_column_is_refused(workspace: Workspace) -> None:
    workspace.root.mkdir()
    pd.DataFrame({"tile_id": ["a"], "scene_id": ["b"]}).to_parquet(workspace.root / "verdicts.parquet")
    with pytest.raises(VerdictError, match="no column verdict, reviewed_at"):
        read_verdicts(workspace)

"""Verdicts of people, as a file of the workspace keeps them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from configs import Workspace
from tasks.review.verdicts import Verdict, VerdictError, known_verdicts, read_verdicts, write_verdicts


def write(workspace: Workspace, *rows: tuple[str, str, str, str]) -> None:
    workspace.root.mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["tile_id", "scene_id", "verdict", "reviewed_at"])
    table.to_parquet(workspace.root / "verdicts.parquet")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Without the database of its neighbours."""
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

    read = read_verdicts(workspace)
    assert [(one.scene_id, one.tile_id, one.verdict, one.anomaly) for one in read] == [
        ("here/2024-01-01", "b", "bad data", None),
        ("here/2024-01-01", "c", "cloud or shadow", False),
        ("here/2024-01-02", "a", "anomaly", True),
        ("here/2024-01-02", "b", "false alarm", False),
    ]


def test_what_is_written_is_read(workspace: Workspace) -> None:
    when = datetime(2024, 1, 5, 8, 30, tzinfo=UTC)
    full = Verdict(
        "a/b/2024-01-02T101112Z/2", "t1", "anomaly", when, "<b>me</b>", "burn", 7.0, "é", "sample", 0.1, "v2", 3.5, 0.01
    )
    bare = Verdict("here/2024-01-02", "t2", "bad data", when)

    write_verdicts([bare, full], workspace)

    assert read_verdicts(workspace) == [full, bare]
    assert (full.location, full.night) == ("a/b", date(2024, 1, 2))
    assert (bare.location, bare.night) == ("here", date(2024, 1, 2))


def test_no_verdict_at_all_is_written_and_read(workspace: Workspace) -> None:
    write_verdicts([], workspace)
    assert read_verdicts(workspace) == []


def test_a_verdict_that_nobody_knows_is_refused(workspace: Workspace) -> None:
    write(workspace, ("a", "here/2024-01-02", "perhaps", "2024-01-03"))
    with pytest.raises(VerdictError, match="'perhaps': there are anomaly, false alarm"):
        read_verdicts(workspace)


def test_a_table_without_a_column_is_refused(workspace: Workspace) -> None:
    workspace.root.mkdir()
    pd.DataFrame({"tile_id": ["a"], "scene_id": ["b"]}).to_parquet(workspace.root / "verdicts.parquet")
    with pytest.raises(VerdictError, match="no column verdict, reviewed_at"):
        read_verdicts(workspace)


def test_a_night_goes_on_without_verdicts_that_cannot_be_read(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.root.mkdir()
    workspace.verdicts.write_bytes(b"no parquet")

    assert known_verdicts(workspace) == []
    assert "cannot be read" in caplog.text

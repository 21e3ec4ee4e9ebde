"""Work in progress leaves nothing behind, and what killed runs have left goes a day later."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from configs import Workspace
from tasks.scratch import LEFT_OVER_SECONDS, scratch_folder


def left_over(workspace: Workspace, name: str, seconds: float) -> Path:
    """A folder with a file, left by a run that was killed so long ago."""
    folder = workspace.cache / name
    folder.mkdir(parents=True)
    (folder / "maps.float32").write_bytes(b"x")
    then = time.time() - seconds
    os.utime(folder, (then, then))
    return folder


def test_a_folder_is_gone_when_the_work_is_done_or_has_failed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with scratch_folder(workspace, "heatmap") as folder:
        (folder / "maps.float32").write_bytes(b"x")
        assert list(workspace.cache.iterdir()) == [folder]
    assert list(workspace.cache.iterdir()) == []

    with pytest.raises(RuntimeError), scratch_folder(workspace, "heatmap"):
        raise RuntimeError("power cut")
    assert list(workspace.cache.iterdir()) == []


def test_what_killed_runs_have_left_goes_a_day_later_and_nothing_else(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    old = left_over(workspace, "heatmap-old", LEFT_OVER_SECONDS + 60)
    young = left_over(workspace, "heatmap-young", LEFT_OVER_SECONDS - 60)
    other = left_over(workspace, "tiles-old", LEFT_OVER_SECONDS + 60)

    with scratch_folder(workspace, "heatmap"):
        assert not old.exists()
        assert young.exists()
        assert other.exists()
    with scratch_folder(workspace, "tiles"):
        assert not other.exists()


def test_two_of_a_kind_do_not_meet(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with scratch_folder(workspace, "heatmap") as one, scratch_folder(workspace, "heatmap") as two:
        assert one != two

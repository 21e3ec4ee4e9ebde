"""Of one kind of work there is one at a time in a workspace, and a lock ends with its process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from configs import Workspace
from configs.workspace import write_text, writer
from tasks.exclusive import Busy, Holder, exclusive
from tasks.left_over import sweep
from tasks.scratch import LEFT_OVER_SECONDS

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from configs import Workspace
from configs.workspace import whole_file
from tasks.exclusive import exclusive
workspace = Workspace(Path(sys.argv[1]))
with exclusive(workspace, "nightly"), whole_file(workspace.scores / "half.parquet") as path:
    path.write_bytes(b"half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that is at the nightly work, in the middle of writing a file."""
    started = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "held\n"
    yield started
    started.kill()
    started.wait()
    started.stdout.close()


def test_a_second_process_is_told_who_is_at_it_and_does_not_wait_for_ever(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    begun = time.monotonic()

    told = rf"nightly is being done .* by process {holder.pid} on .*, at it since 20"
    with pytest.raises(Busy, match=told), exclusive(Workspace(tmp_path), "nightly", wait=0.2):
        pass

    assert 0.2 <= time.monotonic() - begun < 5


def test_whoever_waits_says_for_whom_and_goes_on_when_that_process_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    begun = Event()

    def wait() -> None:
        with exclusive(Workspace(tmp_path), "nightly") as killed:
            found.append(killed)
            begun.set()

    found: list[Holder | None] = []
    with caplog.at_level(logging.WARNING):
        thread = Thread(target=wait)
        thread.start()
        assert not begun.wait(1)
        holder.send_signal(signal.SIGKILL)
        assert begun.wait(10)
        thread.join()

    (line,) = caplog.messages
    assert f"waiting with nightly in {tmp_path} for process {holder.pid} on" in line
    assert found[0] is not None
    assert found[0].pid == holder.pid


def test_what_a_killed_process_was_writing_is_swept_and_what_others_write_is_not(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    workspace = Workspace(tmp_path)
    mine = workspace.scores / f".now.{writer()}-1.part.parquet"
    old = workspace.reports / "2020-01-01" / ".report.abcdef-7-1.part.html"
    write_text(workspace.scores / "whole.parquet", "whole")
    for path in (mine, old):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    then = time.time() - LEFT_OVER_SECONDS - 60
    os.utime(old, (then, then))
    (half,) = workspace.scores.glob(".half.*")
    holder.kill()
    holder.wait()

    with exclusive(workspace, "nightly") as killed:
        assert killed is not None
        removed = sweep(workspace, killed)

    assert removed == 2
    assert not half.exists()
    assert not old.exists()
    assert {path.name for path in workspace.scores.iterdir()} == {mine.name, "whole.parquet"}


def test_threads_of_one_process_keep_each_other_out(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        with exclusive(Workspace(tmp_path), "train"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert most == [1, 1, 1, 1]


def test_different_kinds_of_work_and_other_workspaces_do_not_wait(tmp_path: Path) -> None:
    here, there = Workspace(tmp_path / "here"), Workspace(tmp_path / "there")

    with exclusive(here, "nightly"), exclusive(here, "train", wait=0), exclusive(there, "nightly", wait=0) as killed:
        assert killed is None


@pytest.mark.parametrize("fails", [False, True])
def test_after_an_end_of_any_kind_but_a_kill_there_is_nobody_to_be_told_of(tmp_path: Path, fails: bool) -> None:
    try:
        with exclusive(Workspace(tmp_path), "nightly"):
            if fails:
                raise ValueError
    except ValueError:
        pass

    with exclusive(Workspace(tmp_path), "nightly", wait=0) as killed:
        assert killed is None


def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_has_ended(tmp_path: Path) -> None:
    """As the workers of a data loader are, which outlive a killed parent for a moment."""
    code = """
import os, sys, time
from pathlib import Path
from configs import Workspace
from tasks.exclusive import exclusive
with exclusive(Workspace(Path(sys.argv[1])), "nightly"):
    if os.fork() == 0:
        os.close(1)
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, timeout=60)

    assert done.returncode == -9
    with exclusive(Workspace(tmp_path), "nightly", wait=2):
        pass

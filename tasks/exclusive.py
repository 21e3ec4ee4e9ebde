"""Locks of a workspace: of one kind of work there is one at a time, and no lock outlives its process.

Who holds a lock is written into its file, for people to read and to be known again after a kill; what counts is the
lock of the system (`flock`), which ends with the process in whatever way that ends. A lock is of the file that was
opened, so that two threads of one process keep each other out as two processes do.

Locks are taken in this order and never in another, so nobody waits for somebody who waits for him: `nightly`, `tune`,
`train` (trainings and calibrations), `ingest`, `review` (the table of verdicts).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from configs import Workspace
from configs.workspace import safe_name, writer

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.5  # seconds
TELL_AGAIN = 600.0  # seconds of waiting after which it is said again
_held: set[IO[str]] = set()


class Busy(TimeoutError):
    """Somebody else is at the same work, and did not end it in time."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        pid: Number of the process.
        host: Its machine.
        since: UTC, ISO 8601.
        command: How it was started.
        writer: The part of the names of its temporary files that is its own.
    """

    pid: int
    host: str
    since: str
    command: str
    writer: str

    @classmethod
    def me(cls) -> Holder:
        """This process, from now on."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), now, command, writer())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}), at it since {self.since}"


@contextmanager
def exclusive(workspace: Workspace, what: str, wait: float | None = None) -> Iterator[Holder | None]:
    """Be the only one at a kind of work in a workspace, for the time of the block.

    Args:
        workspace: Its `locks/` holds the file.
        what: The kind of work. Nobody may ask for it again within the block, since he would wait for himself.
        wait: Seconds to wait for whoever is at it; None is as long as it takes, and is said in the log.

    Yields:
        Who was at it last, when he was killed at it; None after a regular end.

    Raises:
        Busy: Somebody was still at it after `wait` seconds.
        OSError: The workspace cannot be written.
    """
    path = workspace.locks / f"{safe_name(what)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _wait(file, what, workspace, wait)
        _held.add(file)
        try:
            killed = _holder(file)
            _note(file, json.dumps(asdict(Holder.me())))
            yield killed
        finally:
            if file in _held:  # not in a forked child
                _held.discard(file)
                _note(file, "")  # an end with an error is an end as well: it had its chance to tidy up


def _wait(file: IO[str], what: str, workspace: Workspace, wait: float | None) -> None:
    """Take the lock as soon as it is free."""
    begun, told = time.monotonic(), None
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - begun
        who = _holder(file) or "another process"
        if wait is not None and waited >= wait:
            raise Busy(
                f"{what} is being done in {workspace.root} by {who}; waited {wait:g} s for it. Run this again when it "
                "has ended, or end it: nothing is lost"
            )
        if told is None or waited - told >= TELL_AGAIN:
            told = waited
            log.warning("waiting with %s in %s for %s", what, workspace.root, who)
        time.sleep(LOOK_AGAIN if wait is None else min(LOOK_AGAIN, max(0.01, wait - waited)))


def _holder(file: IO[str]) -> Holder | None:
    """Who is noted in the file."""
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):  # nobody, or he was killed as he noted it
        return None


def _note(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _close_in_child() -> None:
    """A forked child holds what its parent has opened, and would keep the lock when the parent is killed."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)

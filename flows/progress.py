"""Progress of long work: a bar on a terminal, plain lines elsewhere, and an artifact in a run of a deployment."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.runtime import deployment
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_UPDATES = 15.0  # of an artifact: each is a request
console = Console(stderr=True)
log = logging.getLogger(__name__)


class Counter:
    """Counts steps of one piece of work."""

    def __init__(self, title: str, total: int, bar: Progress | None) -> None:
        self._title, self._total, self._bar = title, total, bar
        self._done, self._said = 0, 0.0
        self._task = bar.add_task(title, total=total, note="") if bar else None
        self._shown = _Shown(title)

    def step(self, note: str = "") -> None:
        """One step is done."""
        self.at(self._done + 1, self._total, note)

    def at(self, done: int, total: int, note: str = "") -> None:
        """So many steps are done."""
        self._done, self._total = done, total
        self._shown.at(done, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if done == total or now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(f"{self._title}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)


class _Shown:
    """The progress of a deployment's run in the Prefect UI; nothing elsewhere. No failure of it ends the work."""

    def __init__(self, title: str) -> None:
        self._title, self._wanted = title, bool(deployment.id)
        self._artifact: UUID | None = None
        self._updated = time.monotonic()  # work that ends at once is not shown

    def at(self, done: int, total: int) -> None:
        """So many steps are done."""
        now = time.monotonic()
        last = done >= total and self._artifact is not None
        if not self._wanted or not total or (now - self._updated < SECONDS_BETWEEN_UPDATES and not last):
            return
        self._updated, share = now, min(100.0, 100 * done / total)
        try:
            if self._artifact is None:
                made = create_progress_artifact(share, description=f"{self._title}: of {total}")
                self._artifact = cast(UUID, made)  # no coroutine, since flows run in threads of their own
            else:
                update_progress_artifact(self._artifact, share)
        except Exception as error:  # of httpx or of Prefect
            self._wanted = False
            log.warning("the progress of %s is not shown in Prefect: %s", self._title, error)


@contextmanager
def progress(title: str, total: int) -> Iterator[Counter]:
    """Show the progress of a piece of work.

    Example:
        >>> with progress("ingest", 3) as counter:
        ...     counter.step("romania/2019-07-01")
    """
    if not console.is_terminal:
        yield Counter(title, total, None)
        return
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Counter(title, total, bar)

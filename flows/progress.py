"""Progress of long work: a bar on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 5.0
console = Console(stderr=True)


class Counter:
    """Counts steps of one piece of work."""

    def __init__(self, title: str, total: int, bar: Progress | None) -> None:
        self._title, self._total, self._bar = title, total, bar
        self._done, self._said = 0, 0.0
        self._task = bar.add_task(title, total=total, note="") if bar else None

    def step(self, note: str = "") -> None:
        """One step is done."""
        self.at(self._done + 1, self._total, note)

    def at(self, done: int, total: int, note: str = "") -> None:
        """So many steps are done."""
        self._done, self._total = done, total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if done == total or now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(f"{self._title}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)


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

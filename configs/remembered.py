"""Small files that are read again and again: each is parsed once, for as long as it stays as it is."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

MOST = 1 << 14  # files; of a few kilobytes each

T = TypeVar("T")


class Remembered(Generic[T]):
    """What files hold, by their path, and by inode, time and size: a file that was replaced is read again.

    Right for files that are only ever replaced as a whole (`configs.workspace.whole_file`), and for what nobody changes
    once it is parsed: all who ask get the same object. A year of nights is thousands of such files, and a run asks for
    most of them several times.

    Args:
        parse: Gives what is kept, of the path of a file. What it raises is raised, and nothing is kept.
        most: Beyond so many files those that were asked for longest ago are forgotten.
    """

    def __init__(self, parse: Callable[[Path], T], most: int = MOST) -> None:
        self._parse, self._most = parse, most
        self._kept: OrderedDict[str, tuple[tuple[int, int, int], T]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, path: Path) -> T:
        """What the file holds.

        Raises:
            FileNotFoundError: There is no such file.
        """
        name = os.fspath(path)
        state = os.stat(name)
        now = (state.st_ino, state.st_mtime_ns, state.st_size)
        with self._lock:
            known = self._kept.get(name)
            if known is not None and known[0] == now:
                self._kept.move_to_end(name)
                return known[1]
        found = self._parse(path)  # if it is replaced meanwhile, its state is another, and it is read again next time
        with self._lock:
            self._kept[name] = (now, found)
            self._kept.move_to_end(name)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found

    def forget(self) -> None:
        """Read every file anew."""
        with self._lock:
            self._kept.clear()

"""Work in progress that is too large for memory: a folder in the workspace's cache, gone when the work is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from configs import Workspace

LEFT_OVER_SECONDS = 24 * 3600.0


@contextmanager
def scratch_folder(workspace: Workspace, kind: str) -> Iterator[Path]:
    """A new folder in the cache, removed at the end of the block.

    What killed runs have left of the same kind is removed a day later: another run may be at work now.

    Args:
        workspace: Holds the cache.
        kind: What it is for; begins the folder's name, e.g. "tiles".
    """
    _remove_left_over(workspace.cache, kind)
    folder = workspace.cache / f"{kind}-{uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(cache: Path, kind: str) -> None:
    for folder in cache.glob(f"{kind}-*"):
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:  # its work was done just now, by another thread
            continue
        if age > LEFT_OVER_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)

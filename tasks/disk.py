"""A workspace that cannot be written: said in words, with what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from configs import Workspace

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
LEAST_FREE = 16 << 20  # bytes that a run needs to begin: Prefect and MLflow write before it does


class WorkspaceUnusable(OSError):
    """The workspace cannot be written."""


@contextmanager
def told(workspace: Workspace) -> Iterator[None]:
    """Say what is wrong when the disk is full, or closed to us, within the block.

    Raises:
        WorkspaceUnusable: It is, with what to do.
    """
    try:
        yield
    except OSError as error:
        words = _words(error, workspace)
        if words is None:
            raise
        raise WorkspaceUnusable(words) from error


def check(workspace: Workspace) -> None:
    """Refuse to begin where nothing can be written. A workspace that is not there is made.

    Raises:
        WorkspaceUnusable: The workspace is closed to us, or its disk is full.
        OSError: It cannot be made.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    if not os.access(workspace.root, os.W_OK | os.X_OK):
        raise WorkspaceUnusable(_closed(workspace))
    if shutil.disk_usage(workspace.root).free < LEAST_FREE:
        raise WorkspaceUnusable(_full(workspace))


def _words(error: OSError, workspace: Workspace) -> str | None:
    """What is wrong, when it is the disk: the libraries that write rasters and tables tell it by their text alone."""
    if isinstance(error, WorkspaceUnusable):
        return None
    if error.errno in FULL or os.strerror(errno.ENOSPC) in str(error):
        return f"{_full(workspace)} ({error})"
    mine = error.filename is not None and str(error.filename).startswith(str(workspace.root))
    if error.errno == errno.EROFS or (error.errno in CLOSED and mine):
        return f"{_closed(workspace)} ({error})"
    return None


def _full(workspace: Workspace) -> str:
    free = shutil.disk_usage(workspace.root).free
    return (
        f"the disk of the workspace {workspace.root} is full, {free / 1e6:.0f} MB are free: make room, and run this "
        "again. What was finished is kept"
    )


def _closed(workspace: Workspace) -> str:
    return (
        f"the workspace {workspace.root} cannot be written: it is mounted read-only, or belongs to somebody else. "
        "Mount it for writing, or give it to this user, and run this again"
    )

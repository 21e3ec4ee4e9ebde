"""What a killed process leaves behind in a workspace: temporary files that nobody will rename any more."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

from configs import Workspace
from tasks.exclusive import Holder
from tasks.scratch import LEFT_OVER_SECONDS

log = logging.getLogger(__name__)


def sweep(workspace: Workspace, killed: Holder) -> int:
    """Remove temporary files of a process that was killed, and those of anybody that are more than a day old.

    Others may be at work in the workspace; what they are writing is recent, and is not of that process.

    Returns:
        How many were removed.
    """
    removed = 0
    for folder, below, files in os.walk(workspace.root):
        # Databases keep their own house; `models` holds half-fetched detectors, folders that begin with a dot.
        for name in [name for name in below if name in ("mlartifacts", "prefect")]:
            below.remove(name)
        hidden = [name for name in files if name.startswith(".") and ".part" in name]
        hidden += [name for name in below if name.startswith(".") and Path(folder).parent == workspace.models]
        for path in (Path(folder) / name for name in hidden):
            if killed.writer in path.name or _old(path):
                removed += 1
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    log.info("removed %d temporary files that %s had left", removed, killed)
    return removed


def _old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > LEFT_OVER_SECONDS
    except FileNotFoundError:  # it got its name just now
        return False

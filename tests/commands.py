"""The command line, run as a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
DONE, FAILED, WRONG = 0, 1, 2


def run_tilewatch(
    folder: Path, prefect: Path | str, *arguments: str | Path, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run `tilewatch` in a folder.

    Args:
        folder: The current folder.
        prefect: A folder for Prefect's database, with a server of the run's own; or the address of a server, which
            saves a test the ten seconds in which one starts.
        arguments: Of the command.
        environment: Variables; those that are None are left out.
    """
    kept = {"PREFECT_HOME": str(prefect)} if isinstance(prefect, Path) else {"PREFECT_API_URL": prefect}
    usual = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | kept
    variables = {**os.environ, **usual, **environment}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def result(ran: subprocess.CompletedProcess[str]) -> Any:
    """The JSON object in the last line of standard output, which any program can read."""
    found = json.loads(ran.stdout.splitlines()[-1], parse_constant=_refuse)
    assert isinstance(found, dict)
    return found


def in_words(ran: subprocess.CompletedProcess[str]) -> bool:
    """Whether a failure was explained, and not shown as a trace."""
    return bool(ran.stderr.strip()) and "Traceback" not in ran.stderr


def state(workspace: Path) -> dict[str, tuple[int, str]]:
    """Time and content of every file of a workspace but Prefect's own."""
    return {
        str(path.relative_to(workspace)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and path.relative_to(workspace).parts[0] != "prefect"
    }


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")

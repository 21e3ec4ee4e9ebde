"""Three hundred odd, huge, truncated and corrupt TIFFs: each is entered or set aside, and none stops the run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 3 * 1024**3  # some files declare sizes far beyond any memory
INGEST = """
import json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from configs import Workspace
from imagery.sources import Scene, SceneFile
from tasks.ingest import ingest_scene, settle_grids
from tests.rasters import watch_settings

settings = watch_settings(Path("."), source={"bands": ("B1",)}, grid={"tile_size": 64})
workspace = Workspace(Path(sys.argv[1]))
for number, name in enumerate(sys.stdin.read().splitlines()):
    for files in ((SceneFile("B1", name),), (SceneFile("", name),)):  # as one of several files, and as the only one
        scene = Scene(f"{number}{'b' if files[0].band else ''}", datetime(2020, 1, 1, tzinfo=UTC), files)
        try:
            settle_grids([scene], settings, workspace)
            outcome = ingest_scene(scene, settings, workspace).reason
        except BaseException as error:
            outcome = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps([name, outcome]), flush=True)
"""


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def test_no_file_stops_the_run_or_needs_more_memory_than_there_is(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shared("hostile")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".tif", ".tiff"))
    assert len(files) > 200

    ran = subprocess.run(
        [sys.executable, "-c", INGEST, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CPL_LOG": os.devnull},
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        timeout=500,
        preexec_fn=limit_memory,
        check=False,
    )

    outcomes = [json.loads(line) for line in ran.stdout.splitlines()]
    last = outcomes[-1][0] if outcomes else "none"
    assert ran.returncode == 0, f"the process ended after {last}: {ran.stderr[-2000:]}"
    assert len(outcomes) == 2 * len(files)
    raised = [(name, outcome["raised"]) for name, outcome in outcomes if isinstance(outcome, dict)]
    assert raised == []
    reasons = [outcome for _, outcome in outcomes if outcome]
    assert len(reasons) > 300
    assert all(len(reason) > 20 for reason in reasons)
    assert [reason for reason in reasons if "is not on the grid" in reason] == [], "each is a place of its own"

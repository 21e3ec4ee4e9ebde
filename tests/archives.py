"""An archive of a few small scenes, and its ingest as the flow does it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs import Settings, Workspace
from tasks.ingest import Ingested, IngestPlan, ingest_scene, plan_ingest, settle_grids
from tests.rasters import WEST, ground, write_raster

DATES = ("2020-06-01", "2020-06-06", "2020-06-11")


def archive(root: Path, locations: tuple[str, ...] = ("here", "there"), dates: tuple[str, ...] = DATES) -> Path:
    """A scene of each date at each location; the locations lie beside each other."""
    for place, location in enumerate(locations):
        for seed, day in enumerate(dates):
            write_raster(root / location / f"{day}.tif", ground(40, 40, seed=seed), west=WEST + 10_000 * place)
    return root


def run(settings: Settings, workspace: Workspace, workers: int = 1, **plan: Any) -> tuple[IngestPlan, list[Ingested]]:
    """Ingest as the flow does."""
    planned = plan_ingest(settings, workspace, **plan)
    settle_grids(planned.scenes, settings, workspace)
    with ThreadPoolExecutor(workers) as pool:
        return planned, list(pool.map(lambda scene: ingest_scene(scene, settings, workspace), planned.scenes))


def files(workspace: Workspace) -> dict[str, tuple[int, bytes]]:
    """All files of a workspace: when each was written, and what it holds."""
    paths = (path for path in workspace.root.rglob("*") if path.is_file())
    return {str(path.relative_to(workspace.root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

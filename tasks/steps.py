"""The steps that Prefect runs one a scene, each a thin wrapper around a plain function of its module."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.errors import ImageryError, SceneUnreachable
from imagery.sources import Scene
from tasks import ingest as _ingest
from tasks import reference as _reference
from tasks import score as _score
from tasks.engines import for_each, limit_threads
from vae.detector import Detector

__all__ = ["compare_scene", "for_each", "ingest_scene", "limit_threads", "load_detector", "score_scene", "set_aside"]

# At every task Prefect warns that its time limit cannot break into a blocking call; scenes are read in many short ones.
logging.getLogger("prefect.task_runs").addFilter(lambda record: "running in a worker thread" not in record.getMessage())


@task(name="ingest", task_run_name="ingest {scene.scene_id}", cache_policy=NO_CACHE, persist_result=False)
def ingest_scene(scene: Scene, settings: Settings, workspace: Workspace) -> _ingest.Ingested:
    """Read one scene and enter it in the catalog, or quarantine it."""
    return _ingest.ingest_scene(scene, settings, workspace)


@task(name="compare", task_run_name="compare {record.scene_id}", cache_policy=NO_CACHE, persist_result=False)
def compare_scene(record: SceneRecord, settings: Settings, workspace: Workspace) -> _reference.Usual | None:
    """Make the reference of one scene's place, and see how the scene lies to it."""
    return _reference.usual_of(record, settings, workspace)


@task(name="score", task_run_name="score {record.scene_id}", cache_policy=NO_CACHE, persist_result=False)
def score_scene(
    record: SceneRecord,
    detector: Path,
    detector_version: str,
    settings: Settings,
    workspace: Workspace,
    usual: _reference.Usual | None = None,
) -> str | None:
    """Score one scene. A scene that can no longer be read is quarantined, and the reason returned."""
    try:
        _score.score_scene(record, load_detector(detector), detector_version, settings, workspace, usual)
    except ImageryError as error:
        passing = isinstance(error, SceneUnreachable)
        return _ingest.quarantine_scene(record.scene, "score", str(error), settings, workspace, passing).reason
    return None


def set_aside(
    step: str, scene: Scene, failure: Exception, settings: Settings, workspace: Workspace
) -> _ingest.Ingested:
    """Quarantine a scene on which a step failed in a way nobody foresaw."""
    reason = f"failed unexpectedly, please report it: {type(failure).__name__}: {failure}"
    return _ingest.quarantine_scene(scene, step, reason, settings, workspace)


@lru_cache(maxsize=2)
def load_detector(folder: Path) -> Detector:
    """A detector, loaded once in a process."""
    return Detector.load(folder)

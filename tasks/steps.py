"""The steps that Prefect runs one a scene, each a thin wrapper around a plain function of its module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.errors import ImageryError
from imagery.sources import Scene
from tasks import ingest as _ingest
from tasks import score as _score
from vae.detector import Detector

RETRY_DELAYS = [2, 10, 60]


@task(name="ingest", task_run_name="ingest {scene.scene_id}", cache_policy=NO_CACHE, persist_result=False)
def ingest_scene(scene: Scene, settings: Settings, workspace: Workspace) -> _ingest.Ingested:
    """Read one scene and enter it in the catalog, or quarantine it."""
    return _ingest.ingest_scene(scene, settings, workspace)


@task(name="score", task_run_name="score {record.scene_id}", cache_policy=NO_CACHE, persist_result=False)
def score_scene(
    record: SceneRecord, detector: Path, detector_version: str, settings: Settings, workspace: Workspace
) -> str | None:
    """Score one scene. A scene that can no longer be read is quarantined, and the reason returned."""
    try:
        _score.score_scene(record, load_detector(detector), detector_version, settings, workspace)
    except ImageryError as error:
        return _ingest.quarantine_scene(record.scene, "score", str(error), settings, workspace).reason
    return None


@lru_cache(maxsize=2)
def load_detector(folder: Path) -> Detector:
    """A detector, loaded once in a process."""
    return Detector.load(folder)


def for_each(
    step: Task[..., Any],
    parameters: Sequence[dict[str, Any]],
    settings: Settings,
    on_done: Callable[[Any], None] | None = None,
) -> list[Any]:
    """Run a step for each set of parameters, some side by side, with the retries and the time limit of the settings.

    Args:
        step: One of the steps above.
        parameters: What it is called with.
        settings: How many side by side, how often again, how long at most.
        on_done: Called with each result, in order.

    Returns:
        The results, in order.
    """
    compute = settings.compute
    limited = step.with_options(
        retries=compute.retries,
        retry_delay_seconds=RETRY_DELAYS[: max(1, compute.retries)],
        timeout_seconds=compute.scene_timeout,
    )
    results = []
    with ThreadPoolTaskRunner(max_workers=compute.workers) as runner:
        futures = [runner.submit(limited, parameters=one) for one in parameters]
        for future in futures:
            results.append(future.result())
            if on_done:
                on_done(results[-1])
    return results

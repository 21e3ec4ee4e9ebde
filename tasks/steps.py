"""The steps that Prefect runs one a scene, each a thin wrapper around a plain function of its module."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task
from threadpoolctl import threadpool_limits

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.errors import ImageryError, SceneUnreachable
from imagery.sources import Scene
from tasks import ingest as _ingest
from tasks import reference as _reference
from tasks import score as _score
from vae.detector import Detector

log = logging.getLogger(__name__)
# At every task Prefect warns that its time limit cannot break into a blocking call; scenes are read in many short ones.
logging.getLogger("prefect.task_runs").addFilter(lambda record: "running in a worker thread" not in record.getMessage())
RETRY_DELAYS = [2.0, 10.0, 60.0]  # seconds


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


def limit_threads(settings: Settings) -> None:
    """Let one operation of the network use no more threads than the settings allow, and one of numpy's but one.

    Numpy's matrices are narrow here: several threads wait for each other, five times as long on a busy machine, and
    scenes are handled side by side as it is.
    """
    threadpool_limits(1, user_api="blas")
    if settings.compute.threads is not None:
        torch.set_num_threads(settings.compute.threads)


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


def for_each(
    step: Task[..., Any],
    parameters: Sequence[dict[str, Any]],
    settings: Settings,
    on_failure: Callable[[dict[str, Any], Exception], Any],
    on_done: Callable[[Any], None] | None = None,
) -> list[Any]:
    """Run a step for each set of parameters, some side by side, with the retries and the time limit of the settings.

    One that fails in spite of its retries does not stop the others, unless it is the machine that fails.

    Args:
        step: One of the steps above.
        parameters: What it is called with.
        settings: How many side by side, how often again, how long at most.
        on_failure: Called with the parameters and the failure of one; gives its result.
        on_done: Called with each result, in order.

    Returns:
        The results, in order.

    Raises:
        OSError: A disk that is full or read-only, a file that cannot be written: no fault of one scene.
    """
    compute = settings.compute
    limited = step.with_options(
        retries=compute.retries,
        retry_delay_seconds=RETRY_DELAYS[: max(1, compute.retries)],
        timeout_seconds=compute.scene_timeout,
    )
    results = []
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=compute.workers)
    with runner:
        futures = [runner.submit(limited, parameters=one) for one in parameters]
        for one, future in zip(parameters, futures, strict=True):
            result = future.result(raise_on_failure=False)
            if isinstance(result, OSError) and not isinstance(result, TimeoutError):
                raise result
            if isinstance(result, Exception):
                log.error("%s failed", step.name, exc_info=result)
                result = on_failure(one, result)
            results.append(result)
            if on_done:
                on_done(results[-1])
    return results

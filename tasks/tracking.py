"""MLflow runs: where they are kept, and how a night becomes a step of a metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import mlflow
from mlflow.entities import Metric, Run

from configs import Settings, Workspace
from configs.workspace import as_utc

EPOCH = date(1970, 1, 1)


def connect(settings: Settings, workspace: Workspace) -> str:
    """Point MLflow at the server of the settings, or at the database of the workspace.

    Returns:
        The id of the experiment, which is made when it is missing.
    """
    uri = settings.tracking.uri or workspace.mlflow_uri
    if mlflow.get_tracking_uri() != uri:
        workspace.root.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(uri)
    name = settings.tracking.experiment or settings.name
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    embedded = settings.tracking.uri is None
    location = workspace.mlflow_artifacts.resolve().as_uri() if embedded else None
    return str(mlflow.create_experiment(name, artifact_location=location))


@contextmanager
def run(
    settings: Settings,
    workspace: Workspace,
    kind: str,
    name: str,
    tags: Mapping[str, str],
    system_metrics: bool = False,
    run_id: str | None = None,
) -> Iterator[Run]:
    """A run of the experiment with the settings logged; it is marked as failed when the block raises.

    Args:
        settings: Logged as parameters, and whole as `settings.json`.
        workspace: Holds the embedded database.
        kind: What is done: train, tune, calibrate, nightly, drift, validate, evaluate; kept as `tilewatch.kind`, a tag.
        name: Shown in MLflow's list of runs.
        tags: Further tags.
        system_metrics: Log the use of processor, memory and GPU as well.
        run_id: A run to go on with, whose parameters stay as they were logged; None begins one.
    """
    experiment = connect(settings, workspace)
    all_tags = {"tilewatch.kind": kind, **tags}
    with mlflow.start_run(
        run_id, experiment_id=experiment, run_name=name, tags=all_tags, log_system_metrics=system_metrics
    ) as active:
        if run_id is None:
            mlflow.log_params(flatten(settings.model_dump(mode="json")))
        mlflow.log_dict(settings.model_dump(mode="json"), "settings.json")
        yield active


@contextmanager
def part_of_run(kind: str, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """A run below the active one, in its experiment; it is marked as failed when the block raises."""
    parent = mlflow.active_run()
    experiment = None if parent is None else parent.info.experiment_id
    all_tags = {"tilewatch.kind": kind, **tags}
    with mlflow.start_run(experiment_id=experiment, run_name=name, tags=all_tags, nested=True) as active:
        yield active


def forget(settings: Settings, workspace: Workspace, kind: str, tags: Mapping[str, str]) -> None:
    """Delete earlier runs of a kind with these tags: work that was cut off, or is being done again."""
    experiment = connect(settings, workspace)
    client = mlflow.MlflowClient()
    wanted = {"tilewatch.kind": kind, **tags}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
    for found in client.search_runs([experiment], query):
        client.delete_run(found.info.run_id)


def log_finite(metrics: Mapping[str, float], step: int) -> None:
    """Log the numbers that are finite to the active run."""
    mlflow.log_metrics({metric_name(name): n for name, n in metrics.items() if math.isfinite(n)}, step=step)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def night_step(night: date) -> int:
    """The step of a night in a metric's history: days since 1970, so that gaps between nights show as gaps."""
    return (night - EPOCH).days


def log_night_metrics(
    settings: Settings, workspace: Workspace, detector_version: str, night: date, metrics: Mapping[str, float]
) -> None:
    """Add one step to the histories of a detector, in the one run that holds them."""
    experiment = connect(settings, workspace)
    client = mlflow.MlflowClient()
    name = f"nights of {detector_version}"
    found = client.search_runs(
        [experiment],
        f"tags.`tilewatch.kind` = 'history' and tags.detector_version = '{detector_version}'",
        max_results=1,
    )
    tags = {"tilewatch.kind": "history", "detector_version": detector_version}
    history = found[0] if found else client.create_run(experiment, run_name=name, tags=tags)
    time, step = int(as_utc(night).timestamp() * 1000), night_step(night)
    entities = [Metric(metric_name(key), value, time, step) for key, value in metrics.items() if math.isfinite(value)]
    client.log_batch(history.info.run_id, metrics=entities)
    client.set_terminated(history.info.run_id, end_time=int(datetime.now(UTC).timestamp() * 1000))


def metric_name(text: str) -> str:
    """A name MLflow accepts: letters, digits and `_-. /`; anything else becomes a hyphen."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "-" for c in text)

"""MLflow runs: where they are kept, and how a night becomes a step of a metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from requests import RequestException

from configs import Settings, Workspace

EPOCH = date(1970, 1, 1)
AWAY = (MlflowException, RequestException, ConnectionError)  # what calls of MLflow raise when it does not answer


class TrackingUnreachable(ConnectionError):
    """MLflow does not answer, or its database cannot be used."""


def connect(settings: Settings, workspace: Workspace) -> str:
    """Point MLflow at the server of the settings, or at the database of the workspace.

    Returns:
        The id of the experiment, which is made when it is missing.

    Raises:
        TrackingUnreachable: It does not answer.
    """
    uri = settings.tracking.uri or workspace.mlflow_uri
    if mlflow.get_tracking_uri() != uri:
        workspace.root.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(uri)
    try:
        return _experiment(settings, workspace)
    except AWAY as error:
        reason = str(error).strip().partition("\n")[0]
        server = f"MLflow at {uri} does not answer: start it, or set tracking.uri"
        words = server if settings.tracking.uri else f"MLflow's database {uri} cannot be used"
        raise TrackingUnreachable(f"{words} ({reason})") from error


def _experiment(settings: Settings, workspace: Workspace) -> str:
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
    all_tags = {**_marks(settings, kind), **tags}
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


def find_runs(
    settings: Settings,
    workspace: Workspace,
    kind: str,
    tags: Mapping[str, str] | None = None,
    status: str | None = None,
    deleted: bool = False,
) -> list[Run]:
    """The watch's runs of a kind, the newest first.

    Args:
        settings: Name the watch and the server.
        workspace: Holds the embedded database.
        kind: The tag `tilewatch.kind`.
        tags: Further tags that they have.
        status: RUNNING, FINISHED, FAILED or KILLED; None is any.
        deleted: Look for those that were deleted instead.
    """
    experiment = connect(settings, workspace)
    wanted = {**_marks(settings, kind), **(tags or {})}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
    query += f" and attributes.status = '{status}'" if status else ""
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    return list(mlflow.MlflowClient().search_runs([experiment], query, view, order_by=["attributes.start_time DESC"]))


def end_killed(settings: Settings, workspace: Workspace, kind: str) -> None:
    """Mark the runs of a kind that are still RUNNING as KILLED. To be called by the only one who is at such work."""
    for found in find_runs(settings, workspace, kind, status="RUNNING"):
        mlflow.MlflowClient().set_terminated(found.info.run_id, "KILLED")


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


def metric_name(text: str) -> str:
    """A name MLflow accepts: letters, digits and `_-. /`; anything else becomes a hyphen."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "-" for c in text)


def _marks(settings: Settings, kind: str) -> dict[str, str]:
    """The tags of every run: an experiment may be shared by several watches."""
    return {"tilewatch.kind": kind, "tilewatch.watch": settings.name}

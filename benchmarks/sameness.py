"""What must be the same of two workspaces, whatever happened to the runs that made them.

Left out by name: `run_id` of a night, `ingested_at` of a scene in the catalog, `at` of a quarantined scene. Every other
byte of what nights make counts, and so does every file that is there and should not be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
from mlflow.entities import Run, ViewType
from mlflow.genai import review_queues

FOLDERS = ("scores", "latents", "reports", "catalog", "quarantine", "reference", "pending")
VOLATILE = {"reports": "run_id", "catalog": "ingested_at", "quarantine": "at"}


def kept(workspace: Path) -> dict[str, str]:
    """Digest of every file of a workspace that nights make, hidden ones too, by its path."""
    return {
        path.relative_to(workspace).as_posix(): hashlib.sha256(_content(path, folder)).hexdigest()[:16]
        for folder in FOLDERS
        for path in sorted((workspace / folder).rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _content(path: Path, folder: str) -> bytes:
    volatile = VOLATILE.get(folder)
    if volatile and path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            content.pop(volatile, None)
        return json.dumps(content, sort_keys=True).encode()
    if folder == "catalog" and path.suffix == ".parquet":
        table = pq.read_table(path).drop_columns([volatile])
        about = {name: text.decode() for name, text in (table.schema.metadata or {}).items() if name != b"pandas"}
        return repr((table.to_pydict(), sorted(about.items()))).encode()
    return path.read_bytes()


def tracked(uri: str, experiment: str) -> dict[str, Any]:
    """What MLflow holds of the nights of an experiment: runs, the steps of each history, and what people are asked."""
    mlflow.set_tracking_uri(uri)
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        return {}
    client = mlflow.MlflowClient()
    runs = client.search_runs([found.experiment_id], "", ViewType.ACTIVE_ONLY, max_results=1000)
    entries = [entry for run in runs for entry in _run(client, run)]
    reviews = mlflow.get_experiment_by_name(f"{experiment}-review")
    if reviews is not None:
        entries += _questions(reviews.experiment_id)
    names = [name for name, _ in entries]
    twice = {f"{name}, again": content for number, (name, content) in enumerate(entries) if name in names[:number]}
    return dict(reversed(entries)) | twice


def _run(client: mlflow.MlflowClient, run: Run) -> Iterator[tuple[str, Any]]:
    """Name and content of a run; of a history, each number by itself."""
    tags, status = run.data.tags, run.info.status
    kind = tags.get("tilewatch.kind", "")
    if kind == "history":
        name = f"history of {tags['detector_version']}"
        yield name, status
        for key in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, key)
            yield f"{name}: {key}", sorted((point.step, point.value) for point in points)
    else:
        name = f"{kind} {tags.get('night', '')}"
        metrics = sorted(run.data.metrics.items())
        yield name, (status, tags.get("detector_version"), metrics, list(_artifacts(client, run.info.run_id)))


def _questions(experiment: str) -> Iterator[tuple[str, Any]]:
    """Each question of a review experiment, and each item of its queues."""
    items = {}
    for trace in mlflow.search_traces(locations=[experiment], return_type="list", include_spans=False):
        tags, told = trace.info.tags, trace.info.request_preview
        items[trace.info.trace_id] = name = f"question {tags['tilewatch.scene_id']} {tags['tilewatch.tile_id']}"
        yield name, (told, tags["tilewatch.asked"], tags["tilewatch.share"], tags["tilewatch.score"])
    for queue in review_queues.list_review_queues(experiment_id=experiment):
        for item in review_queues.list_review_queue_items(queue.queue_id, max_results=1000):
            yield f"{items.get(item.item_id, 'nothing')} in {queue.name}", str(item.status)


def _artifacts(client: mlflow.MlflowClient, run_id: str, folder: str = "") -> Iterator[tuple[str, int]]:
    """Path and size of the artifacts of a run. What is logged as it lies in the workspace has been compared there."""
    for one in client.list_artifacts(run_id, folder):
        if one.is_dir:
            yield from _artifacts(client, run_id, one.path)
        elif one.path != "settings.json":  # names the experiment
            yield one.path, one.file_size


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What two of these tell differently, in words."""
    missing = [f"{name} is missing" for name in one if name not in other]
    more = [f"{name} is too many" for name in other if name not in one]
    return [*missing, *more, *(f"{name} differs" for name in one if name in other and one[name] != other[name])]

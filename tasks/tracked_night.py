"""A night in MLflow: one finished run a night, and one step a night in the histories of its detector.

All of it is made of what lies in the workspace, so it can be logged at any time, and again after a kill: what an
earlier try has left is replaced.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import Metric, Run

from configs import Settings, Workspace
from configs.workspace import as_utc, safe_name
from imagery.catalog import SceneRecord
from tasks import tracking
from tasks.nights import NightRecord
from tasks.report import validation_page
from tasks.review.counting import precision, recent
from tasks.review.verdicts import known_verdicts
from tasks.score import score_files
from tasks.validate import Validation

log = logging.getLogger(__name__)

MOST_METRICS = 1000  # that MLflow takes at once
REVIEWED_DAYS = 30  # of which verdicts are counted
TABLE, MOST_ROWS = "flags.json", 1000
TABLE_COLUMNS = ("location", "tile_id", "score", "bar", "p_value", "p_reviewed", "valid_fraction", "kind", "basis")


@dataclass(frozen=True)
class NightLog:
    """What MLflow is told of a night.

    Attributes:
        record: What became of it.
        metrics: Finite numbers by name.
        files: Where each file lies, relative to the workspace, and its folder among the artifacts.
        texts: Content of further artifacts by their path.
    """

    record: NightRecord
    metrics: Mapping[str, float]
    files: tuple[tuple[str, str], ...]
    texts: Mapping[str, str]


def night_log(
    record: NightRecord,
    scores: pd.DataFrame,
    scenes: Sequence[SceneRecord],
    files: Sequence[Path],
    validation: Validation,
    settings: Settings,
    workspace: Workspace,
) -> NightLog:
    """What MLflow is to be told of a night.

    Args:
        record: What became of it.
        scores: Of all its tiles.
        scenes: Those that have scores.
        files: The page and the flags.
        validation: The checks of its scenes.
        settings: Name the watch on the page of the checks.
        workspace: Holds all these files.
    """
    numbers = scores["score"].dropna()
    metrics = {
        "tiles": record.tiles,
        "scored": record.scored,
        "flags": record.flags,
        "suppressed": record.suppressed,
        "flag_rate": record.flags / record.scored if record.scored else math.nan,
        "median_score": numbers.median() if len(numbers) else math.nan,
        "scenes": len(record.scenes),
        "quarantined": len(record.quarantined),
        "drift_alarm": math.nan if record.alarmed is None else record.alarmed,
        **_reviewed(record.night, workspace),
        **{f"drift/{name}": value for name, value in record.statistics.items()},
    }
    score_tables = [
        (score_files(workspace, record.detector_version, scene).scores, f"scores/{safe_name(scene.location)}")
        for scene in scenes
    ]
    places = [*((path, "") for path in files), *score_tables]
    return NightLog(
        record,
        metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
        files=tuple((path.relative_to(workspace.root).as_posix(), folder) for path, folder in places),
        texts={
            "validation/validation.json": json.dumps(validation.result, default=str),
            "validation/validation.html": validation_page(validation, settings, record.night.isoformat()),
            TABLE: _flag_table(scores),
        },
    )


def _reviewed(until: date, workspace: Workspace) -> dict[str, float]:
    """What people have said of the flags of the last nights."""
    found = next(iter(precision(recent(known_verdicts(workspace), until, REVIEWED_DAYS))), None)
    if found is None:
        return {"reviewed": 0.0}
    reviewed = found.anomalies + found.false_alarms + found.clouds
    return {
        "reviewed": reviewed + found.bad,
        "reviewed_false_alarms": found.false_alarms + found.clouds,
        "reviewed_precision": found.share,
    }


def _flag_table(scores: pd.DataFrame) -> str:
    """The flags, the least likely first, as MLflow keeps tables; its own pages show them."""
    flags = scores[scores["flagged"].astype(bool)].sort_values("p_value", kind="stable").head(MOST_ROWS)
    columns = [name for name in TABLE_COLUMNS if name in flags]
    table = json.loads(flags[columns].to_json(orient="split", index=False))
    return json.dumps({"columns": table["columns"], "data": table["data"]}, ensure_ascii=False)


def log_night(night: NightLog, settings: Settings, workspace: Workspace) -> str:
    """Log a night, in place of what was logged of it before.

    Returns:
        The id of its run.

    Raises:
        TrackingUnreachable: MLflow does not answer. It raises other errors of its own when that happens half-way.
    """
    record = night.record
    about = {"night": record.night.isoformat()}
    known = tracking.find_runs(settings, workspace, "nightly", about)
    before = known or tracking.find_runs(settings, workspace, "nightly", about, deleted=True)
    for one in known:
        mlflow.MlflowClient().delete_run(one.info.run_id)
    tags = about | {"detector_version": record.detector_version}
    with tracking.run(settings, workspace, "nightly", f"night {record.night}", tags) as run:
        tracking.log_finite(night.metrics, step=tracking.night_step(record.night))
        for name, folder in night.files:
            if (workspace.root / name).exists():
                mlflow.log_artifact(str(workspace.root / name), folder or None)
            else:
                log.warning("%s is gone, so the MLflow run of %s is without it", name, record.night)
        for name, text in night.texts.items():
            mlflow.log_text(text, name)
        mlflow.set_tag("mlflow.loggedArtifacts", json.dumps([{"path": TABLE, "type": "table"}]))
        run_id = str(run.info.run_id)
    _log_step(night, bool(before), settings, workspace)
    return run_id


def _log_step(night: NightLog, again: bool, settings: Settings, workspace: Workspace) -> None:
    """One step of the histories of the detector, in the one run that holds them."""
    client, record = mlflow.MlflowClient(), night.record
    about = {"detector_version": record.detector_version}
    time, step = int(as_utc(record.night).timestamp() * 1000), tracking.night_step(record.night)
    metrics = [Metric(tracking.metric_name(key), value, time, step) for key, value in night.metrics.items()]
    history = _history(settings, workspace, about)
    if history is not None and not again:
        client.log_batch(history.info.run_id, metrics)
        return
    kept = [] if history is None else _other_steps(history, step)
    # MLflow can take back no single number: a step that changes needs another run. It counts once it is finished.
    metrics = sorted([*kept, *metrics], key=lambda one: (one.step, one.key))
    made = client.create_run(
        tracking.connect(settings, workspace),
        run_name=f"nights of {record.detector_version}",
        tags={"tilewatch.kind": "history", "tilewatch.watch": settings.name, **about},
    )
    for first in range(0, len(metrics), MOST_METRICS):
        client.log_batch(made.info.run_id, metrics[first : first + MOST_METRICS])
    client.set_terminated(made.info.run_id, end_time=int(datetime.now(UTC).timestamp() * 1000))
    if history is not None:
        client.delete_run(history.info.run_id)


def _history(settings: Settings, workspace: Workspace, about: Mapping[str, str]) -> Run | None:
    """The newest finished history of a detector. What kills have left beside it is deleted."""
    found = tracking.find_runs(settings, workspace, "history", about)
    finished = [run for run in found if run.info.status == "FINISHED"]
    for run in found:
        if run not in finished[:1]:
            mlflow.MlflowClient().delete_run(run.info.run_id)
    return finished[0] if finished else None


def _other_steps(history: Run, step: int) -> list[Metric]:
    """All numbers of a history but those of one step."""
    client = mlflow.MlflowClient()
    points = [point for key in history.data.metrics for point in client.get_metric_history(history.info.run_id, key)]
    return [Metric(one.key, one.value, one.timestamp, one.step) for one in points if one.step != step]

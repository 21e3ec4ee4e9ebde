"""Nightly: ingest what is new, check it, score it, look for drift, and report each night that is due."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import mlflow
import pandas as pd
from prefect import flow

from configs import Settings, SettingsError, Workspace
from configs.workspace import safe_name
from flows.ingest import IngestSummary, ingest_new
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.progress import progress
from flows.train import TrainSummary, train
from imagery.catalog import Catalog, SceneRecord
from imagery.grid import Grid
from imagery.outputs import empty_scores, write_flags
from tasks import registry, steps, tracking
from tasks.artifacts import night_artifacts
from tasks.dataset import NothingToTrain
from tasks.drift import Drift, judge_night
from tasks.evidence import read_scores
from tasks.ingest import plan_ingest
from tasks.nights import Night, NightRecord, due_nights, read_nights, refresh, write_night
from tasks.reference import Usual
from tasks.report import validation_page, write_report
from tasks.score import check_fit, score_files
from tasks.train import usable_scenes
from tasks.validate import Validation, validate_scenes
from vae.errors import VaeError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NightlySummary:
    """What a nightly run did: the nights it reported, oldest first, and the trainings it started."""

    detector_version: str
    ingested: IngestSummary | None = None
    nights: list[NightRecord] = field(default_factory=list)
    trainings: list[TrainSummary] = field(default_factory=list)
    failed_trainings: dict[str, str] = field(default_factory=dict)


@flow(name="nightly", flow_run_name="nightly", persist_result=False)
def nightly(watch: Watch, request: NightRequest | None = None) -> NightlySummary:
    """Report the nights that are due, oldest first.

    A night is scored by one detector, the champion at its time. Running it again changes nothing; a scene that arrives
    later makes its night due again.

    Args:
        watch: Configuration and workspace.
        request: Which nights.
    """
    request = request or NightRequest()
    settings, workspace = watch.open()
    steps.limit_threads(settings)
    folder, version = registry.champion(settings, workspace)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    ingested = ingest_new(settings, workspace, request.period.end)
    reported, trainings, failures = [], [], {}
    due = due_nights(settings, workspace, detector, request.period, request.force)
    with progress("nights", len(due)) as counter:
        for night in due:
            record, drift = _report_night(night, folder, version, settings, workspace)
            reported.append(record)
            counter.step(f"{night.night}: {record.flags} flags")
            retraining = retrain_request(drift, night.night, settings)
            if retraining:
                try:
                    trainings.append(train(watch, retraining))
                except (NothingToTrain, SettingsError, VaeError) as error:
                    log.warning("retraining after %s failed, %s goes on: %s", night.night, version, error)
                    failures[night.night.isoformat()] = str(error)
                    continue
                folder, version = registry.champion(settings, workspace)
    return NightlySummary(version, ingested, reported, trainings, failures)


def nothing_to_do(settings: Settings, workspace: Workspace, request: NightRequest) -> str | None:
    """The champion's version when no scene is new and no night is due, else None.

    Raises:
        NoChampion: Nothing was trained yet.
    """
    if plan_ingest(settings, workspace, request.period.end).scenes:
        return None
    folder, version = registry.champion(settings, workspace)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    return None if due_nights(settings, workspace, detector, request.period, request.force) else version


def retrain_request(drift: Drift, night: date, settings: Settings) -> TrainRequest | None:
    """The training that a lasting drift asks for, once enough nights of the new kind are there to learn from.

    Of the nights since the drift began the earlier half is learned from, together with all before, and the later half
    sets the threshold, so that calibration is of the new kind only.
    """
    nights = drift.usable_nights
    if settings.drift.retrain != "nightly" or drift.began is None or len(nights) < settings.drift.retrain_after:
        return None
    start = nights[len(nights) // 2]
    return TrainRequest(
        reason=f"drift since {drift.began}: {drift.reasons[0] if drift.reasons else 'lasting alarm'}",
        train_end=start - timedelta(days=1),
        calibrate_start=start,
        calibrate_end=night,
    )


def _report_night(
    night: Night, folder: Path, version: str, settings: Settings, workspace: Workspace
) -> tuple[NightRecord, Drift]:
    """Check, score, judge and report one night."""
    detector = steps.load_detector(folder)
    ranges = {band: (low, high) for band, (low, high) in detector.metadata["band_ranges"].items()}
    validation = validate_scenes(night.scenes, settings, workspace, ranges)
    night = refresh(night, workspace)
    known = [scene for scene in night.scenes if scene.location in detector.metadata["locations"]]
    unknown = [scene for scene in night.scenes if scene.location not in detector.metadata["locations"]]
    for scene in unknown:
        log.warning("%s gets no score: no scene of %s was in the training dates", scene.scene_id, scene.location)
    usual = _compare(known, settings, workspace)
    _score(known, usual, folder, version, settings, workspace)
    night = refresh(night, workspace)
    known = [scene for scene in night.scenes if scene in known]
    past = read_nights(workspace, version, before=night.night)
    drift = judge_night(night.night, usable_scenes(settings, workspace), detector, version, past, settings, workspace)
    scored = read_scores(known, usual, version, workspace)
    tables = [one.scores for one in scored]
    together = pd.concat(tables, ignore_index=True) if tables else empty_scores()
    report = write_report(
        night, unknown, scored, drift, past, validation.checks, detector, version, settings, workspace
    )
    flags = together[together["flagged"].astype(bool)]
    record = NightRecord(
        night=night.night,
        detector_version=version,
        calibration_id=detector.calibration_id,
        scenes={scene.scene_id: scene.fingerprint for scene in night.scenes},
        unknown=tuple(scene.scene_id for scene in unknown),
        quarantined={bad.scene_id: bad.reason for bad in night.quarantined},
        tiles=len(together),
        scored=int(together["score"].notna().sum()),
        flags=len(flags),
        alarmed=drift.alarmed,
        drift_reasons=drift.reasons,
        drift_began=drift.began,
        statistics=drift.statistics,
        report=report.relative_to(workspace.root).as_posix(),
    )
    flag_files = write_flags(report.parent, together, _grids(known, workspace))
    files = [report, flag_files.flags, flag_files.flags_geojson, flag_files.areas_geojson]
    record = _track(record, together, known, files, validation, settings, workspace)
    ranked = flags.sort_values("p_value", kind="stable") if len(flags) else flags
    night_artifacts(record, ranked, report)
    write_night(workspace, record)
    return record, drift


def _grids(scenes: list[SceneRecord], workspace: Workspace) -> dict[str, Grid]:
    """The grid of each location."""
    found = {scene.location: Catalog(workspace).grid(scene.location) for scene in scenes}
    return {location: grid for location, grid in found.items() if grid}


def _compare(scenes: list[SceneRecord], settings: Settings, workspace: Workspace) -> dict[str, Usual]:
    """What each scene is compared with, by `scene_id`; scenes without an earlier clear one are left out."""
    parameters = [{"record": record, "settings": settings, "workspace": workspace} for record in scenes]
    found = steps.for_each(steps.compare_scene, parameters, settings, lambda one, failure: None)
    return {record.scene_id: usual for record, usual in zip(scenes, found, strict=True) if usual}


def _score(
    scenes: list[SceneRecord],
    usual: dict[str, Usual],
    folder: Path,
    version: str,
    settings: Settings,
    workspace: Workspace,
) -> None:
    common = {"detector": folder, "detector_version": version, "settings": settings, "workspace": workspace}
    todo = [record for record in scenes if not score_files(workspace, version, record).complete]
    steps.for_each(
        steps.score_scene,
        [{"record": record, "usual": usual.get(record.scene_id), **common} for record in todo],
        settings,
        lambda one, failure: steps.set_aside("score", one["record"].scene, failure, settings, workspace).reason,
    )


def _track(
    record: NightRecord,
    scores: pd.DataFrame,
    scenes: list[SceneRecord],
    files: list[Path],
    validation: Validation,
    settings: Settings,
    workspace: Workspace,
) -> NightRecord:
    """One MLflow run for the night, in place of an earlier one of the same night."""
    numbers = scores["score"].dropna()
    metrics = {
        "tiles": float(record.tiles),
        "scored": float(record.scored),
        "flags": float(record.flags),
        "flag_rate": record.flags / record.scored if record.scored else float("nan"),
        "median_score": float(numbers.median()) if len(numbers) else float("nan"),
        "scenes": float(len(record.scenes)),
        "quarantined": float(len(record.quarantined)),
        "drift_alarm": float("nan") if record.alarmed is None else float(record.alarmed),
        **{f"drift/{name}": value for name, value in record.statistics.items()},
    }
    night = record.night.isoformat()
    tags = {"night": night, "detector_version": record.detector_version}
    tracking.forget(settings, workspace, "nightly", {"night": night})
    with tracking.run(settings, workspace, "nightly", f"night {night}", tags) as run:
        tracking.log_finite(metrics, step=tracking.night_step(record.night))
        for path in files:
            mlflow.log_artifact(str(path))
        mlflow.log_text(json.dumps(validation.result, default=str), "validation/validation.json")
        mlflow.log_text(validation_page(validation, settings, night), "validation/validation.html")
        for scene in scenes:
            scores_file = score_files(workspace, record.detector_version, scene).scores
            mlflow.log_artifact(str(scores_file), f"scores/{safe_name(scene.location)}")
        run_id = str(run.info.run_id)
    tracking.log_night_metrics(settings, workspace, record.detector_version, record.night, metrics)
    return replace(record, run_id=run_id)

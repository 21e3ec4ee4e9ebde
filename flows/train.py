"""Train: ingest, validate, fit, extract latents, calibrate, register, and compare with the champion."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import cast

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from prefect import flow
from prefect.states import Completed

from configs import Settings, Workspace
from flows.ingest import ingest_new
from flows.models import settle
from flows.parameters import TrainRequest, Watch
from flows.progress import console, progress
from flows.telling import tell_of_failure, tell_of_refusal
from imagery.catalog import SceneRecord
from tasks import figures, registry, retraining, steps, tracking
from tasks.artifacts import table_artifact
from tasks.calibrate import Calibrated, calibrate_detector
from tasks.dataset import split_scenes
from tasks.diagnosis import log_diagnosis
from tasks.disk import told
from tasks.exclusive import exclusive
from tasks.injected import NothingToInject, recall_figure
from tasks.moves import CHALLENGER
from tasks.report import validation_page
from tasks.score import latents_file, write_latents
from tasks.smoke import injected_into
from tasks.train import (
    Trained,
    check_request,
    look_back,
    train_detector,
    trainable_scenes,
    usable_scenes,
)
from tasks.validate import Validation, validate_scenes
from vae.detector import Detector
from vae.diagnostics import Diagnosis
from vae.networks import VAE
from vae.scores.asked import looks_back
from vae.training import EpochMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSummary:
    """What a training gave."""

    detector_version: str
    run_id: str
    epochs: int
    best_epoch: int
    elbo_held_out: float | None
    training_tiles: int
    training_dates: int
    calibration_tiles: int
    calibration_dates: int
    calibration_basis: str
    threshold: float
    quarantined: dict[str, str]
    untrained_locations: list[str]
    promoted: bool = True
    verdict: str = ""


@flow(
    name="train",
    flow_run_name="train",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def train(watch: Watch, request: TrainRequest | None = None) -> TrainSummary | None:
    """Train a detector, and make it the champion when it is better than the one that scores (`promotion`).

    Args:
        watch: Configuration and workspace.
        request: Why, on what dates, with which settings.
    """
    request = request or TrainRequest()
    settings, workspace = watch.open()
    settings = request.apply(settings)
    with told(workspace), exclusive(workspace, "train"):
        return _train(request, settings, workspace)


def _train(request: TrainRequest, settings: Settings, workspace: Workspace) -> TrainSummary | None:
    """The training itself, by the only one in the workspace who is at it."""
    if request.drift and (why := retraining.refusal(request.drift, request.calibrate_end, settings, workspace)):
        log.warning("no training: %s", why)
        return cast(None, Completed(message=f"no training: {why}"))
    steps.limit_threads(settings)
    ingested = ingest_new(settings, workspace, last_date(settings))
    tracking.end_killed(settings, workspace, "train")
    for left in workspace.latents.glob("staging-*"):  # by a training that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tracking.run(settings, workspace, "train", "train", {"reason": request.reason}, system_metrics=True) as run:
        validation = check_scenes(settings, workspace)
        compare_with_past(settings, workspace)
        trained = _fit(settings, workspace, request.reason)
        staging = f"staging-{run.info.run_id}"
        try:
            calibrated = _calibrate(trained, staging, settings, workspace)
            detector = what_it_would_miss(calibrated.detector, trained.split.calibration_scenes, settings, workspace)
            calibrated = replace(calibrated, detector=detector)
            _log(trained, calibrated, validation, settings)
            version = registry.register(detector, settings, request.reason, CHALLENGER)
            os.rename(workspace.latents / staging, workspace.latents / version)
        finally:
            shutil.rmtree(workspace.latents / staging, ignore_errors=True)
        settled = settle(version, last_date(settings), settings, workspace)
        if not settled.promoted:
            tell_of_refusal(version, settled.verdict, settings)
        if request.drift:
            retraining.trained(request.drift, request.calibrate_end, version, workspace)
        run_id = run.info.run_id
    calibration = detector.required_calibration
    known = set(detector.metadata["locations"])
    untrained = sorted({record.location for record in usable_scenes(settings, workspace)} - known)
    for location in untrained:
        log.warning("%s has no scene in the training dates: it will get no score", location)
    quarantined = dict(ingested.quarantined)
    for check in validation.failed:
        if check.severity == "critical":
            quarantined.setdefault(check.scene_id, check.words)
    first = trained.fitted[0] if trained.fitted else None
    summary = TrainSummary(
        detector_version=version,
        run_id=run_id,
        epochs=len(first.history) if first else 0,
        best_epoch=first.best_epoch if first else 0,
        elbo_held_out=first.history[first.best_epoch - 1].elbo_held_out if first else None,
        training_tiles=detector.metadata["training_tiles"],
        training_dates=len(detector.metadata["training_dates"]),
        calibration_tiles=calibration.tiles,
        calibration_dates=len(calibration.dates),
        calibration_basis=calibration.basis,
        threshold=calibration.threshold,
        quarantined=quarantined,
        untrained_locations=untrained,
        promoted=settled.promoted,
        verdict=settled.verdict,
    )
    rows = [{"what": name, "value": str(value)} for name, value in asdict(summary).items()]
    table_artifact("training", rows, f"Training of {version}")
    return summary


def last_date(settings: Settings) -> date | None:
    """Nothing after the dates that are learned from is ingested for a training."""
    ends = [settings.split.train.end]
    if settings.split.calibrate:
        ends.append(settings.split.calibrate.end)
    return None if None in ends else max(end for end in ends if end)


def check_scenes(settings: Settings, workspace: Workspace) -> Validation:
    """Check the scenes of the split; those that fail critically are quarantined before the split is made again."""
    split = split_scenes(settings, trainable_scenes(settings, workspace))
    check_request(settings, split, workspace)
    return validate_scenes(split.scenes, settings, workspace)


def compare_with_past(settings: Settings, workspace: Workspace) -> None:
    """What the past lets expect of each scene, when a score asks for it or the networks are told."""
    if looks_back(settings.score, settings.model):
        scenes = split_scenes(settings, trainable_scenes(settings, workspace)).scenes
        with progress("compare", len(scenes)) as counter:
            look_back(scenes, settings, workspace, counter.at)


def _fit(settings: Settings, workspace: Workspace, reason: str) -> Trained:
    with progress("train", settings.train.epochs) as counter:

        def on_epoch(metrics: EpochMetrics, network: VAE) -> None:
            elbo = metrics.elbo_train if metrics.elbo_held_out is None else metrics.elbo_held_out
            counter.at(
                metrics.epoch,
                settings.train.epochs,
                f"ELBO {elbo:.3f}, reconstruction {metrics.reconstruction:.0f}, KL {metrics.kl:.0f}, "
                f"{metrics.tiles_per_second:.0f} tiles/s",
            )
            numbers = {name: value for name, value in asdict(metrics).items() if value is not None and name != "epoch"}
            mlflow.log_metrics(numbers, step=metrics.epoch)

        def on_diagnosis(diagnosis: Diagnosis, epoch: int, final: bool) -> None:
            log_diagnosis(diagnosis, epoch, settings.report.rgb, settings.train.latent_map, "final" if final else None)

        return train_detector(settings, workspace, reason, on_epoch=on_epoch, on_diagnosis=on_diagnosis)


def _calibrate(trained: Trained, staging: str, settings: Settings, workspace: Workspace) -> Calibrated:
    """Look at every scene of the split: levels, threshold, drift profile and latents.

    Latents are kept in a staging folder: the detector has no version yet.
    """

    def keep(record: SceneRecord, rows: list[pd.DataFrame]) -> None:
        write_latents(latents_file(workspace, staging, record), rows, record)

    with progress("calibrate", len(trained.split.scenes)) as counter:
        return calibrate_detector(trained.detector, trained.split, settings, workspace, counter.at, keep)


def what_it_would_miss(
    detector: Detector, scenes: Sequence[SceneRecord], settings: Settings, workspace: Workspace
) -> Detector:
    """Put anomalies into calibration scenes: what is flagged of them, to the active run and with the detector."""
    if not settings.injections.enabled:
        return detector
    console.print("inject anomalies into calibration scenes")
    try:
        alarm = injected_into(scenes, detector, settings, workspace)
    except NothingToInject as error:
        log.warning("nothing was injected: %s", error)
        return detector
    for warning in alarm.warnings:
        log.warning("%s", warning)
    mlflow.log_table(alarm.table, "injected.json")
    mlflow.log_figure(recall_figure(alarm), "figures/injected.png")
    scored = alarm.table[alarm.table["tiles"] > 0]
    found = {f"injected_recall/{row.kind}": float(row.recall) for row in scored.itertuples()}
    tracking.log_finite(found | {"injected_ap": alarm.mean_ap, "injected_false_alarms": alarm.false_alarms}, step=0)
    return replace(detector, metadata={**detector.metadata, "misses": alarm.warnings})


def log_score_histograms(calibrated: Calibrated) -> None:
    """One figure a calibrated score, to the active run."""
    for name, scores in calibrated.scores.items():
        calibration = calibrated.detector.calibrations[name]
        mlflow.log_figure(figures.score_histogram(scores, calibration), f"figures/scores-{name}.png")


def _log(trained: Trained, calibrated: Calibrated, validation: Validation, settings: Settings) -> None:
    """Data, figures and checks of the training, to the active run."""
    split, detector = trained.split, calibrated.detector
    calibration = detector.required_calibration
    roles = [
        *((record, "train") for record in split.train),
        *((record, "validation") for record in split.validation),
        *((record, "calibrate") for record in split.calibrate),
    ]
    table = pd.DataFrame(
        [
            {
                "scene_id": record.scene_id,
                "role": role,
                "fingerprint": record.fingerprint,
                "tiles": float(record.tiles),
                "valid_fraction": record.valid_fraction,
            }
            for record, role in roles
        ]
    )
    digest = str(detector.metadata["data_fingerprint"])[:36]
    dataset = from_pandas(table, name=settings.name, digest=digest)
    mlflow.log_input(dataset, context="training")
    mlflow.log_table(table, "scenes.json")
    for number, fitted in enumerate(trained.fitted):
        mlflow.log_figure(
            figures.loss_curves(fitted.history), f"figures/loss-{number}.png" if number else "figures/loss.png"
        )
    if trained.sample.expected is not None:
        mlflow.log_figure(
            figures.reconstructions(detector, trained.sample, settings.report.rgb), "figures/expected.png"
        )
    log_score_histograms(calibrated)
    metrics = {
        "threshold": calibration.threshold,
        "calibration_tiles": calibration.tiles,
        "training_tiles": detector.metadata["training_tiles"],
        "validation_failed": len(validation.failed),
        **{f"sigma_{band}": float(value) for band, value in zip(detector.bands, detector.sigma, strict=True)},
        **{f"threshold_{name}": made.threshold for name, made in detector.calibrations.items()},
    }
    tracking.log_finite(metrics, step=0)
    mlflow.log_text(json.dumps(validation.result, default=str), "validation/validation.json")
    mlflow.log_text(validation_page(validation, settings, "training"), "validation/validation.html")

"""Nightly: ingest what is new, check it, score it, look for drift, and report each night that is due."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pandas as pd
from prefect import flow

from configs import Settings, Workspace
from flows.ingest import IngestSummary, ingest_new
from flows.parameters import NightRequest, Watch
from flows.progress import progress
from flows.retraining import answer_drift
from flows.telling import tell_of_failure
from flows.train import TrainSummary
from imagery.catalog import Catalog, SceneRecord
from imagery.grid import Grid
from imagery.outputs import empty_scores, write_flags
from tasks import pending, registry, steps, tracking
from tasks.disk import told
from tasks.drift import MOST_NIGHTS, judge_night
from tasks.drift_figures import write_drift_history
from tasks.evidence import illustrate, pairs, read_scores
from tasks.exclusive import exclusive
from tasks.ingest import plan_ingest
from tasks.left_over import sweep
from tasks.nights import Night, NightRecord, due_nights, read_nights, refresh, unfinish
from tasks.reference import Usual
from tasks.report import ranked, write_report
from tasks.review.answers import collect
from tasks.review.asking import choose
from tasks.review.heeding import heed
from tasks.review.questions import write_questions
from tasks.score import check_fit, score_files
from tasks.tracked_night import night_log
from tasks.train import usable_scenes
from tasks.validate import validate_scenes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NightlySummary:
    """What a nightly run did: the nights it reported, oldest first, and the trainings it started.

    `not_in_mlflow` names nights that are kept until it answers, of this run and of earlier ones.
    """

    detector_version: str
    ingested: IngestSummary | None = None
    nights: list[NightRecord] = field(default_factory=list)
    trainings: list[TrainSummary] = field(default_factory=list)
    failed_trainings: dict[str, str] = field(default_factory=dict)
    not_in_mlflow: list[date] = field(default_factory=list)


@flow(
    name="nightly",
    flow_run_name="nightly",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def nightly(watch: Watch, request: NightRequest | None = None) -> NightlySummary:
    """Report the nights that are due, oldest first.

    A night is scored by one detector, the champion at its time. Running it again changes nothing; a scene that arrives
    later makes its night due again. A second run in the same workspace waits for the first one. What a run that was
    killed, or an MLflow that did not answer, has left is finished first, and then people's verdicts are read.

    Args:
        watch: Configuration and workspace.
        request: Which nights.
    """
    settings, workspace = watch.open()
    steps.limit_threads(settings)
    with told(workspace), exclusive(workspace, "nightly") as killed:
        if killed:
            log.warning("the last run was killed (%s): going on from where it was", killed)
            sweep(workspace, killed)
        for record in pending.finish_all(settings, workspace):
            if record.run_id:
                log.warning("the night of %s, which an earlier run had left, is in MLflow now", record.night)
        _read_verdicts(settings, workspace)
        return _catch_up(watch, request or NightRequest(), settings, workspace)


def _catch_up(watch: Watch, request: NightRequest, settings: Settings, workspace: Workspace) -> NightlySummary:
    """Ingest what is new, and report the nights that are due; after each, do what its drift asks for."""
    folder, version = registry.champion(settings, workspace)
    answer = answer_drift(watch, version, settings, workspace)  # a run that was killed may not have come to it
    trainings, failures = [*answer.trainings], {**answer.failures}
    folder, version = registry.champion(settings, workspace) if trainings else (folder, version)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    ingested = ingest_new(settings, workspace, request.period.end)
    reported = []
    due = due_nights(settings, workspace, detector, request.period, request.force)
    with progress("nights", len(due)) as counter:
        for night in due:
            record = _report_night(night, folder, version, settings, workspace)
            reported.append(record)
            counter.step(f"{night.night}: {record.flags} flags")
            if record.drift_began:
                answer = answer_drift(watch, version, settings, workspace)
                trainings += answer.trainings
                failures |= answer.failures
                folder, version = registry.champion(settings, workspace) if answer.trainings else (folder, version)
    left = [entry.night.record.night for entry in pending.entries(workspace)]
    return NightlySummary(version, ingested, reported, trainings, failures, left)


def _read_verdicts(settings: Settings, workspace: Workspace) -> None:
    """Bring in what people have said since; without MLflow, what they had said until then counts."""
    try:
        collect(settings, workspace)
    except tracking.AWAY as error:
        reason = str(error).strip().partition("\n")[0]
        log.warning("new verdicts could not be read (%s): those in %s count", reason, workspace.verdicts)
    except ValueError as error:  # a table that is damaged, or not understood: it costs no night
        log.warning("new verdicts cannot be added to %s: %s", workspace.verdicts, error)


def nothing_to_do(settings: Settings, workspace: Workspace, request: NightRequest) -> str | None:
    """The champion's version when no scene is new, no night is due and none is left to be finished, else None.

    Raises:
        NoChampion: Nothing was trained yet.
    """
    if pending.entries(workspace) or plan_ingest(settings, workspace, request.period.end).scenes:
        return None
    folder, version = registry.champion(settings, workspace)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    return None if due_nights(settings, workspace, detector, request.period, request.force) else version


def _report_night(night: Night, folder: Path, version: str, settings: Settings, workspace: Workspace) -> NightRecord:
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
    recent = usable_scenes(settings, workspace, since=past[-MOST_NIGHTS:][0].night if past else night.night)
    drift = judge_night(night.night, recent, detector, version, past, settings, workspace)
    scored = heed(read_scores(known, usual, version, workspace), detector, settings, workspace)
    asked = choose(scored, settings, workspace)
    flags = ranked(scored).head(settings.report.max_flags)
    wanted = {*pairs(flags), *pairs(asked)}
    shown = illustrate(scored, wanted, detector, settings, workspace)
    tables = [one.scores for one in scored]
    together = pd.concat(tables, ignore_index=True) if tables else empty_scores()
    unfinish(workspace, night.night)
    report = write_report(
        night, unknown, scored, shown, asked, drift, past, validation.checks, detector, version, settings, workspace
    )
    record = NightRecord(
        night=night.night,
        detector_version=version,
        calibration_id=detector.calibration_id,
        scenes={scene.scene_id: scene.fingerprint for scene in night.scenes},
        unknown=tuple(scene.scene_id for scene in unknown),
        quarantined={bad.scene_id: bad.reason for bad in night.quarantined},
        tiles=len(together),
        scored=int(together["score"].notna().sum()),
        flags=int(together["flagged"].sum()),
        suppressed=int(together["suppressed"].notna().sum()) if tables else 0,
        alarmed=drift.alarmed,
        drift_reasons=drift.reasons,
        drift_began=drift.began,
        statistics=drift.statistics,
        report=report.relative_to(workspace.root).as_posix(),
    )
    write_questions(night.night, asked, scored, shown, detector.bands, version, workspace)
    flag_files = write_flags(report.parent, together, _grids(known, workspace), settings.report.geopackage)
    files = [report, *flag_files.all]
    files += write_drift_history([*past, record], drift.limits, report.parent / "drift.png")
    entry = pending.Entry(night_log(record, together, known, files, validation, settings, workspace))
    pending.keep(entry, workspace)
    return pending.finish(entry, settings, workspace)


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

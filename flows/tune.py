"""Tune: search for settings of the network that find more injected anomalies, and write the best as a preset."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from prefect import flow

from configs import Settings, SettingsError, Workspace
from configs.workspace import write_text
from flows.ingest import ingest_new
from flows.parameters import TuneRequest, Watch
from flows.progress import console, progress
from flows.train import check_scenes, compare_with_past, last_date
from tasks import steps, tracking
from tasks.artifacts import table_artifact
from tasks.dataset import Split
from tasks.disk import told
from tasks.exclusive import exclusive
from tasks.train import LearningTiles, data_fingerprint, learning_tiles, trainable_scenes
from tasks.tune import CRITERION, Look, bench_settings, judging_scores, look, preset, trial_settings, tuning_split
from vae.errors import CalibrationError, VaeError
from vae.networks import VAE
from vae.training import EpochMetrics

if TYPE_CHECKING:  # it needs an extra that a watch need not have
    from tasks.study import Study, Trial

log = logging.getLogger(__name__)

PRESET = "tuned.yaml"
DATABASE = "tuning.db"


class GivenUp(Exception):
    """A trial that found too little after a short training."""


@dataclass(frozen=True)
class TuneSummary:
    """What a search gave. Values are mean average precisions, 0 to 1."""

    study: str
    run_id: str
    selected_by: str
    judged_by: list[str]
    judging_dates: str
    trials: int
    given_up: int
    failed: int
    value: float | None
    value_as_configured: float | None
    best: dict[str, Any]
    importance: dict[str, float]
    preset: str | None


@flow(name="tune", flow_run_name="tune", persist_result=False)
def tune(watch: Watch, request: TuneRequest | None = None) -> TuneSummary:
    """Try settings of the network, and write those that find most injected anomalies as `models/tuned.yaml`.

    Started again with the same settings and scenes, the search goes on. Nothing is registered: `train` with the preset
    makes a champion.

    Args:
        watch: Configuration and workspace.
        request: How long to search.
    """
    settings, workspace = watch.open()
    settings = (request or TuneRequest()).apply(settings)
    studies, bench = _studies(), bench_settings(settings)
    steps.limit_threads(settings)
    with told(workspace), exclusive(workspace, "tune"):
        return _tune(settings, studies, bench, workspace)


def _tune(settings: Settings, studies: ModuleType, bench: Settings, workspace: Workspace) -> TuneSummary:
    """The search itself, by the only one in the workspace who is at it: what is being tried is nobody else's."""
    tracking.end_killed(settings, workspace, "tune")
    ingest_new(settings, workspace, last_date(settings))
    check_scenes(settings, workspace)
    compare_with_past(bench, workspace)
    split = tuning_split(bench, trainable_scenes(bench, workspace))
    about = {"judged_by": ", ".join(judging_scores(settings)), "judging_dates": _dates(split), "selected_by": CRITERION}
    console.print(
        f"trials are judged by {about['judged_by']}, on {about['judging_dates']}: {CRITERION}", soft_wrap=True
    )
    name = studies.study_name(settings, data_fingerprint(split))
    study = studies.Study(workspace.models / DATABASE, name, settings.tune, settings.seed)
    study.begin_with(settings)
    with _run_of(study, about, settings, workspace) as run_id:
        stopped = _search(study, settings, split, workspace)
        _keep_best(study, settings, workspace)
        summary = _summary(study, run_id, about, studies, workspace)
    if stopped:
        best = f"{summary.value:.3f}, in {summary.preset}" if summary.preset else "none was finished"
        console.print(f"stopped after {summary.trials} trials; the best: {best}", soft_wrap=True)
        raise KeyboardInterrupt
    rows = [{"what": key, "value": str(value)} for key, value in asdict(summary).items()]
    table_artifact("tuning", rows, f"Search {summary.study}")
    return summary


def _studies() -> ModuleType:
    """The module that needs Optuna.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        from tasks import study
    except ImportError as error:
        raise SettingsError(f"tune: {error}. Install it with pip install 'tilewatch[tune]'") from None
    return study


def _dates(split: Split) -> str:
    """Which dates judge, in words."""
    count = len({record.day for record in split.calibration_scenes})
    if split.basis == "held_out":
        return f"{count} training dates that no trial learns from"
    return f"the {count} validation dates, which stop the training of each trial as well"


@contextmanager
def _run_of(study: Study, about: dict[str, str], settings: Settings, workspace: Workspace) -> Iterator[str]:
    """The MLflow run of a search: the one that was begun, if it is still there."""
    tracking.connect(settings, workspace)
    known, client = study.run_id, mlflow.MlflowClient()
    if known is not None:
        try:
            found = client.get_run(known).info
            known = known if found.lifecycle_stage == "active" else None
        except MlflowException:
            known = None
    with tracking.run(settings, workspace, "tune", study.name, about, run_id=known) as run:
        run_id = str(run.info.run_id)
        study.run_id = run_id
        if known is not None:
            query = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
            for left in client.search_runs([run.info.experiment_id], query):
                client.set_terminated(left.info.run_id, "KILLED")
        yield run_id


def _search(study: Study, settings: Settings, split: Split, workspace: Workspace) -> bool:
    """Do trials until there are enough, or the time is up.

    Returns:
        Whether it was stopped by Ctrl-C.
    """
    begun, wanted, timeout = time.monotonic(), settings.tune.trials, settings.tune.timeout
    bench = bench_settings(settings)
    if study.done >= wanted:
        return False
    try:
        with learning_tiles(split, bench, workspace) as tiles, progress("tune", wanted) as counter:
            while study.done < wanted and (timeout is None or time.monotonic() - begun < timeout):
                _do(study, study.ask(), bench, tiles, split, workspace)
                _keep_best(study, settings, workspace)
                counter.at(study.done, wanted, f"best {study.best.value:.3f}" if study.best else "")
    except KeyboardInterrupt:
        study.stop()
        return True
    return False


def _do(study: Study, trial: Trial, bench: Settings, tiles: LearningTiles, split: Split, workspace: Workspace) -> None:
    """One trial, in a run of its own below that of the search."""
    with tracking.part_of_run("trial", f"trial {trial.number}", {"trial": str(trial.number)}):
        mlflow.log_params(trial.params)
        try:
            value = _value(trial, bench, tiles, split, workspace)
        except CalibrationError as error:  # it is the dates that do not suffice, not the trial
            study.fail(trial, str(error))
            raise
        except (GivenUp, SettingsError, VaeError) as error:
            mlflow.set_tag("pruned", str(error))
            study.prune(trial, str(error))
        except Exception as error:
            study.fail(trial, f"{type(error).__name__}: {error}")
            raise
        else:
            study.finish(trial, value)


def _value(trial: Trial, bench: Settings, tiles: LearningTiles, split: Split, workspace: Workspace) -> float:
    """What a trial finds, trained to the end.

    Raises:
        GivenUp: After a short training it found less than the median of the others.
        SettingsError: Its settings make no sense together.
        Diverged: The loss became infinite or NaN.
    """
    settings, tune = trial_settings(bench, trial.params), bench.tune
    if tune.short_epochs:
        first = look(settings, tune.short_epochs, tiles, split, workspace)
        _log_look(first, tune.short_epochs)
        trial.report(first.value, tune.short_epochs)
        if trial.should_prune():
            raise GivenUp(
                f"after {tune.short_epochs} epochs it found {first.value:.3f}, less than the median before it"
            )
    found = look(settings, tune.epochs, tiles, split, workspace, _log_epoch)
    _log_look(found, tune.epochs)
    if found.elbo is not None:
        trial.set_user_attr("elbo", found.elbo)
    return found.value


def _log_epoch(metrics: EpochMetrics, network: VAE) -> None:
    numbers = {"elbo_train": metrics.elbo_train, "elbo_held_out": metrics.elbo_held_out}
    mlflow.log_metrics({name: value for name, value in numbers.items() if value is not None}, step=metrics.epoch)


def _log_look(found: Look, epochs: int) -> None:
    numbers = {"injected_ap": found.value}
    for name, table in found.tables.items():
        numbers |= {f"ap/{name}/{row.kind}": float(row.ap) for row in table.itertuples()}
        mlflow.log_table(table, f"injected-{name}-{epochs}.json")
    tracking.log_finite(numbers, step=epochs)


def _keep_best(study: Study, settings: Settings, workspace: Workspace) -> None:
    """Write the best settings there are, if any trial was finished."""
    best = study.best
    if best is not None:
        words = (
            f"Found by tilewatch tune in {study.done} trials ({study.name}, trial {best.number}): {best.value:.3f}",
            f"by {CRITERION}.",
            "Use it with --config, or give the same to your own configuration:",
        )
        write_text(workspace.models / PRESET, preset(settings, best.params, words))


def _summary(
    study: Study, run_id: str, about: dict[str, str], studies: ModuleType, workspace: Workspace
) -> TuneSummary:
    """The search in numbers; table and figures go to the active run."""
    table, importance, best = study.table(), study.importance(), study.best
    mlflow.log_text(table.to_csv(index=False), "trials.csv")  # a table of MLflow's would be appended to
    mlflow.log_figure(studies.history_figure(table), "figures/history.png")
    if importance:
        mlflow.log_figure(studies.importance_figure(importance), "figures/importance.png")
    if best is not None:
        mlflow.log_artifact(str(workspace.models / PRESET))
        mlflow.log_metrics({"best_injected_ap": best.values[0]}, step=study.done)
    states = table["state"].value_counts()
    return TuneSummary(
        study=study.name,
        run_id=run_id,
        selected_by=CRITERION,
        judged_by=about["judged_by"].split(", "),
        judging_dates=about["judging_dates"],
        trials=study.done,
        given_up=int(states.get("pruned", 0)),
        failed=int(states.get("fail", 0)),
        value=None if best is None else best.value,
        value_as_configured=study.as_configured,
        best={} if best is None else dict(best.params),
        importance={name: round(share, 3) for name, share in importance.items()},
        preset=None if best is None else str(workspace.models / PRESET),
    )

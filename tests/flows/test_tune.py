"""`tilewatch tune`: runs below a run, a preset that can be used, and a search that survives being ended in any way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
import yaml
from mlflow.entities import Run

from configs import SettingsError, Workspace, load_settings
from flows.parameters import TuneRequest, Watch
from flows.tune import TuneSummary, tune
from tasks import tracking
from tests.commands import DONE, ROOT, WRONG, in_words, result, run_tilewatch

TUNE = {
    "trials": 3,
    "epochs": 2,
    "short_epochs": 1,
    "startup": 1,
    "space": {"model": {"latent_channels": [2, 4]}, "train": {"beta": {"low": 0.5, "high": 2}}},
}


def changed(watch: Watch, **values: Any) -> Watch:
    """The watch with other settings of tuning."""
    tuning = {f"tune.{key}": value for key, value in (TUNE | values).items()}
    return watch.model_copy(update={"overrides": [f"{key}={json.dumps(value)}" for key, value in tuning.items()]})


def runs(watch: Watch, kind: str) -> list[Run]:
    """The MLflow runs of a kind in the workspace, the oldest first."""
    settings, workspace = watch.open()
    experiment = tracking.connect(settings, workspace)
    found = mlflow.MlflowClient().search_runs([experiment], f"tags.`tilewatch.kind` = '{kind}'")
    return sorted(found, key=lambda run: run.info.start_time)


def artifacts(run: Run) -> set[str]:
    client = mlflow.MlflowClient()
    return {found.path for folder in ("", "figures") for found in client.list_artifacts(run.info.run_id, folder)}


def table(run: Run) -> pd.DataFrame:
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/trials.csv")
    return pd.read_csv(StringIO(text), keep_default_na=True).fillna({"reason": ""})


# What is wrong is said before any work.


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("tune.space.model.widht=[8]", "there is no setting model.widht: did you mean model.width?"),
        ("tune.space.model.width=[8, 2]", "model.width cannot be 2: Input should be greater than or equal to 4"),
        ("tune.space.train.beta={low: 2, high: 1}", "low = 2 is not below high = 1"),
        ("tune.space.train.objective={low: 0, high: 1}", "train.objective is no number"),
        ("tune.space.train.epochs=[3]", "tune.epochs says how long a trial trains"),
        ("tune.space.model.width=8", "give a list of values, or a range"),
        ("tune.short_epochs=12", "tune.short_epochs = 12 is not below tune.epochs = 12"),
        ("tune.trails=3", "unknown setting tune.trails: did you mean tune.trials?"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_words(setting: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, [setting], {})
    assert told in str(refused.value)


@pytest.mark.slow
def test_wrong_usage_is_said_by_the_command_before_anything_is_written(tmp_path: Path) -> None:
    ran = run_tilewatch(tmp_path, tmp_path / "prefect", "tune", "--set", "tune.space.model.widht=[8]", "--json")
    assert ran.returncode == WRONG
    assert "did you mean model.width?" in result(ran)["error"]
    assert list(tmp_path.iterdir()) == []

    zero = run_tilewatch(tmp_path, tmp_path / "prefect", "tune", "--trials", "0")
    assert zero.returncode == WRONG
    assert "trials" in zero.stderr
    assert in_words(zero)


@pytest.mark.slow
def test_without_a_network_or_without_optuna_there_is_no_search(
    fresh_watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = changed(fresh_watch).model_copy(update={"overrides": ["model.members=0", "score.without_past=rx"]})
    with pytest.raises(SettingsError, match="no network to tune"):
        tune(none)

    import tasks

    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "tasks.study", raising=False)
    monkeypatch.delattr(tasks, "study", raising=False)
    with pytest.raises(SettingsError, match=r"optuna.*pip install 'tilewatch\[tune\]'"):
        tune(changed(fresh_watch))
    assert not (Path(fresh_watch.workspace) / "models" / "tuning.db").exists()


# The search


@pytest.mark.slow
def test_a_search_leaves_runs_figures_and_a_preset_and_goes_on_when_more_is_asked_for(fresh_watch: Watch) -> None:
    watch = changed(fresh_watch, space={**TUNE["space"], "model": {"latent_channels": [2, 4], "depth": [2, 5]}})

    found = tune(watch, TuneRequest(trials=4))

    assert found.trials == 4
    assert "not the ELBO" in found.selected_by
    assert found.judged_by == ["novelty"]
    assert found.judging_dates == "3 training dates that no trial learns from"
    assert found.value is not None
    assert found.value_as_configured is not None
    assert found.value >= found.value_as_configured

    (parent,) = runs(watch, "tune")
    children = runs(watch, "trial")
    assert found.run_id == parent.info.run_id
    assert parent.data.tags["selected_by"] == found.selected_by
    assert {"trials.csv", "tuned.yaml", "settings.json", "figures/history.png"} <= artifacts(parent)
    assert [run.data.tags["trial"] for run in children] == ["0", "1", "2", "3"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}

    # What was finished has a value, and what was not says why.
    trials = table(parent)
    finished = trials[trials["state"] == "finished"]
    assert found.value == finished["value"].max()
    for number, run in enumerate(children):
        trial = trials.iloc[number]
        assert run.data.params["model.depth"] == str(trial["model.depth"])
        if trial["model.depth"] == 5:
            assert trial["state"] == "pruned"
            assert "cannot be halved model.depth = 5 times" in trial["reason"]
            assert "cannot be halved" in run.data.tags["pruned"]
        elif trial["state"] == "finished":
            assert run.data.metrics["injected_ap"] == pytest.approx(trial["value"])
            assert run.data.metrics["ap/novelty/flood"] == pytest.approx(trial["value"])
            assert "elbo_held_out" in run.data.metrics
    assert {2, 5} == set(trials["model.depth"])

    # The preset is the watch with the best settings.
    settings, workspace = watch.open()
    preset = load_settings(workspace.models / "tuned.yaml", environment={})
    assert preset.model.latent_channels == found.best["model.latent_channels"]
    assert preset.train.beta == found.best["train.beta"]
    assert preset.train.epochs == settings.train.epochs
    assert preset.source == settings.source

    # Again: nothing is left to do. With more trials it goes on, in the same run.
    same = tune(watch, TuneRequest(trials=4))
    assert same == found
    more = tune(watch, TuneRequest(trials=5))
    assert (more.trials, more.run_id, more.study) == (5, found.run_id, found.study)
    assert [run.data.tags["trial"] for run in runs(watch, "trial")] == ["0", "1", "2", "3", "4"]
    assert table(parent)[:4].equals(trials)

    # Other settings are another search.
    other = tune(changed(watch, startup=2), TuneRequest(trials=1))
    assert (other.trials, other.study != found.study) == (1, True)


@pytest.mark.slow
def test_no_trial_is_begun_when_the_time_is_up(fresh_watch: Watch) -> None:
    found = tune(changed(fresh_watch), TuneRequest(timeout=0.001))

    assert (found.trials, found.value, found.best, found.preset) == (0, None, {}, None)
    assert not (Path(fresh_watch.workspace) / "models" / "tuned.yaml").exists()


@pytest.mark.slow
@pytest.mark.servers
def test_a_search_that_was_killed_and_one_that_was_stopped_come_to_the_same_as_an_undisturbed_one(
    fresh_watch: Watch, tmp_path: Path, prefect_server: str
) -> None:
    folder = tmp_path / "disturbed"  # the other one lies in tmp_path
    folder.mkdir()
    (folder / "watch.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(Path(str(fresh_watch.config)).read_text()) | {"tune": TUNE | {"trials": 4}})
    )
    settings = load_settings(fresh_watch.config)
    arguments = ("-c", "watch.yaml", "--set", f"source.root={settings.source.root}", "--json")
    workspace = Workspace(shutil.copytree(fresh_watch.workspace, folder / "workspace"))  # nothing is ingested again

    # Killed in a trial after the first one, then stopped by Ctrl-C in the next one.
    killed = started(folder, prefect_server, "tune", *arguments)
    ended(killed, lambda: trials_in(workspace) >= 2, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    stopped = started(folder, prefect_server, "tune", *arguments)
    ended(stopped, lambda: trials_in(workspace) >= 4, signal.SIGINT)
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped after 2 trials; the best:" in (folder / "stderr.txt").read_text()
    assert (workspace.models / "tuned.yaml").is_file()
    last = run_tilewatch(folder, prefect_server, "tune", *arguments)
    assert last.returncode == DONE, last.stderr

    summary = result(last)
    watch = Watch(config=str(folder / "watch.yaml"), workspace=str(workspace.root))
    (parent,) = runs(watch, "tune")
    disturbed = table(parent)
    assert summary["trials"] == 4
    assert summary["failed"] == 2
    failed = disturbed[disturbed["state"] == "fail"]
    assert failed["reason"].tolist() == ["its process ended", "stopped by Ctrl-C"]
    assert {run.info.status for run in runs(watch, "trial")} == {"FINISHED", "FAILED", "KILLED"}

    undisturbed: TuneSummary = tune(changed(fresh_watch, trials=4))
    (alone,) = runs(changed(fresh_watch, trials=4), "tune")
    columns = ["state", "value", "after_short_epochs", "model.latent_channels", "train.beta"]
    left = disturbed[disturbed["state"] != "fail"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, table(alone)[columns])
    assert summary["best"] == undisturbed.best
    assert summary["value"] == undisturbed.value


def trials_in(workspace: Workspace) -> int:
    """How many trials a search was begun for; 0 while there is no file."""
    path = workspace.models / "tuning.db"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return int(database.execute("select count(*) from trials where state != 'WAITING'").fetchone()[0])
    except sqlite3.OperationalError:  # its tables are being made
        return 0


def started(folder: Path, prefect_server: str, *arguments: str) -> psutil.Popen:
    """The command in a group of its own, as of a terminal, with its own words in `stderr.txt`."""
    usual = {"PYTHONPATH": str(ROOT), "PREFECT_API_URL": prefect_server, "OMP_NUM_THREADS": "1"}
    with (folder / "stderr.txt").open("w") as errors:
        return psutil.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=folder, env=os.environ | usual, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def ended(process: psutil.Popen, when: Callable[[], bool], how: signal.Signals) -> None:
    """End a process at some moment, with what it started."""
    end = time.monotonic() + 300
    try:
        while not when():
            assert process.poll() is None, f"it ended by itself with {process.returncode}"
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.3)  # into the training
    finally:
        children = process.children(recursive=True) if process.is_running() else []
        if how == signal.SIGINT and process.is_running():
            os.killpg(process.pid, how)  # as a terminal does
        elif process.is_running():
            process.kill()
        process.wait(120)
        for child in children:
            if child.is_running():
                child.kill()

"""Killed runs, two runs at once, an MLflow that is away, a disk that is full: the next run makes up for all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks.sameness import differences, kept, tracked
from flows.nightly import NightlySummary, nightly, nothing_to_do
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.train import train
from tasks import registry, tracking
from tasks.disk import WorkspaceUnusable
from tasks.exclusive import exclusive
from tasks.nights import read_night
from tests.flows.conftest import DATES
from tests.servers import _process, free_port

NIGHTS = DATES[28:30]


class Killed(BaseException):
    """Stands for a kill -9: nothing that tidies up after errors sees it."""


@pytest.fixture
def uri(fresh_watch: Watch) -> str:
    return str(fresh_watch.open()[1].mlflow_uri)


def ask(watch: Watch, **values: Any) -> NightlySummary:
    return nightly(watch, NightRequest(since=NIGHTS[0], until=NIGHTS[-1], **values))


def nights_of(uri: str) -> dict[str, Any]:
    """What MLflow holds of nights; the training is not what is looked at."""
    return {name: content for name, content in tracked(uri, "meadow").items() if not name.startswith("train")}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("tasks.tracked_night", "_log_step"),
        ("tasks.tracking", "log_finite"),
        ("tasks.pending", "log_night"),
        ("tasks.pending", "night_artifacts"),
        ("tasks.pending", "write_night"),
        ("imagery.outputs.flags", "write_outline_style"),
        ("tasks.score", "write_profile"),
    ],
)
def test_wherever_a_run_is_cut_off_the_next_one_makes_everything_as_if_it_had_not_been(
    fresh_watch: Watch, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    calm = calm_watch(fresh_watch, tmp_path)
    ask(calm)
    workspace = Path(fresh_watch.workspace)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}", killed)
        with pytest.raises(Killed):
            ask(fresh_watch)
    assert read_night(fresh_watch.open()[1], NIGHTS[0]) is None

    ask(fresh_watch)

    assert differences(kept(Path(calm.workspace)), kept(workspace)) == []
    assert differences(nights_of(calm.open()[1].mlflow_uri), nights_of(uri)) == []


def test_a_night_that_is_reported_again_is_due_until_that_is_done_and_has_one_step_afterwards(
    fresh_watch: Watch, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, workspace = fresh_watch.open()
    ask(fresh_watch)
    before = nights_of(uri)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("flows.nightly.write_report", killed)
        with pytest.raises(Killed):
            ask(fresh_watch, force=True)
    assert nothing_to_do(settings, workspace, NightRequest()) is None

    ask(fresh_watch)

    assert read_night(workspace, NIGHTS[0]) is not None
    assert differences(before, nights_of(uri)) == []


def test_a_step_of_a_history_that_changes_takes_the_place_of_the_earlier_one(fresh_watch: Watch, uri: str) -> None:
    ask(fresh_watch)
    refused = fresh_watch.model_copy(update={"overrides": ["validation.max_value=0.0001"]})

    ask(refused, force=True)

    found = nights_of(uri)
    assert found["history of v1"] == "FINISHED"
    assert not [name for name in found if "again" in name]
    steps = [step for step, _ in found["history of v1: quarantined"]]
    assert steps == [tracking.night_step(night) for night in NIGHTS]
    assert [value for _, value in found["history of v1: quarantined"]] == [1.0, 1.0]


def test_two_nightly_runs_at_once_report_each_night_once(fresh_watch: Watch, tmp_path: Path, uri: str) -> None:
    calm = calm_watch(fresh_watch, tmp_path)
    ask(calm)
    done: list[NightlySummary] = []
    threads = [Thread(target=lambda: done.append(ask(fresh_watch))) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(len(one.nights) for one in done) == [0, len(NIGHTS)]
    assert differences(kept(Path(calm.workspace)), kept(Path(fresh_watch.workspace))) == []
    assert differences(nights_of(calm.open()[1].mlflow_uri), nights_of(uri)) == []


def test_a_training_and_a_nightly_run_at_once_both_succeed(fresh_watch: Watch, uri: str) -> None:
    done: list[Any] = []
    request = TrainRequest(reason="beside", epochs=2)
    threads = [
        Thread(target=lambda: done.append(train(fresh_watch, request))),
        Thread(target=lambda: done.append(ask(fresh_watch))),
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 2
    records = [read_night(fresh_watch.open()[1], night) for night in NIGHTS]
    assert len({record.detector_version for record in records if record}) == 1


def test_runs_of_a_killed_training_are_closed_and_its_latents_swept_by_the_next(fresh_watch: Watch) -> None:
    settings, workspace = fresh_watch.open()
    with tracking.run(settings, workspace, "train", "train", {}) as left:
        pass
    tracking.mlflow.MlflowClient().update_run(left.info.run_id, "RUNNING")
    (workspace.latents / f"staging-{left.info.run_id}" / "meadow").mkdir(parents=True)

    train(fresh_watch, TrainRequest(epochs=1))

    assert tracking.mlflow.MlflowClient().get_run(left.info.run_id).info.status == "KILLED"
    assert list(workspace.latents.glob("staging-*")) == []


@contextmanager
def mlflow_server(watch: Watch, folder: Path, port: int) -> Iterator[None]:
    """A server in front of the database of a watch."""
    workspace = watch.open()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", workspace.mlflow_uri, "--artifacts-destination", str(folder / "artifacts")]
    with _process(folder / "mlflow.log", command, port):
        yield


@pytest.mark.servers
def test_while_mlflow_is_away_nights_are_scored_and_reported_and_logged_when_it_is_back(
    fresh_watch: Watch, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    calm = calm_watch(fresh_watch, tmp_path)
    ask(calm)
    port = free_port()
    remote = fresh_watch.model_copy(update={"overrides": [f"tracking.uri=http://127.0.0.1:{port}"]})
    settings, workspace = remote.open()
    with mlflow_server(remote, tmp_path, port):
        known = registry.champion(settings, workspace)

    away = ask(remote)

    assert [record.night for record in away.nights] == list(NIGHTS)
    assert away.not_in_mlflow == list(NIGHTS)
    assert away.detector_version == known[1] == "v1"
    assert all((workspace.root / record.report).exists() for record in away.nights)
    assert any("goes on as the last known champion" in line for line in caplog.messages)
    assert any("is not in MLflow" in line and str(workspace.pending) in line for line in caplog.messages)
    with pytest.raises(tracking.TrackingUnreachable, match=rf"127.0.0.1:{port} does not answer: start it"):
        train(remote, TrainRequest())

    with mlflow_server(remote, tmp_path, port):
        back = ask(remote)

    assert back.nights == []
    assert back.not_in_mlflow == []
    assert differences(kept(Path(calm.workspace)), kept(workspace.root)) == []
    assert differences(nights_of(calm.open()[1].mlflow_uri), nights_of(uri)) == []


@pytest.mark.servers
def test_without_mlflow_and_without_a_known_champion_it_is_said_what_to_do(fresh_watch: Watch) -> None:
    watch = fresh_watch.model_copy(update={"overrides": ["tracking.uri=http://127.0.0.1:9", "name=other"]})

    with pytest.raises(
        tracking.TrackingUnreachable, match=r"MLflow at http://127\.0\.0\.1:9 does not answer: start it"
    ):
        ask(watch)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A small file system of its own; gives a function that mounts it again with other options."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here: it needs root")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True) and None
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def on_small_disk(watch: Watch, folder: Path) -> Watch:
    """The watch with its workspace on another file system."""
    subprocess.run(["cp", "-a", f"{watch.workspace}/.", str(folder)], check=True)
    return watch.model_copy(update={"workspace": str(folder)})


@pytest.mark.parametrize("room", [8, 200])
def test_a_disk_that_fills_up_ends_the_run_in_words_and_with_room_the_next_one_finishes(
    fresh_watch: Watch, tmp_path: Path, room: int
) -> None:
    """Of so many KiB that are free. GDAL does not say that a raster was cut short when its last bytes did not fit."""
    calm = calm_watch(fresh_watch, tmp_path)
    ask(calm)
    with mounted(tmp_path / "small", "300m") as remount:
        watch = on_small_disk(fresh_watch, tmp_path / "small")
        used = os.statvfs(watch.workspace)
        taken = (used.f_blocks - used.f_bfree) * used.f_frsize // 1024
        remount(f"size={taken + room}k")

        with pytest.raises(WorkspaceUnusable, match=r"is full, 0 MB are free: make room, and run this again"):
            ask(watch)
        remount("size=300m")
        assert list(Path(watch.workspace, "quarantine").rglob("*.json")) == []
        ask(watch)

        assert differences(kept(Path(calm.workspace)), kept(Path(watch.workspace))) == []
        uris = [str(one.open()[1].mlflow_uri) for one in (calm, watch)]
        assert differences(*map(nights_of, uris)) == []


def test_a_read_only_workspace_is_said_in_words(fresh_watch: Watch, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "300m") as remount:
        watch = on_small_disk(fresh_watch, tmp_path / "small")
        remount("ro")

        with pytest.raises(WorkspaceUnusable, match=r"cannot be written: it is mounted read-only"):
            ask(watch)

        command = [Path(sys.executable).parent / "tilewatch", "nightly", "-w", watch.workspace, "--json"]
        done = subprocess.run([*command, "-c", str(watch.config)], capture_output=True, text=True, timeout=120)
        remount("rw")
    assert done.returncode == 1
    assert "it is mounted read-only" in json.loads(done.stdout.splitlines()[-1])["error"]


def calm_watch(watch: Watch, folder: Path) -> Watch:
    """The same watch in another folder, for a run that nobody disturbs."""
    subprocess.run(["cp", "-a", watch.workspace, str(folder / "calm")], check=True)
    return watch.model_copy(update={"workspace": str(folder / "calm")})


def test_missed_nights_are_caught_up_oldest_first_within_the_dates_asked_for(fresh_watch: Watch) -> None:
    def reported(**asked: Any) -> list[date]:
        return [record.night for record in nightly(fresh_watch, NightRequest(**asked)).nights]

    assert reported(until=DATES[29]) == [DATES[28], DATES[29]]
    assert reported(since=DATES[27], until=DATES[30]) == [DATES[27], DATES[30]]
    assert reported(until=DATES[30]) == []
    assert reported(since=DATES[28], until=DATES[29], force=True) == [DATES[28], DATES[29]]
    assert reported(night=DATES[29], force=True) == [DATES[29]]


def test_a_run_that_waits_for_another_does_not_hold_the_locks_of_trainings(fresh_watch: Watch) -> None:
    _, workspace = fresh_watch.open()
    with exclusive(workspace, "nightly"):
        train(fresh_watch, TrainRequest(epochs=1))

    assert registry.registered(*fresh_watch.open(), "v2")[1] == "v2"

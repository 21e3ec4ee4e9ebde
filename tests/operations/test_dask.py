"""Scenes on a Dask cluster of separate processes: the same bytes as here, whatever becomes of a worker."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401 (its settings are those that a test changes)
import psutil
import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from configs import Settings, SettingsError, Workspace
from configs.schema import ComputeSettings
from imagery.catalog import Catalog
from imagery.simulate import Location, Plan, simulate
from tasks import engines, steps
from tasks.calibrate import calibrate_detector
from tasks.train import train_detector
from tests.places import ingested
from tests.servers import free_port

pytestmark = pytest.mark.servers

REPOSITORY = Path(__file__).parents[2]
DATES = tuple(date(2024, 3, 1) + timedelta(days=5 * number) for number in range(50))
PLACES = ("meadow", "marsh")
SETTINGS = {
    "name": "fields",
    "source": {"bands": ["B02", "B03", "B04", "B08"]},
    "masks": {"class_band": "SCL"},
    "grid": {"tile_size": 16},
    "reference": {"scenes": 3},
    "split": {"train": {"end": DATES[9]}, "calibrate": {"start": DATES[10], "end": DATES[24]}},
    "model": {"depth": 2, "width": 8, "latent_channels": 4},
    "train": {"epochs": 2},
    "calibration": {"min_tiles": 20, "false_alarm_rate": 0.05},
    "compute": {"threads": 1, "batch": 5},
}


@dataclass(frozen=True)
class Scored:
    """A workspace in which everything is ready to be scored."""

    settings: Settings
    workspace: Workspace
    detector: Path

    def copied(self, folder: Path, **compute: Any) -> Scored:
        """The same in a folder of its own, computed elsewhere."""
        shutil.copytree(self.workspace.root, folder)
        changed = self.settings.compute.model_copy(update=compute)
        return replace(
            self, settings=self.settings.model_copy(update={"compute": changed}), workspace=Workspace(folder)
        )


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """A hundred scenes of two places in the catalog, and a detector."""
    folder = tmp_path_factory.mktemp("watch")
    places = tuple(
        Location(name, "river", 32634, west=463_200 + 5_000 * number, north=5_218_600, size=32)
        for number, name in enumerate(PLACES)
    )
    simulate(folder / "scenes", Plan(5, places, DATES, DATES[9], DATES[24]))
    values = SETTINGS | {"source": SETTINGS["source"] | {"root": str(folder / "scenes")}}
    settings, workspace = Settings.model_validate(values), Workspace(folder / "workspace")
    ingested(settings, workspace)
    trained = train_detector(settings, workspace)
    calibrate_detector(trained.detector, trained.split, settings, workspace).detector.save(folder / "detector")
    return Scored(settings, workspace, folder / "detector")


@pytest.fixture(scope="module")
def prefect_database() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@dataclass(frozen=True)
class Cluster:
    """A scheduler and two workers, each a process of its own."""

    address: str
    workers: list[psutil.Popen]
    log: Path


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, prefect_database: None) -> Iterator[Cluster]:
    with _cluster(tmp_path_factory.mktemp("cluster"), 2) as cluster:
        yield cluster
        engines.leave()


@contextmanager
def _cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    address, started = f"tcp://127.0.0.1:{free_port()}", []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(folder / "prefect")}
    log = folder / "dask.log"

    def start(program: str, *arguments: str) -> psutil.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *arguments, "--no-dashboard"]
        with log.open("a") as file:
            started.append(
                psutil.Popen(
                    command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
                )
            )
        return started[-1]

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
        place = ["--no-nanny", "--host", "127.0.0.1", "--local-directory", str(folder), "--death-timeout", "120"]
        names = [f"worker-{number}" for number in range(workers)]
        yield Cluster(
            address, [start("worker", address, "--nthreads", "1", "--name", name, *place) for name in names], log
        )
    finally:
        for one in reversed(started):
            if one.is_running():  # a test may have killed it
                one.terminate()
        for one in psutil.wait_procs(started, timeout=15)[1]:
            one.kill()


def digests(root: Path) -> dict[str, str]:
    """Of all that scoring leaves in a workspace, but for hidden files that a killed worker was writing."""
    paths = (path for folder in ("scores", "latents", "reference") for path in (root / folder).rglob("*.*"))
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file() and not path.name.startswith(".")
    }


@flow(persist_result=False)
def score_everything(ready: Scored, on_done: Callable[[Any], None] | None = None) -> list[Any]:
    """All scenes of the catalog, as a night scores its own."""
    settings, workspace = ready.settings, ready.workspace
    records = Catalog(workspace).scenes()
    common = {"settings": settings, "workspace": workspace}
    compared = [{"record": one, **common} for one in records[-10:]]  # the others are scored without their past
    found = steps.for_each(steps.compare_scene, compared, settings, lambda one, failure: None)
    usual = [*[None] * (len(records) - len(found)), *found]
    scoring = common | {"detector": ready.detector, "detector_version": "v1"}
    parameters = [{"record": one, "usual": past, **scoring} for one, past in zip(records, usual, strict=True)]
    return steps.for_each(steps.score_scene, parameters, settings, lambda one, failure: f"{failure}", on_done)


# Workers import this module.
@task(persist_result=False)
def halve(number: int) -> int:
    if number == 3:
        raise RuntimeError("nobody foresaw this")
    if number < 0:
        raise OSError("the disk is full")
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number // 2


@flow(persist_result=False)
def all_of(numbers: list[int], compute: ComputeSettings) -> list[object]:
    parameters = [{"number": number} for number in numbers]
    settings = Settings(compute=compute)
    return steps.for_each(halve, parameters, settings, lambda one, failure: f"{one['number']}: {failure}")


def test_a_step_that_fails_for_one_scene_stops_no_other_on_a_cluster_either(two_workers: Cluster) -> None:
    compute = ComputeSettings(engine="dask", dask_address=two_workers.address, batch=2, retries=0)

    assert all_of([2, 3, 8, 10, 12], compute) == [1, "3: nobody foresaw this", 4, 5, 6]
    with pytest.raises(OSError, match="the disk is full"):
        all_of([2, -1, 8], compute)


@pytest.mark.slow
def test_a_cluster_of_its_own_is_on_this_machine_alone_loses_one_scene_that_kills_workers_and_leaves_no_process(
    prefect_database: None,
) -> None:
    before = set(psutil.Process().children(recursive=True))
    compute = ComputeSettings(engine="dask", workers=1, batch=2, retries=0)
    engines.leave()

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):  # else a batch is given up at the fourth death
        two, thirteen, eight = all_of([2, 13, 8], compute)

    started = set(psutil.Process().children(recursive=True)) - before
    listening = {
        one.laddr.ip
        for process in (psutil.Process(), *started)
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    engines.leave()
    assert (two, eight) == (1, 4)
    assert str(thirteen).startswith("13: its workers died of it")
    assert listening == {"127.0.0.1"}
    left = psutil.wait_procs(started, timeout=15)[1]
    # Python's own, which counts semaphores until this process ends.
    assert [one.cmdline() for one in left if "resource_tracker" not in " ".join(one.cmdline())] == []


def test_a_cluster_that_does_not_answer_is_named_within_seconds(prefect_database: None) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    began = time.monotonic()

    with pytest.raises(engines.ClusterError, match=f"compute.dask_address = '{address}': no scheduler"):
        all_of([2], ComputeSettings(engine="dask", dask_address=address))

    assert time.monotonic() - began < 40


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("prefect_dask", "prefect_dask.task_runners"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(SettingsError, match=r"pip install 'tilewatch\[cluster\]'"):
        engines.cluster(ComputeSettings(engine="dask"))


# The last one: it kills a worker.
@pytest.mark.slow
def test_a_hundred_scenes_give_the_same_bytes_as_here_although_a_worker_is_killed_half_way(
    ready: Scored, tmp_path: Path, two_workers: Cluster
) -> None:
    here = ready.copied(tmp_path / "here")
    there = ready.copied(tmp_path / "there", engine="dask", dask_address=two_workers.address)
    done: list[Any] = []

    def kill_half_way(result: Any) -> None:
        done.append(result)
        if len(done) == 40:
            two_workers.workers[0].send_signal(signal.SIGKILL)

    assert score_everything(here) == [None] * 100
    assert score_everything(there, kill_half_way) == [None] * 100

    assert two_workers.workers[0].wait(10) == -signal.SIGKILL
    assert two_workers.workers[1].is_running()
    expected = digests(here.workspace.root)
    assert sum(name.startswith("scores/") and name.endswith(".parquet") for name in expected) == 100
    assert digests(there.workspace.root) == expected

"""Nightly runs that are killed -9 at random moments and started again, beside one that nobody disturbed.

    python benchmarks/chaos.py [--kills 51] [--seed 0] [--out DIR] [--json]

A watch of one small place is trained once. Then an MLflow server, a Prefect server and a worker are started. Each trial
begins with a copy of the trained workspace and an MLflow experiment of its own, in which three nights are due. The run
is a deployment's, which the worker executes. At a moment drawn evenly from the time that an undisturbed run takes, one
of three is killed: the process of the run (`engine`), the worker with that process (`worker`), or the MLflow server
with all its processes (`mlflow`). What was killed is started again, the nightly deployment runs once more, and then
everything must be as without the kill: see `benchmarks/sameness.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.machine import machine, versions
from benchmarks.sameness import differences, kept, tracked
from configs import quiet
from imagery.simulate import Event, Location, Plan, simulate

quiet.apply()

VICTIMS = ("engine", "worker", "mlflow")
DATES = tuple(date(2025, 5, 1) + timedelta(days=5 * number) for number in range(17))
NIGHTS = 3
SETTINGS = {
    "name": "meadow",
    "source": {"root": "scenes", "bands": ["B02", "B03", "B04", "B08"]},
    "masks": {"class_band": "SCL"},
    "grid": {"tile_size": 16},
    "reference": {"scenes": 3},
    "split": {"train": {"end": DATES[9]}, "calibrate": {"start": DATES[10], "end": DATES[-NIGHTS - 1]}},
    "model": {"depth": 2, "width": 8, "latent_channels": 4},
    "train": {"epochs": 3},
    "calibration": {"min_tiles": 20, "false_alarm_rate": 0.05},
    "injections": {"enabled": False},
    "compute": {"threads": 1},
}
PREFECT_FILE = {
    "name": "chaos",
    "deployments": [
        {
            "name": "nightly",
            "entrypoint": "flows.nightly.nightly",
            "parameters": {"watch": {}, "request": {}},
            "work_pool": {"name": "chaos"},
        }
    ],
}
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE = 300.0  # seconds for any one thing to happen


@dataclass(frozen=True)
class Trial:
    """What became of a run that was killed.

    Attributes:
        number: From 1.
        killed: Who.
        at: Seconds after the run had begun, as drawn.
        doing: What was there of the nights at that moment.
        state: Of the run that was killed, as Prefect knows it when the next one begins.
        seconds: From its start to the end of the second run.
        different: What is not as without the kill; nothing is as it should be.
    """

    number: int
    killed: str
    at: float
    doing: str
    state: str
    seconds: float
    different: tuple[str, ...]


class Servers:
    """MLflow, Prefect and a worker on this machine, each a process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, {}  # type: ignore[var-annotated]
        self._ports = {name: _free_port() for name in ("mlflow", "prefect")}
        self.mlflow = f"http://127.0.0.1:{self._ports['mlflow']}"
        self._environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self._ports['prefect']}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        self.api = httpx.Client(base_url=self._environment["PREFECT_API_URL"], timeout=60)

    def start(self, name: str) -> None:
        """Start one, and wait until it answers."""
        port = str(self._ports.get(name))
        command = {
            "mlflow": [
                *("mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", port),
                *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(self._folder / "artifacts")),
            ],
            "prefect": ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
            "worker": ["prefect", "worker", "start", "--pool", "chaos", "--type", "process"],
        }[name]
        with (self._folder / f"{name}.log").open("a") as log:
            self._running[name] = psutil.Popen(
                [sys.executable, "-m", *command],
                cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        if name != "worker":
            path = f"{self.mlflow}/health" if name == "mlflow" else f"{self._environment['PREFECT_API_URL']}/health"
            _until(lambda: _answers(path), f"{name} answers")

    def kill(self, name: str) -> None:
        """Kill -9 one, with all the processes that it has started."""
        process = self._running.pop(name, None)
        if process is None:
            return
        family = [process]
        with suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)

    def kill_all(self) -> None:
        """Leave no process behind."""
        for name in ("worker", "prefect", "mlflow"):
            self.kill(name)
        self.api.close()

    def deploy(self) -> None:
        """Make the pool and register the nightly deployment."""
        (self._folder / "prefect.yaml").write_text(yaml.safe_dump(PREFECT_FILE))
        for command in (["work-pool", "create", "chaos", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
            subprocess.run(
                [sys.executable, "-m", "prefect", *command],
                cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, check=True,
            )  # fmt: skip

    def begin(self, watch: Mapping[str, Any]) -> str:
        """Start a nightly run; returns its id."""
        deployment = self.api.get("/deployments/name/nightly/nightly").raise_for_status().json()["id"]
        parameters = {"parameters": {"watch": watch, "request": {}}}
        made = self.api.post(f"/deployments/{deployment}/create_flow_run", json=parameters)
        return str(made.raise_for_status().json()["id"])

    def state(self, run: str) -> str:
        """Of a run, such as COMPLETED."""
        return str(self.api.get(f"/flow_runs/{run}").raise_for_status().json()["state"]["type"])

    def wait(self, run: str) -> None:
        """Until a run ends well.

        Raises:
            RuntimeError: It ended in another way.
        """
        state = _until(lambda: (found := self.state(run)) in ENDED and found, "the run ends")
        if state != "COMPLETED":
            told = self.api.get(f"/flow_runs/{run}").json()["state"]["message"]
            raise RuntimeError(f"a run that nobody killed is {state}: {told}")

    def train(self, config: Path, workspace: Path) -> None:
        """Make the champion."""
        command = ["tilewatch", "train", "-c", str(config), "-w", str(workspace)]
        subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:], "--set", f"tracking.uri={self.mlflow}"],
            env=self._environment, stdin=subprocess.DEVNULL, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


class Chaos:
    """A trained watch, of which each trial gets a copy."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        self._folder, self.servers = folder, servers
        self._config, self._trained = folder / "meadow.yaml", folder / "trained"
        meadow = Location("meadow", "river", 32634, west=463_200, north=5_218_600, size=64)
        flood = Event("flood", "meadow", DATES[-3], DATES[-2], radius=12)
        clear = tuple(("meadow", day) for day in DATES)
        simulate(folder / "scenes", Plan(3, (meadow,), DATES, DATES[9], DATES[-NIGHTS - 1], (flood,), (), clear))
        self._config.write_text(yaml.safe_dump(SETTINGS))
        servers.train(self._config, self._trained)

    def watch(self, name: str) -> tuple[dict[str, Any], Path]:
        """A workspace in which all nights are due, and the parameter that names it."""
        workspace = self._folder / name
        shutil.copytree(self._trained, workspace)
        overrides = [f"tracking.uri={self.servers.mlflow}", f"tracking.experiment={name}"]
        return {"config": str(self._config), "workspace": str(workspace), "overrides": overrides}, workspace

    def calm(self, name: str) -> tuple[float, dict[str, str], dict[str, Any]]:
        """A run that nobody disturbs: how long its flow took, what it left in the workspace and in MLflow."""
        watch, workspace = self.watch(name)
        run = self.servers.begin(watch)
        _until(lambda: _holder(workspace), "the run begins", 0.02)
        begun = time.monotonic()
        _until(lambda: not _holder(workspace), "the run ends", 0.005)
        taken = time.monotonic() - begun
        self.servers.wait(run)
        return taken, kept(workspace), tracked(self.servers.mlflow, name)

    def trial(self, number: int, victim: str, at: float, expected: tuple[dict[str, str], dict[str, Any]]) -> Trial:
        """A run that is killed at a moment, another one after it, and the comparison."""
        name, servers = f"trial-{number}", self.servers
        watch, workspace = self.watch(name)
        started = time.monotonic()
        run = servers.begin(watch)
        _until(lambda: _holder(workspace), "the run begins", 0.02)
        time.sleep(at)
        doing = _doing(workspace)
        if victim == "engine":
            with suppress(ProcessLookupError):
                os.kill(_holder(workspace) or _gone(), signal.SIGKILL)
        else:
            servers.kill(victim)
        if victim == "mlflow":
            servers.wait(run)  # a night goes on without it
        if victim != "engine":
            servers.start(victim)
        state = servers.state(run)
        servers.wait(servers.begin(watch))
        files, runs = kept(workspace), tracked(servers.mlflow, name)
        different = (*differences(expected[0], files), *differences(expected[1], runs))
        if not different:
            shutil.rmtree(workspace)
        return Trial(number, victim, round(at, 3), doing, state, round(time.monotonic() - started, 1), different)


def measure(folder: Path, kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the trials come to so far, after each of them."""
    with _servers(folder) as servers:
        chaos = Chaos(folder, servers)
        taken, *calm = chaos.calm("calm")
        again = chaos.calm("calm-again")
        undisturbed = [*differences(calm[0], again[1]), *differences(calm[1], again[2])]
        taken, draw, trials = (taken + again[0]) / 2, random.Random(seed), list[Trial]()
        for number in range(kills):
            at = (number // len(VICTIMS) + draw.random()) / -(-kills // len(VICTIMS)) * taken  # evenly, for each victim
            trials.append(chaos.trial(number + 1, VICTIMS[number % len(VICTIMS)], at, (calm[0], calm[1])))
            yield {
                "benchmark": "chaos",
                "machine": machine(),
                "versions": versions("mlflow", "prefect", "torch"),
                "nights": NIGHTS,
                "seed": seed,
                "undisturbed_seconds": round(taken, 2),
                "files_compared": len(calm[0]),
                "mlflow_entries_compared": len(calm[1]),
                "two_undisturbed_runs_differ_in": undisturbed,
                "kills": len(trials),
                "same": sum(not trial.different for trial in trials),
                "by_victim": dict(Counter(trial.killed for trial in trials)),
                "by_moment": dict(Counter(trial.doing for trial in trials)),
                "trials": [asdict(trial) for trial in trials],
            }


@contextmanager
def _servers(folder: Path) -> Iterator[Servers]:
    servers = Servers(folder)
    try:
        for name in ("mlflow", "prefect"):
            servers.start(name)
        servers.deploy()
        servers.start("worker")
        yield servers
    finally:
        servers.kill_all()


def _holder(workspace: Path) -> int | None:
    """Process of the run that is at work, as the lock tells."""
    with suppress(FileNotFoundError, ValueError):
        return int(json.loads((workspace / "locks" / "nightly.lock").read_text())["pid"])
    return None


def _gone() -> int:
    raise ProcessLookupError


def _doing(workspace: Path) -> str:
    """What there is of the nights."""
    finished = len(list(workspace.glob("reports/*/night.json")))
    scored = len(list(workspace.glob("scores/*/*/*_profile.json")))
    if finished == NIGHTS:
        return f"{NIGHTS} nights finished"
    if list(workspace.glob("pending/[!.]*.json")):
        return f"night {finished + 1} is told"
    if scored > finished:
        return f"night {finished + 1} is reported"
    return f"night {finished + 1} is scored" if finished or scored else "before the first score"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def _until(check: Callable[[], Any], what: str, every: float = 0.2) -> Any:
    """The first true answer of `check`."""
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:g} s until {what}")
        time.sleep(every)
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _row(trial: Mapping[str, Any]) -> str:
    outcome = "; ".join(trial["different"]) or "same"
    return (
        f"{trial['number']:3}  {trial['killed']:<7} {trial['at']:6.2f} s  {trial['doing']:<22} {trial['state']:<10} "
        f"{trial['seconds']:6.1f} s  {outcome}"
    )


def main() -> None:
    """Kill, compare, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=51, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error("--kills is at least 1")
    with tempfile.TemporaryDirectory(prefix="tilewatch-chaos-") as folder:
        for result in measure(Path(folder), arguments.kills, arguments.seed):
            if not arguments.json:
                print(_row(result["trials"][-1]), flush=True)
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                (arguments.out / "chaos.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=None if arguments.json else 1))
    sys.exit(0 if result["same"] == result["kills"] else 1)


if __name__ == "__main__":
    main()

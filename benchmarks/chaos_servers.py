"""MLflow, Prefect and a worker on this machine, to be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import yaml

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


class Servers:
    """MLflow, Prefect and a worker on this machine, each a process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, psutil.Popen] = {}
        self._ports = {name: _free_port() for name in ("mlflow", "prefect")}
        self.mlflow = f"http://127.0.0.1:{self._ports['mlflow']}"
        self._environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self._ports['prefect']}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        self._api = httpx.Client(base_url=self._environment["PREFECT_API_URL"], timeout=60)

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
            until(lambda: _answers(path), f"{name} answers")

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
        self._api.close()

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
        deployment = self._ask("GET", "/deployments/name/nightly/nightly")["id"]
        # One key for all tries: a busy server may have made the run, and say that it had no time.
        wanted = {"parameters": {"watch": watch, "request": {}}, "idempotency_key": str(uuid4())}
        return str(self._ask("POST", f"/deployments/{deployment}/create_flow_run", wanted)["id"])

    def state(self, run: str) -> str:
        """Of a run, such as COMPLETED."""
        return str(self._ask("GET", f"/flow_runs/{run}")["state"]["type"])

    def wait(self, run: str) -> list[str]:
        """Wait until a run ends; gives what is wrong with its end, in words."""
        state = until(lambda: (found := self.state(run)) in ENDED and found, "the run ends")
        if state == "COMPLETED":
            return []
        return [f"a run that nobody killed is {state}: {self._ask('GET', f'/flow_runs/{run}')['state']['message']}"]

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        """What Prefect answers, once it has time: its SQLite database is locked now and then on a busy machine.

        A connection that was idle for long may be closed just as it is used again, which is no answer either.
        """

        def answer() -> httpx.Response | None:
            try:
                found = self._api.request(method, path, json=content)
            except httpx.TransportError:
                return None
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        return until(answer, f"Prefect has time for {path}").raise_for_status().json()

    def train(self, config: Path, workspace: Path) -> None:
        """Make the champion."""
        command = ["tilewatch", "train", "-c", str(config), "-w", str(workspace)]
        subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:], "--set", f"tracking.uri={self.mlflow}"],
            env=self._environment, stdin=subprocess.DEVNULL, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def started(folder: Path) -> Iterator[Servers]:
    """All of them, and a deployment, for the time of the block."""
    servers = Servers(folder)
    try:
        for name in ("mlflow", "prefect"):
            servers.start(name)
        servers.deploy()
        servers.start("worker")
        yield servers
    finally:
        servers.kill_all()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def until(check: Callable[[], Any], what: str, every: float = 0.2) -> Any:
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

"""What the Prefect server is told: deployments, schedules, automations; and what it says of worker and runs."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from flows.services.web import call

log = logging.getLogger(__name__)

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"  # in the repository and in an installation alike
POOL = "tilewatch"  # the work pool that the deployments name
DEPLOY_SECONDS = 300
MOST_ATTEMPTS = 3  # of a night; the same as in automations.yaml
UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")
AGAIN = {"type": "SCHEDULED", "name": "AwaitingRetry"}  # as automations.yaml puts it


class RegistrationFailed(RuntimeError):
    """Prefect refused the deployments."""


class Registry:
    """The API of a Prefect server."""

    def __init__(self, url: str, login: str | None = None) -> None:
        """An API.

        Args:
            url: Its address, which ends in `/api`.
            login: `user:password`, where it asks for one.
        """
        self.url, self._login = url, login

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        return call(method, f"{self.url}{path}", body, self._login)

    def worker_online(self, name: str, since: datetime) -> bool:
        """Whether a worker has reported since a time.

        Raises:
            Unreachable: The server does not answer.
        """
        pools = self._call("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
        if not pools:
            return False  # the worker makes it
        workers = self._call("POST", f"/work_pools/{POOL}/workers/filter", {})
        seen = [worker["last_heartbeat_time"] for worker in workers if worker["name"] == name]
        return any(datetime.fromisoformat(time) >= since for time in seen if time)

    def give_up_runs(self, reason: str) -> int:
        """Settle the unfinished runs of the pool, none of which can be running: nights start again, others crashed.

        Not left to the automation of crashed nights: it may not listen yet as the server starts.

        Args:
            reason: Why they ended, for people.

        Returns:
            How many there were.
        """
        wanted = {
            "work_pools": {"name": {"any_": [POOL]}},
            "flow_runs": {"state": {"type": {"any_": list(UNFINISHED)}}},
        }
        runs = self._call("POST", "/flow_runs/filter", wanted)
        nights = self._call("POST", "/flow_runs/filter", wanted | {"flows": {"name": {"any_": ["nightly"]}}})
        again = {night["id"] for night in nights if night["run_count"] < MOST_ATTEMPTS}
        for run in runs:
            self._settle(run["id"], AGAIN if run["id"] in again else {"type": "CRASHED"}, reason)
        return len(runs)

    def start_again(self, reason: str, since: datetime, until: datetime) -> int:
        """Start nights again that crashed within a time and were left so, unless they have had their attempts.

        The automation of crashed nights does so at once. On a busy machine SQLite may lock Prefect out as it does, and
        then it hears nothing of the run any more.

        Args:
            reason: For people.
            since: Crashes before this are of no concern.
            until: Those after it are the automation's.

        Returns:
            How many there were.
        """
        crashed = {
            "work_pools": {"name": {"any_": [POOL]}},
            "flows": {"name": {"any_": ["nightly"]}},
            "flow_runs": {"state": {"type": {"any_": ["CRASHED"]}}},
            "sort": "EXPECTED_START_TIME_DESC",
        }
        nights = [
            night
            for night in self._call("POST", "/flow_runs/filter", crashed)
            if 0 < night["run_count"] < MOST_ATTEMPTS
            and since <= datetime.fromisoformat(night["state"]["timestamp"]) < until
        ]
        for night in nights:
            self._settle(night["id"], AGAIN, reason)
        return len(nights)

    def _settle(self, run: str, state: Mapping[str, str], reason: str) -> None:
        """Put a run into a state, whatever its own is."""
        body = {"state": {**state, "message": reason}, "force": True}
        self._call("POST", f"/flow_runs/{run}/set_state", body)

    def automate(self) -> None:
        """Register the automations, in place of those of the same names."""
        wanted = yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text(encoding="utf-8"))["automations"]
        for automation in wanted:
            named = {"automations": {"name": {"any_": [automation["name"]]}}}
            for known in self._call("POST", "/automations/filter", named):
                self._call("DELETE", f"/automations/{known['id']}")
            self._call("POST", "/automations/", automation)


def deploy(environment: Mapping[str, str], folder: Path) -> None:
    """Register all deployments with their schedules and triggers.

    Args:
        environment: Names the server, the configuration, the workspace, and the schedule.
        folder: Where Prefect looks about.

    Raises:
        RegistrationFailed: Prefect refused one of them, with its words.
    """
    file = str(DEPLOYMENTS / "prefect.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEPLOY_SECONDS,
    )
    if done.returncode:
        raise RegistrationFailed(f"Prefect refused the deployments of {file}:\n{(done.stdout + done.stderr).strip()}")

"""`tilewatch up` for real: servers, worker, deployments, automations, kills, and nothing left when it stops.

The tests follow one another as the days of a watch do, on one site.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml
from mlflow import MlflowClient

from configs import Workspace
from flows.services.processes import end, left_over
from imagery.simulate import Location, Plan, simulate
from tests.servers import free_port

pytestmark = [pytest.mark.servers, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
NAMES = {"nightly", "train", "promote", "tune", "calibrate", "drift", "review", "latents", "prune"}
AUTOMATIONS = {"tilewatch-drift", "tilewatch-silent-runs", "tilewatch-crashed-nights", "tilewatch-nights-not-begun"}
DATES = tuple(date(2025, 5, 1) + timedelta(days=5 * number) for number in range(14))
SETTINGS = {
    "name": "meadow",
    "source": {"root": "scenes", "bands": ["B02", "B03", "B04", "B08"]},
    "masks": {"class_band": "SCL"},
    "grid": {"tile_size": 16},
    "split": {"train": {"end": DATES[8]}, "calibrate": {"start": DATES[9], "end": DATES[11]}},
    "model": {"depth": 2, "width": 8, "latent_channels": 4},
    "train": {"epochs": 2},
    "calibration": {"min_tiles": 20, "false_alarm_rate": 0.05},
    "score": {"name": "novelty"},
    "injections": {"enabled": False},
    "promotion": {"when": "always"},
    "compute": {"threads": 1},
}
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
DRIFT = {
    "reason": "drift since 2025-06-15: the light",
    "drift": "v1/2025-06-15",
    "detector_version": "v1",
    "night": str(DATES[11]),
    "train_end": str(DATES[9]),
    "calibrate_start": str(DATES[10]),
    "calibrate_end": str(DATES[11]),
}


@dataclass
class Place:
    """A watch that is up."""

    folder: Path
    ports: tuple[int, int]
    process: psutil.Popen | None = None
    said: list[dict[str, Any]] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def command(self) -> list[str]:
        prefect, mlflow = self.ports
        command = [sys.executable, "-m", "flows.cli", "up", "-c", str(self.folder / "meadow.yaml"), "--json"]
        command += ["-w", str(self.workspace), "--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
        return [*command, "--cron", "30 6 * * *", "--timezone", "Europe/Bucharest", "--grace", "1"]

    def start(self) -> None:
        """Up, and everything answers."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (self.folder / "up.log").open("a") as log:
            self.process = psutil.Popen(
                self.command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, (self.folder / "up.log").read_text()
        self.said.append(json.loads(line))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self.ports[0]}/api{path}"
        for _ in range(10):
            response = httpx.request(method, url, json=body, timeout=60)
            if response.status_code != 503:  # its database is busy: clients of Prefect try again as well
                break
            time.sleep(2)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def run(self, name: str, **request: Any) -> str:
        """What the form of a run sends; gives the id of the run."""
        deployment = self.call("GET", f"/deployments/name/{name}/{name}")
        parameters = {"watch": deployment["parameters"]["watch"], "request": request}
        path = f"/deployments/{deployment['id']}/create_flow_run"
        return str(self.call("POST", path, {"parameters": parameters})["id"])

    def state(self, run: str) -> str:
        return str(self.call("GET", f"/flow_runs/{run}")["state"]["type"])

    def ended(self, run: str, seconds: float = 240) -> dict[str, Any]:
        until(lambda: self.state(run) in ENDED, seconds, f"run {run} ends")
        return dict(self.call("GET", f"/flow_runs/{run}"))

    def engines(self) -> list[psutil.Process]:
        """Processes of flow runs."""
        return [one for one in left_over(self.workspace) if "prefect.engine" in _command(one)]

    def versions(self) -> dict[str, str]:
        """Detectors of the registry, with why they were made."""
        client = MlflowClient(Workspace(self.workspace).mlflow_uri)
        return {str(one.version): one.tags["reason"] for one in client.search_model_versions("name = 'meadow'")}

    def aliases(self) -> dict[str, str]:
        """Which versions of the registry have a role."""
        found = MlflowClient(Workspace(self.workspace).mlflow_uri).get_registered_model("meadow").aliases
        return {str(alias): str(version) for alias, version in found.items()}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(check: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of `check`."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("up")
    meadow = Location("meadow", "river", 32634, west=463_200, north=5_218_600, size=64)
    clear = tuple((meadow.name, day) for day in DATES)
    simulate(folder / "scenes", Plan(3, (meadow,), DATES, DATES[9], DATES[13], clear_scenes=clear))
    (folder / "meadow.yaml").write_text(yaml.safe_dump(SETTINGS))
    place = Place(folder, (free_port(), free_port()))
    try:
        place.start()
        yield place
    finally:
        if place.process and place.process.is_running():
            place.process.kill()
            place.process.wait()
        end(left_over(place.workspace), 5)


def test_both_servers_answer_and_everything_is_registered(place: Place):
    said = place.said[0]
    assert httpx.get(f"{said['prefect']}/api/health").json() is True
    assert httpx.get(f"{said['mlflow']}/health").text == "OK"

    deployments = {one["name"]: one for one in place.call("POST", "/deployments/filter", {})}
    automations = place.call("POST", "/automations/filter", {})
    assert set(deployments) == NAMES
    assert sorted(one["name"] for one in automations) == sorted(AUTOMATIONS)
    assert all(one["enabled"] for one in automations)
    watch = {"config": str(place.folder / "meadow.yaml"), "workspace": str(place.workspace)}
    assert all(one["parameters"]["watch"] == watch for one in deployments.values())
    assert {name for name, one in deployments.items() if one["schedules"]} == {"nightly", "prune"}


def test_only_this_machine_can_reach_them(place: Place):
    assert place.process is not None
    family = [place.process, *place.process.children(recursive=True)]
    listening = [c.laddr.ip for one in family for c in one.net_connections("tcp") if c.status == "LISTEN"]

    assert len(listening) >= 2
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_nights_are_scheduled_at_the_time_asked_for(place: Place):
    nightly = place.call("GET", "/deployments/name/nightly/nightly")
    wanted = {
        "deployments": {"id": {"any_": [nightly["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }

    runs = until(lambda: place.call("POST", "/flow_runs/filter", wanted), 90, "a night is scheduled")

    schedule = nightly["schedules"][0]["schedule"]
    assert (schedule["cron"], schedule["timezone"]) == ("30 6 * * *", "Europe/Bucharest")
    times = sorted(datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC) for run in runs)
    assert all((moment.hour, moment.minute) in {(4, 30), (3, 30)} for moment in times)  # with summer time
    assert all(timedelta(hours=23) <= later - earlier <= timedelta(hours=25) for earlier, later in pairwise(times))


def test_a_second_one_for_the_same_workspace_is_refused_in_words(place: Place):
    second = subprocess.run(place.command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)

    assert second.returncode == 1
    assert place.process is not None
    assert f"by process {place.process.pid} on " in json.loads(second.stdout)["error"]
    assert httpx.get(f"{place.said[0]['prefect']}/api/health").is_success


def test_a_training_started_in_the_form_gives_a_detector(place: Place):
    run = place.run("train", reason="asked for in the form", epochs=1)

    state = place.ended(run)["state"]

    assert state["type"] == "COMPLETED", state["message"]
    assert place.versions() == {"1": "asked for in the form"}
    # Through the server, into the files of the workspace.
    assert list((place.workspace / "mlartifacts").rglob("settings.json"))


def test_a_drift_starts_exactly_one_training(place: Place):
    def send() -> None:
        event = {
            "id": str(uuid4()),
            "event": "tilewatch.drift",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": "tilewatch.watch.meadow", "prefect.resource.name": "meadow"},
            "payload": DRIFT,
        }
        place.call("POST", "/events", [event])

    def asked() -> list[dict[str, Any]]:
        wanted = {"flows": {"name": {"any_": ["train"]}}}
        runs = place.call("POST", "/flow_runs/filter", wanted)
        return [run for run in runs if run["parameters"]["request"]["reason"] == DRIFT["reason"]]

    send()
    send()  # while the first one is at work
    until(lambda: len(asked()) == 2, 60, "both events were acted upon")
    states = [place.ended(run["id"])["state"] for run in asked()]

    assert [state["type"] for state in states] == ["COMPLETED", "COMPLETED"]
    assert sorted(place.versions().values()) == ["asked for in the form", DRIFT["reason"]]


def test_a_challenger_takes_over_when_somebody_promotes_it(place: Place):
    trained = place.ended(place.run("train", reason="a challenger", epochs=1, promotion="asked"))["state"]
    assert trained["type"] == "COMPLETED", trained["message"]
    assert place.aliases() == {"challenger": "3", "champion": "2"}

    promoted = place.ended(place.run("promote", version="challenger", reason="looked at"))["state"]

    assert promoted["type"] == "COMPLETED", promoted["message"]
    assert place.aliases()["champion"] == "3"


def test_a_night_whose_process_is_killed_goes_on(place: Place):
    run = place.run("nightly")
    until(lambda: place.state(run) == "RUNNING", 120, "the night runs")
    for engine in place.engines():
        engine.kill()

    night = place.ended(run)

    assert night["state"]["type"] == "COMPLETED", night["state"]["message"]
    assert night["run_count"] in (2, 3)  # at most twice again, as automations.yaml says
    assert sorted(one.name for one in (place.workspace / "reports").iterdir() if one.is_dir()) == [
        str(DATES[12]),
        str(DATES[13]),
    ]


def test_a_server_that_is_killed_is_started_again(place: Place):
    mlflow = [one for one in left_over(place.workspace) if "mlflow" in _command(one) and "server" in _command(one)]

    family = [mlflow[0], *mlflow[0].children(recursive=True)]
    mlflow[0].kill()

    def back() -> bool:
        try:
            return httpx.get(f"{place.said[0]['mlflow']}/health").text == "OK"
        except httpx.TransportError:
            return False

    said, log = "MLflow ended by signal 9; it is started again", place.folder / "up.log"
    until(lambda: said in log.read_text(), 60, "its end is noticed")
    until(lambda: not any(one.is_running() for one in family), 60, "its helpers, which still answer, are ended")
    until(back, 90, "MLflow is back")


def test_after_a_power_cut_the_next_one_goes_on_with_the_night(place: Place):
    assert place.process is not None
    run = place.run("nightly", force=True)
    until(lambda: place.state(run) == "RUNNING", 120, "the night runs")

    for one in [place.process, *place.engines()]:
        one.kill()
    place.process.wait()
    place.start()  # whatever has not ended by itself is ended

    night = place.ended(run)
    assert night["state"]["type"] == "COMPLETED", night["state"]["message"]
    assert night["run_count"] == 2
    assert len(place.call("POST", "/automations/filter", {})) == len(AUTOMATIONS)  # none of them twice
    trainings = place.call("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})
    assert all(one["run_count"] == 1 for one in trainings)  # nothing else was started again


def test_a_night_is_seen_in_prefect_with_links_into_mlflow(place: Place):
    found = place.call("POST", "/artifacts/filter", {})
    artifacts = {one["key"]: one for one in sorted(found, key=lambda one: one["created"])}

    run = MlflowClient(Workspace(place.workspace).mlflow_uri).search_runs(
        ["1"], "tags.`tilewatch.kind` = 'nightly'", order_by=["start_time DESC"]
    )[0]
    page = f"{place.said[0]['mlflow']}/#/experiments/1/runs/{run.info.run_id}"
    assert f"## {DATES[13]}: " in artifacts["night"]["data"]
    assert f"({page})" in artifacts["night"]["data"]
    assert f"({page}/artifacts/report.html)" in artifacts["report"]["data"]
    assert httpx.get(artifacts["drift-chart"]["data"]).content.startswith(b"\x89PNG")


def test_nothing_is_left_when_it_stops(place: Place):
    assert place.process is not None
    run = place.run("nightly", force=True)
    until(lambda: place.state(run) == "RUNNING", 120, "a night runs, which is cut off")
    family = left_over(place.workspace)
    assert len(family) >= 5

    place.process.send_signal(signal.SIGTERM)

    assert place.process.wait(90) == 0
    assert json.loads(place.process.stdout.read()) == {"stopped": True}
    assert not any(one.is_running() for one in family)
    assert left_over(place.workspace) == []

"""The deployments, registered by hand on a real server. What a worker makes of them is seen in `test_up.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.servers import end_family, free_port

pytestmark = pytest.mark.servers

REPOSITORY = Path(__file__).parents[2]
NAMES = {"nightly", "train", "promote", "tune", "calibrate", "drift", "review", "latents", "prune"}


@dataclass(frozen=True)
class Site:
    """A server, and the watch that was deployed there."""

    api: httpx.Client
    config: Path
    workspace: Path

    def deployment(self, name: str) -> dict[str, Any]:
        return answer(self.api.get(f"/deployments/name/{name}/{name}"))

    def start(self, name: str, **request: Any) -> httpx.Response:
        """What the form of a run sends."""
        deployment = self.deployment(name)
        parameters = {"watch": deployment["parameters"]["watch"], "request": request}
        return self.api.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    config = folder / "meadow.yaml"
    config.write_text("name: meadow\nsource: {location: meadow}\n")
    workspace = folder / "workspace"

    port = free_port()
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    watch = {"TILEWATCH_CONFIG": str(config), "TILEWATCH_WORKSPACE": str(workspace)}
    with (
        process(["server", "start", "--host", "127.0.0.1", "--port", str(port)], folder, environment) as server,
        httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=30) as api,
    ):
        until(lambda: healthy(api), 90, "the server answers", server)
        pool = prefect(["work-pool", "create", "tilewatch", "--type", "process"], folder, environment)
        assert pool.returncode == 0, pool.stdout + pool.stderr
        deployed = deploy(folder, environment | watch)  # not where the code lies
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        yield Site(api, config, workspace)


def test_every_deployment_is_registered_with_the_watch(site: Site):
    found = {one["name"]: one for one in answer(site.api.post("/deployments/filter", json={}))}

    assert set(found) == NAMES
    for deployment in found.values():
        assert deployment["parameters"]["watch"] == {"config": str(site.config), "workspace": str(site.workspace)}
        assert deployment["work_pool_name"] == "tilewatch"
        assert bool(deployment["schedules"]) == (deployment["name"] in ("nightly", "prune"))


def test_nights_are_scheduled_at_five_in_the_morning(site: Site):
    nightly = site.deployment("nightly")
    scheduled = {
        "deployments": {"id": {"any_": [nightly["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }

    runs = until(lambda: answer(site.api.post("/flow_runs/filter", json=scheduled)), 60, "a night is scheduled")

    times = sorted(datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC) for run in runs)
    assert {(moment.hour, moment.minute) for moment in times} == {(5, 0)}
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(times))
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_the_form_of_a_training_explains_its_fields(site: Site):
    schema = site.deployment("train")["parameter_openapi_schema"]
    fields = schema["definitions"]["TrainRequest"]["properties"]

    assert {"reason", "train_start", "train_end", "epochs", "false_alarm_rate", "seed"} <= set(fields)
    assert all(field.get("description") for field in fields.values())
    assert fields["reason"]["maxLength"] == 500
    assert fields["promotion"]["enum"] == ["as configured", "better", "asked", "always"]  # a list to choose from
    assert {"type": "integer", "minimum": 1, "maximum": 10_000} in fields["epochs"]["anyOf"]
    assert {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1} in fields["false_alarm_rate"]["anyOf"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"epochs": 0}, "'request.epochs'. Failure reason: 0 is less than the minimum of 1"),
        ({"false_alarm_rate": 1.5}, "'request.false_alarm_rate'"),
        ({"epoch": 2}, "'epoch' was unexpected"),
        ({"promotion": "never"}, "'request.promotion'"),
    ],
)
def test_a_request_that_cannot_work_is_refused_in_words(site: Site, request_: dict[str, Any], words: str):
    refusal = site.start("train", **request_)

    assert refusal.status_code in (409, 422)
    assert words in refusal.text


def answer(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json()


def healthy(api: httpx.Client) -> bool:
    try:
        return api.get("/health").is_success
    except httpx.TransportError:
        return False


def until(check: Any, seconds: float, what: str, server: psutil.Popen | None = None) -> Any:
    """The first true answer of `check`."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert server is None or server.poll() is None, f"the server ended with {server.returncode}"
        assert time.monotonic() < end, f"waited {seconds} s until {what}"
        time.sleep(0.3)
    return found


def deploy(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    prefect_file = str(REPOSITORY / "deployments" / "prefect.yaml")
    return prefect(["--no-prompt", "deploy", "--all", "--prefect-file", prefect_file], folder, environment)


def prefect(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def process(arguments: list[str], folder: Path, environment: dict[str, str]) -> Iterator[psutil.Popen]:
    """A `prefect` process that is gone afterwards, with all that it started."""
    with (folder / f"{arguments[0]}.log").open("w") as log:
        started = psutil.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
            # A worker started with SIGINT ignored, as in the background of a script, does not end on SIGTERM.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    try:
        yield started
    finally:
        end_family(started)

"""What `tilewatch up` asks of a real Prefect server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from flows.services.registration import MOST_ATTEMPTS, POOL, Registry

pytestmark = pytest.mark.servers

CRASHED, RUNNING = {"type": "CRASHED"}, {"type": "RUNNING"}


@pytest.fixture
def api(prefect_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=prefect_server, timeout=30) as client:
        if client.get(f"/work_pools/{POOL}").status_code == 404:
            client.post("/work_pools/", json={"name": POOL, "type": "process"}).raise_for_status()
        yield client


@pytest.fixture
def run(api: httpx.Client) -> Callable[..., str]:
    """A run of the pool that began so many times, each time by crashing before."""

    def made(flow: str, begun: int) -> str:
        flow_id = api.post("/flows/", json={"name": flow}).json()["id"]
        body = {"name": flow, "flow_id": flow_id, "work_pool_name": POOL}
        deployment = api.post("/deployments/", json=body).json()["id"]
        found: str = api.post(f"/deployments/{deployment}/create_flow_run", json={}).json()["id"]
        for state in [RUNNING, CRASHED] * begun or [CRASHED]:
            api.post(f"/flow_runs/{found}/set_state", json={"state": state, "force": True}).raise_for_status()
        return found

    return made


def state(api: httpx.Client, run: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/flow_runs/{run}").json()
    return found


def test_nights_that_crashed_and_were_left_so_are_started_again_as_often_as_they_may(
    api: httpx.Client, run: Callable[..., str], prefect_server: str
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    once, spent = run("nightly", 1), run("nightly", MOST_ATTEMPTS)
    never, training = run("nightly", 0), run("train", 1)
    assert state(api, once)["run_count"] == 1
    assert state(api, spent)["run_count"] == MOST_ATTEMPTS
    registry, after = Registry(prefect_server), datetime.now(UTC) + timedelta(seconds=1)

    assert registry.start_again("of the machine", after, after) == 0
    assert registry.start_again("of the machine", before, before) == 0  # the automation's, for a while
    assert registry.start_again("of the machine", before, after) == 1
    assert registry.start_again("of the machine", before, after) == 0

    found = state(api, once)["state"]
    assert (found["type"], found["name"], found["message"]) == ("SCHEDULED", "AwaitingRetry", "of the machine")
    assert [state(api, one)["state"]["type"] for one in (spent, never, training)] == ["CRASHED"] * 3

"""A drift that lasts over several nights, on a real Prefect server: one event, and one training for it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from configs import Settings
from flows.drift import drift
from flows.nightly import nightly
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.train import train
from tasks import registry
from tasks.events import NobodyListens, send
from tasks.retraining import EVENT, trained
from tests.flows.conftest import DATES, GAIN_FROM

pytestmark = pytest.mark.slow
QUICK = ["drift.retrain_after=3", "drift.window=2", "calibration.min_tiles=10"]


def events(settings: Settings) -> list[dict[str, Any]]:
    """What the server has of the drifts of a watch, once it has written down all that was sent."""
    last = uuid4()
    send("tilewatch.test", last, {}, settings)
    end = time.monotonic() + 60
    while not [one for one in stored("tilewatch.test", settings) if one["id"] == str(last)]:
        assert time.monotonic() < end, "the server does not store events"
        time.sleep(0.2)
    return stored(EVENT, settings)


def stored(name: str, settings: Settings) -> list[dict[str, Any]]:
    wanted = {"event": {"name": [name]}, "resource": {"id": [f"tilewatch.watch.{settings.name}"]}}
    with get_client(sync_client=True) as client:
        response = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
    return response.raise_for_status().json()["events"]  # type: ignore[no-any-return]


@pytest.fixture
def watch(fresh_watch: Watch) -> Watch:
    """A trained watch that asks for trainings by events, and soon."""
    return fresh_watch.model_copy(update={"overrides": [*QUICK, "drift.retrain=event"]})


def test_nights_under_a_lasting_drift_send_one_event_and_give_one_training(watch: Watch) -> None:
    settings, workspace = watch.open()
    records = []
    for last in (34, 35, 37):
        records += nightly(watch, NightRequest(since=DATES[32], until=DATES[last])).nights

    drifting = [record for record in records if record.drift_began]
    assert len(drifting) >= 3
    assert drifting[0].night >= GAIN_FROM
    (event,) = events(settings)
    began = drifting[0].drift_began
    asked_by = next(record for record in drifting if record.night >= began + timedelta(days=12))
    assert event["resource"] == {"prefect.resource.id": "tilewatch.watch.meadow", "prefect.resource.name": "meadow"}
    assert event["payload"] == {
        "drift": f"v1/{began}",
        "detector_version": "v1",
        "night": str(asked_by.night),
        "reason": f"drift since {began}: {asked_by.drift_reasons[0]}",
        "train_end": str(began + timedelta(days=5)),
        "calibrate_start": str(began + timedelta(days=6)),
        "calibrate_end": str(asked_by.night),
    }
    assert "higher by" in event["payload"]["reason"]
    assert any(one["prefect.resource.id"].startswith("prefect.flow-run.") for one in event["related"])

    asked = {name: event["payload"][name] for name in TrainRequest.model_fields if name in event["payload"]}
    trained(event["payload"]["drift"], asked_by.night, "v2", workspace)
    for drift_, told in ((f"v1/{began}", "was trained for: v2"), (f"v2/{DATES[38]}", "drift.cool_down asks for 14")):
        ended = train(watch, TrainRequest.model_validate(asked | {"drift": drift_}), return_state=True)
        assert ended.is_completed()
        assert told in str(ended.message)
    assert [one.version for one in registry.listed(settings, workspace)] == ["v1"]


def test_an_event_that_no_server_takes_is_an_error_in_words(watch: Watch) -> None:
    settings, _ = watch.open()
    for nowhere, told in (("http://127.0.0.1:9/api", "was not taken by http://127.0.0.1:9/api"), (None, "no server")):
        with temporary_settings({PREFECT_API_URL: nowhere}), pytest.raises(NobodyListens, match=told):
            send(EVENT, uuid4(), {}, settings)


def test_the_drift_of_finished_nights_is_drawn_and_tabled_with_limits_and_effect_sizes(watch: Watch) -> None:
    nightly(watch, NightRequest(since=DATES[33], until=DATES[34]))
    _, workspace = watch.open()
    assert (workspace.reports / str(DATES[34]) / "drift.png").read_bytes().startswith(b"\x89PNG")

    judged = drift(watch, NightRequest(until=DATES[34]))

    assert [one.night for one in judged] == [DATES[33], DATES[34]]
    assert judged[0].limits.keys() == judged[0].statistics.keys()
    assert judged[-1].effects["brightness_shift"] > 0.2
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(
        [mlflow.get_experiment_by_name("meadow").experiment_id], "tags.`tilewatch.kind` = 'drift'"
    )
    names = {one.path for folder in ("", "figures") for one in client.list_artifacts(run.info.run_id, folder)}
    assert {"drift.json", "figures/drift.png"} <= names
    (night,) = client.search_runs([run.info.experiment_id], f"tags.night = '{DATES[34]}'")
    assert "drift.png" in {one.path for one in client.list_artifacts(night.info.run_id)}

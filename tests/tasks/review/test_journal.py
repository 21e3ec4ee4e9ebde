"""A night stays in the journal until people are asked about it, and its run is logged once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from configs import Settings, Workspace
from tasks import pending, tracking
from tasks.nights import NightRecord, read_night
from tasks.pending import Entry
from tasks.review.queue import NoQueues
from tasks.tracked_night import NightLog
from tests.tasks.review.conftest import NIGHT, keep_questions, make_question
from tests.tasks.review.test_queue import queues, traces


@pytest.fixture
def entry(workspace: Workspace) -> Entry:
    """A night that Prefect was told of, with two questions."""
    keep_questions(workspace, make_question(0), make_question(1))
    record = NightRecord(NIGHT, "v3", "c0ffee", {}, (), {}, 4, 4, 2, None, (), None, report="reports/none.html")
    made = Entry(NightLog(record, {"flags": 2.0}, (), {}), told=True)
    pending.keep(made, workspace)
    return made


def runs(settings: Settings, workspace: Workspace) -> list[str]:
    return [one.info.run_id for one in tracking.find_runs(settings, workspace, "nightly")]


def test_a_night_is_out_of_the_journal_when_people_are_asked_about_it(
    settings: Settings, workspace: Workspace, entry: Entry
) -> None:
    record = pending.finish(entry, settings, workspace)

    assert pending.entries(workspace) == []
    assert runs(settings, workspace) == [record.run_id]
    assert len(queues()["night 2025-07-01"]) == 2


def test_a_night_that_nobody_could_be_asked_about_is_asked_about_by_the_next_run_and_logged_once(
    settings: Settings, workspace: Workspace, entry: Entry, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def refused(*_: Any) -> None:
        raise NoQueues("MLflow has no review queues: update its server to 3.14 or later")

    with monkeypatch.context() as patch:
        patch.setattr(pending, "ask", refused)
        first = pending.finish(entry, settings, workspace)
        (waiting,) = pending.entries(workspace)
    assert "nobody is asked about the night of 2025-07-01 (NoQueues: MLflow has no review queues" in caplog.text
    assert waiting.run_id == first.run_id
    assert read_night(workspace, NIGHT) == first

    (second,) = pending.finish_all(settings, workspace)

    assert second == first
    assert runs(settings, workspace) == [first.run_id]
    assert len(traces()) == 2
    assert pending.entries(workspace) == []


def test_with_nothing_to_be_asked_the_journal_is_emptied(
    with_settings: Callable[..., Settings], workspace: Workspace, entry: Entry
) -> None:
    settings = with_settings(flags=0, sample=0, suppressed=0)

    pending.finish(entry, settings, workspace)

    assert pending.entries(workspace) == []
    assert mlflow.get_experiment_by_name("meadow-review") is None


def test_an_mlflow_that_is_away_stops_no_night_and_is_made_up_for(
    settings: Settings, workspace: Workspace, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Settings.model_validate({"name": "meadow", "tracking": {"uri": "http://127.0.0.1:9"}})

    assert pending.finish(entry, away, workspace).run_id == ""
    assert len(pending.entries(workspace)) == 1
    (record,) = pending.finish_all(settings, workspace)

    assert record.run_id
    assert len(traces()) == 2


def test_an_entry_of_an_earlier_version_is_read(workspace: Workspace, entry: Entry) -> None:
    text = json.loads(entry.to_json())
    del text["run_id"]

    assert Entry.from_json(json.dumps(text)) == entry

"""Which training a lasting drift asks for: once a drift, with a cool-down, in spite of kills."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from configs import Settings, Workspace
from configs.schema import DriftSettings
from flows.parameters import TrainRequest
from tasks import retraining
from tasks.events import NobodyListens
from tasks.nights import NightRecord
from tasks.retraining import Retraining, ask, due, failed, refusal, trained, wanted

FIRST = date(2025, 7, 1)


def nights(alarms: Sequence[bool | None]) -> list[NightRecord]:
    """Nights five days apart, as the nightly run would have recorded them with a patience of two."""
    found: list[NightRecord] = []
    run: list[date] = []
    for number, alarmed in enumerate(alarms):
        day = FIRST + timedelta(days=5 * number)
        if alarmed is not None:
            run = [*run, day] if alarmed else []
        began = run[0] if alarmed and len(run) > 1 else None
        reasons = ("B08 higher",) if alarmed else ()
        found.append(NightRecord(day, "v3", "c0ffee", {}, (), {}, 9, 9, 0, alarmed, reasons, began))
    return found


def settings(retrain: str = "event", **values: Any) -> Settings:
    return Settings(name="meadow", drift=DriftSettings(retrain=retrain, **{"retrain_after": 4, **values}))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[UUID, dict[str, Any]]]:
    """What a server would have got; tests/flows/test_retraining.py has a real one."""
    found: list[tuple[UUID, dict[str, Any]]] = []
    monkeypatch.setattr(retraining, "send", lambda name, event, payload, _: found.append((event, dict(payload))))
    return found


@pytest.mark.parametrize(("alarming", "asks"), [(3, False), (4, True), (5, True)])
def test_a_retrain_waits_for_enough_nights_and_calibrates_on_the_later_half(alarming: int, asks: bool) -> None:
    record = nights([False, False, *[True] * alarming])

    found = wanted(record, settings())

    assert (found is not None) == asks
    if found:
        usable = [one.night for one in record[2:]]
        assert found.drift == f"v3/{usable[0]}"
        assert found.calibrate_start == usable[alarming // 2]
        assert found.calibrate_end == found.night == usable[-1]
        assert found.train_end == found.calibrate_start - timedelta(days=1)
        assert found.reason == f"drift since {usable[0]}: B08 higher"


def test_nights_without_a_verdict_count_for_nothing_and_end_no_drift() -> None:
    assert wanted(nights([True, True, None, None, True]), settings()) is None
    assert wanted(nights([True, True, None, None, True, True]), settings()) is not None
    assert wanted(nights([True, True, True, True, None]), settings()) is None, "not on a night that says nothing"
    assert wanted(nights([True, True, True, True, False]), settings()) is None, "the drift is over"
    assert wanted([], settings()) is None


def test_a_request_fits_the_form_of_a_training_however_long_the_reason() -> None:
    record = nights([True] * 4)
    record[-1] = replace(record[-1], drift_reasons=("x" * 2000,))
    found = wanted(record, settings())
    assert found is not None

    assert TrainRequest(**found.request).drift == "v3/2025-07-01"
    from_event = {name: found.payload[name] for name in found.request}
    assert TrainRequest.model_validate(from_event) == TrainRequest(**found.request)


def test_a_lasting_drift_asks_once_and_another_only_after_the_cool_down(
    workspace: Workspace, sent: list[tuple[UUID, dict[str, Any]]]
) -> None:
    asked_on = []
    record = nights([*[True] * 8, False, *[True] * 8])
    for last in range(1, len(record) + 1):
        found = due(record[:last], settings(cool_down=45), workspace)
        if found:
            ask(found, settings(), workspace)
            asked_on.append(last)

    assert asked_on == [4, 13]  # the second drift has four nights on the 13th, 45 days after the first asked
    assert [payload["drift"] for _, payload in sent] == ["v3/2025-07-01", "v3/2025-08-15"]
    assert len({event for event, _ in sent}) == 2


def test_an_event_that_was_made_and_not_sent_is_sent_again_as_the_same(
    workspace: Workspace, sent: list[tuple[UUID, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise NobodyListens("no server")

    record = nights([True] * 6)
    first = due(record[:4], settings(), workspace)
    assert first is not None
    with monkeypatch.context() as without_server:
        without_server.setattr(retraining, "send", nobody)
        with pytest.raises(NobodyListens):
            ask(first, settings(), workspace)
    (made,) = workspace.drift.glob("*.asked.json")
    event = UUID(json.loads(made.read_text())["event"])

    again = due(record[:5], settings(), workspace)  # the next night
    assert again is not None
    ask(again, settings(), workspace)

    assert sent == [(event, first.payload)]
    assert due(record[:6], settings(), workspace) is None


def test_two_runs_that_ask_at_once_send_the_same_event(
    workspace: Workspace, sent: list[tuple[UUID, dict[str, Any]]]
) -> None:
    found = due(nights([True] * 4), settings(), workspace)
    assert found is not None
    ask(found, settings(), workspace)
    ask(found, settings(), workspace)
    assert sent[0] == sent[1]


def test_a_drift_is_trained_for_once_and_another_not_within_the_cool_down(workspace: Workspace) -> None:
    assert refusal("v3/2025-07-01", date(2025, 7, 20), settings(), workspace) is None
    trained("v3/2025-07-01", date(2025, 7, 20), "v4", workspace)

    assert "v3/2025-07-01 was trained for: v4" in str(
        refusal("v3/2025-07-01", date(2026, 7, 20), settings(), workspace)
    )
    told = refusal("v4/2025-07-25", date(2025, 7, 30), settings(), workspace)
    assert told == (
        "the drift v4/2025-07-25 of 2025-07-30 comes 10 days after the training for the drift v3/2025-07-01; "
        "drift.cool_down asks for 14"
    )
    assert refusal("v4/2025-07-25", date(2025, 8, 3), settings(), workspace) is None
    assert refusal("v4/2025-07-25", None, settings(), workspace) is not None, "counted from the night it began"
    assert refusal("v4/2025-07-25", date(2025, 7, 30), settings(cool_down=10), workspace) is None


@pytest.mark.parametrize("mode", ["event", "nightly"])
def test_a_training_keeps_every_way_of_asking_quiet(workspace: Workspace, mode: str) -> None:
    trained("v2/2025-06-01", date(2025, 7, 10), "v3", workspace)
    record = nights([True] * 8)
    asks = [due(record[:last], settings(mode), workspace) is not None for last in range(1, 9)]
    assert asks == [*[False] * 5, *[True] * 3]  # from 24 July on


def test_without_the_setting_nothing_is_asked(workspace: Workspace) -> None:
    assert due(nights([True] * 8), settings("never"), workspace) is None


def test_a_training_of_the_night_that_failed_is_not_made_again_before_the_next_night(workspace: Workspace) -> None:
    record = nights([True] * 5)
    found = due(record[:4], settings("nightly"), workspace)
    assert isinstance(found, Retraining)
    assert due(record[:4], settings("nightly"), workspace) == found, "a kill is no failure"
    failed(found, workspace)

    assert due(record[:4], settings("nightly"), workspace) is None
    assert due(record[:5], settings("nightly"), workspace) is not None


def test_files_of_a_write_that_was_cut_off_are_not_read(workspace: Workspace) -> None:
    workspace.drift.mkdir()
    (workspace.drift / ".v2%2F2025-07-01.trained.0-0.part.trained.json").write_text("{")
    assert refusal("v3/2025-07-01", FIRST, settings(), workspace) is None

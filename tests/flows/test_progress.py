"""Progress as it is seen in the Prefect UI, and that it never gets into the way."""

from __future__ import annotations

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows import progress


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> progress._Shown:
    """As in a run of a deployment, where work takes its time."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(progress.deployment, "id", "of a deployment", raising=False)
    return progress._Shown("train")


def test_progress_is_an_artifact_that_ends_at_a_hundred(shown: progress._Shown, prefect_database: None):
    @flow
    def work() -> list[float]:
        shown.at(1, 4)
        half_way = _data(shown)
        shown.at(4, 4)
        return [half_way, _data(shown)]

    assert work() == pytest.approx([25, 100])


def test_a_server_that_is_away_does_not_end_the_work(
    shown: progress._Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)

    for done in range(4):
        shown.at(done, 4)

    assert [record.getMessage() for record in caplog.records] == [
        "the progress of train is not shown in Prefect: nobody there"
    ]


def test_on_the_command_line_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_UPDATES", 0.0)

    alone = progress._Shown("train")
    alone.at(1, 4)

    assert alone._artifact is None


def _data(shown: progress._Shown) -> float:
    assert shown._artifact is not None
    with get_client(sync_client=True) as client:
        response = client.request("GET", "/artifacts/{id}", path_params={"id": shown._artifact})
    return float(response.json()["data"])

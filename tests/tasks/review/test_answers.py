"""What people answer in MLflow becomes the table of verdicts; what they change or take back changes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import AssessmentSource
from mlflow.tracing.client import TracingClient

from configs import Settings, Workspace
from tasks.review.answers import Collected, collect
from tasks.review.queue import ask
from tasks.review.verdicts import Verdict, VerdictError, read_all, read_verdicts, write_verdicts
from tests.tasks.review.conftest import NIGHT, keep_questions, make_question
from tests.tasks.review.test_queue import experiment, traces


@pytest.fixture
def asked(settings: Settings, workspace: Workspace) -> list[str]:
    """Three flags and a tile that was drawn; the ids of their traces."""
    keep_questions(workspace, *(make_question(number) for number in range(3)), make_question(3, asked="sample"))
    ask(NIGHT, "", settings, workspace)
    return [one.trace_id for one in traces()]


def answer(trace_id: str, who: str = "ana", kind: str = "HUMAN", **answers: Any) -> dict[str, str]:
    """Answer as MLflow's form does; gives the ids of the assessments."""
    source = AssessmentSource(kind, who)
    return {
        name: mlflow.log_feedback(
            trace_id=trace_id, name=name.replace("_", " "), value=value, source=source
        ).assessment_id
        for name, value in answers.items()
    }


def verdicts(workspace: Workspace) -> dict[str, str]:
    return {one.tile_id: one.verdict for one in read_verdicts(workspace)}


def test_an_answer_becomes_a_verdict_with_all_that_was_asked(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    answer(asked[0], verdict="anomaly", kind_of_event="flood", severity=7.5, comment="the <b>river</b>")
    answer(asked[3], verdict="false alarm")
    began = datetime.now(UTC)

    found = collect(settings, workspace)

    assert found == Collected({"anomaly": 1, "false alarm": 1}, {}, 0, 2)
    first, drawn = read_verdicts(workspace)
    assert first == Verdict(
        scene_id="oxbow/2025-07-01",
        tile_id="oxbow-r00000-c00000",
        verdict="anomaly",
        reviewed_at=first.reviewed_at,
        reviewer="ana",
        kind="flood",
        severity=7.5,
        comment="the <b>river</b>",
        asked="flag",
        share=1.0,
        detector_version="v3",
        score=20.0,
        p_value=0.001,
        trace_id=asked[0],
    )
    assert first.reviewed_at is not None
    assert abs((first.reviewed_at - began).total_seconds()) < 60
    assert (drawn.asked, drawn.share, drawn.kind, drawn.severity) == ("sample", 0.125, "", None)


def test_reading_twice_gives_the_same_bytes(settings: Settings, workspace: Workspace, asked: list[str]) -> None:
    answer(asked[1], verdict="anomaly")
    answer(asked[0], verdict="bad data")
    collect(settings, workspace)
    before = workspace.verdicts.read_bytes(), workspace.verdicts.stat().st_mtime_ns

    again = collect(settings, workspace)

    assert again == Collected({}, {}, 0, 2)
    assert (workspace.verdicts.read_bytes(), workspace.verdicts.stat().st_mtime_ns) == before


def test_an_answer_that_is_changed_or_taken_back_changes_the_table(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    first = answer(asked[0], verdict="anomaly", severity=3)
    second = answer(asked[1], verdict="anomaly")
    collect(settings, workspace)

    mlflow.override_feedback(
        trace_id=asked[0], assessment_id=first["verdict"], value="false alarm", source=AssessmentSource("HUMAN", "ana")
    )
    mlflow.delete_assessment(trace_id=asked[1], assessment_id=second["verdict"])
    found = collect(settings, workspace)

    assert found == Collected({}, {"false alarm": 1}, 1, 1)
    assert verdicts(workspace) == {"oxbow-r00000-c00000": "false alarm"}


def test_of_two_reviewers_the_newest_counts_with_all_that_they_said(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    answer(asked[0], "ana", verdict="anomaly", severity=9, comment="act now")
    answer(asked[0], "béla", verdict="false alarm", comment="only mown")

    collect(settings, workspace)

    (one,) = read_verdicts(workspace)
    assert (one.reviewer, one.verdict, one.severity, one.comment) == ("béla", "false alarm", None, "only mown")


def test_answers_of_programs_and_comments_without_a_verdict_are_no_verdicts(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    answer(asked[0], "a model", "LLM_JUDGE", verdict="anomaly")
    answer(asked[1], comment="nice")

    assert collect(settings, workspace) == Collected()
    assert not workspace.verdicts.exists()


@pytest.mark.parametrize("value", ["Anomaly", "maybe", "", True, 3, ["anomaly"]])
def test_a_verdict_that_is_none_of_ours_is_said_and_left_out(
    settings: Settings, workspace: Workspace, asked: list[str], value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer(asked[0], verdict=value)
    answer(asked[1], verdict="anomaly")

    found = collect(settings, workspace)

    assert verdicts(workspace) == {"oxbow-r00032-c00000": "anomaly"}
    (words,) = found.skipped
    assert "is none of anomaly, false alarm" in words
    assert words in caplog.text


@pytest.mark.parametrize("value", [11, -1, "very", True])
def test_a_severity_that_is_none_is_said_and_the_verdict_counts(
    settings: Settings, workspace: Workspace, asked: list[str], value: Any
) -> None:
    answer(asked[0], verdict="anomaly", severity=value)

    found = collect(settings, workspace)

    assert "no number from 0 to 10" in found.skipped[0]
    assert read_verdicts(workspace)[0].severity is None


@pytest.mark.parametrize("tag", ["tilewatch.scene_id", "tilewatch.tile_id", "tilewatch.item", "tilewatch.share"])
def test_a_trace_whose_tags_were_changed_says_nothing(
    settings: Settings, workspace: Workspace, asked: list[str], tag: str
) -> None:
    answer(asked[0], verdict="anomaly")
    mlflow.set_trace_tag(asked[0], tag, "another")

    found = collect(settings, workspace)

    assert len(found.skipped) == 1
    assert verdicts(workspace) == {}


def test_what_was_entered_by_hand_stays_beside_what_is_said_in_mlflow(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    early = datetime(2025, 7, 2, tzinfo=UTC)
    by_hand = [
        Verdict("oxbow/2025-07-01", "oxbow-r00000-c00000", "bad data", early, "me"),
        Verdict("there/2024-01-01", "there-r0", "anomaly", early, "me"),
    ]
    write_verdicts(by_hand, workspace)
    given = answer(asked[0], verdict="anomaly")

    collect(settings, workspace)
    assert verdicts(workspace) == {"oxbow-r00000-c00000": "anomaly", "there-r0": "anomaly"}
    mlflow.delete_assessment(trace_id=asked[0], assessment_id=given["verdict"])
    collect(settings, workspace)

    assert verdicts(workspace) == {"oxbow-r00000-c00000": "bad data", "there-r0": "anomaly"}
    assert read_all(workspace) == by_hand


def test_what_was_said_of_traces_that_are_gone_is_kept(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    answer(asked[0], verdict="anomaly")
    collect(settings, workspace)
    TracingClient().delete_traces(experiment(), trace_ids=asked)
    assert collect(settings, workspace).withdrawn == 0
    mlflow.delete_experiment(experiment())
    assert collect(settings, workspace).withdrawn == 0

    assert verdicts(workspace) == {"oxbow-r00000-c00000": "anomaly"}


def test_only_what_was_asked_in_the_last_days_is_looked_at_unless_everything_is_wanted(
    workspace: Workspace, settings: Settings, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(asked[0], verdict="anomaly")
    searched = []
    real = TracingClient.search_traces

    def watched(client: TracingClient, **values: Any) -> Any:
        searched.append(values["filter_string"])
        return real(client, **values)

    monkeypatch.setattr(TracingClient, "search_traces", watched)
    collect(settings, workspace)
    collect(settings, workspace, everything=True)

    assert ["timestamp_ms" in one for one in searched] == [True, False]


def test_another_watch_in_the_same_experiment_keeps_its_own(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    answer(asked[0], verdict="anomaly")
    other = Settings.model_validate({"name": "hill", "review": {"experiment": "meadow-review"}})

    assert collect(other, workspace) == Collected()


def test_without_a_review_there_is_nothing_to_read(settings: Settings, workspace: Workspace) -> None:
    assert collect(settings, workspace) == Collected()
    assert mlflow.get_experiment_by_name("meadow-review") is None


def test_a_table_that_cannot_be_understood_is_not_replaced(
    settings: Settings, workspace: Workspace, asked: list[str]
) -> None:
    pd.DataFrame({"tile_id": ["a"]}).to_parquet(workspace.verdicts)
    before = workspace.verdicts.read_bytes()
    answer(asked[0], verdict="anomaly")

    with pytest.raises(VerdictError, match="has no column"):
        collect(settings, workspace)

    assert workspace.verdicts.read_bytes() == before

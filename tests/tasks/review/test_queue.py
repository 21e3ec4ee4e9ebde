"""What a night asks, in an embedded MLflow: all of it, once, wherever it is cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.genai import label_schemas, review_queues
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ENDPOINT_NOT_FOUND
from mlflow.tracing.client import TracingClient

from configs import Settings, SettingsError, Workspace, load_settings
from tasks.review import queue
from tasks.review.questions import item_of
from tasks.review.queue import NoQueues, ask
from tests.tasks.review.conftest import NIGHT, keep_questions, make_question

HOSTILE = "<img src=x onerror=alert(1)>|`b` [x](javascript:alert(1)) **"


class Killed(BaseException):
    """Stands for a kill -9: nothing that tidies up after errors sees it."""


def experiment(name: str = "meadow-review") -> str:
    found = mlflow.get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


def traces(name: str = "meadow-review") -> list[Any]:
    found = TracingClient().search_traces(locations=[experiment(name)], include_spans=False, max_results=200)
    return sorted((one.info for one in found), key=lambda one: one.trace_id)


def queues(name: str = "meadow-review") -> dict[str, list[str]]:
    """The items of each queue, in the order in which MLflow lists them."""
    found = review_queues.list_review_queues(experiment_id=experiment(name))
    return {one.name: [item.item_id for item in review_queues.list_review_queue_items(one.queue_id)] for one in found}


def test_each_question_is_a_trace_and_an_item_of_the_queue_of_its_night(
    settings: Settings, workspace: Workspace
) -> None:
    keep_questions(workspace, *(make_question(number) for number in range(3)))

    assert ask(NIGHT, "", settings, workspace) == 3

    found = traces()
    assert queues() == {"night 2025-07-01": [one.trace_id for one in found]}
    assert [one.request_preview for one in found] == [
        f"{place} of 3 · oxbow · oxbow-r{32 * (place - 1):05d}-c00000 · score {20 - (place - 1) / 10:.3g}"
        for place in (1, 2, 3)
    ]
    tags = {name: text for name, text in found[0].tags.items() if name.startswith("tilewatch.")}
    assert tags == {
        "tilewatch.watch": "meadow",
        "tilewatch.item": item_of("meadow", "oxbow/2025-07-01", "oxbow-r00000-c00000"),
        "tilewatch.night": "2025-07-01",
        "tilewatch.location": "oxbow",
        "tilewatch.scene_id": "oxbow/2025-07-01",
        "tilewatch.tile_id": "oxbow-r00000-c00000",
        "tilewatch.detector_version": "v3",
        "tilewatch.score": "20.0",
        "tilewatch.p_value": "0.001",
        "tilewatch.asked": "flag",
        "tilewatch.share": "1.0",
    }
    assert "data:image/jpeg;base64," in found[0].response_preview
    assert "](http" not in found[0].response_preview, "without a server there is nothing to link to"


def test_the_questions_of_the_form_are_made_once(settings: Settings, workspace: Workspace) -> None:
    keep_questions(workspace, make_question(0))
    ask(NIGHT, "", settings, workspace)
    other = NIGHT.replace(day=2)
    keep_questions(workspace, make_question(0, night=other))
    ask(other, "", settings, workspace)

    found = [one for one in label_schemas.list_label_schemas(experiment()) if not one.is_default]
    assert [one.name for one in found] == ["verdict", "kind of event", "severity", "comment"]
    assert found[0].input.options == ["anomaly", "false alarm", "cloud or shadow", "bad data"]
    assert {"flood", "bare soil", "other"} < set(found[1].input.options)
    assert (found[2].input.min_value, found[2].input.max_value) == (0, 10)
    for one in review_queues.list_review_queues(experiment_id=experiment()):
        assert set(one.schema_ids) == {schema.schema_id for schema in found}


def test_a_form_of_an_earlier_version_gets_the_choices_of_today(settings: Settings, workspace: Workspace) -> None:
    keep_questions(workspace, make_question(0))
    ask(NIGHT, "", settings, workspace)
    (kind,) = (one for one in label_schemas.list_label_schemas(experiment()) if one.name == "kind of event")
    label_schemas.update_label_schema(kind.schema_id, input=label_schemas.InputCategorical(["flood"]))

    ask(NIGHT, "", settings, workspace)

    (kind,) = (one for one in label_schemas.list_label_schemas(experiment()) if one.name == "kind of event")
    assert "bare soil" in kind.input.options


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        ("label_schemas", "create_label_schema", 2),
        ("review_queues", "create_review_queue", 0),
        ("TracingClient", "start_trace", 0),
        ("TracingClient", "start_trace", 2),
        ("TracingClient", "log_spans", 0),
        ("review_queues", "add_items_to_review_queue", 0),
    ],
)
def test_wherever_it_is_cut_off_the_next_try_asks_everything_once(
    settings: Settings, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, module: str, name: str, after: int
) -> None:
    keep_questions(workspace, *(make_question(number) for number in range(4)))
    done = 0
    real = getattr(getattr(queue, module), name)

    def killed(*arguments: Any, **values: Any) -> Any:
        nonlocal done
        if done == after:
            raise Killed
        done += 1
        return real(*arguments, **values)

    with monkeypatch.context() as patch:
        patch.setattr(getattr(queue, module), name, killed)
        with pytest.raises(Killed):
            ask(NIGHT, "", settings, workspace)

    ask(NIGHT, "", settings, workspace)

    assert len(traces()) == 4
    assert queues() == {"night 2025-07-01": [one.trace_id for one in traces()]}
    assert len([one for one in label_schemas.list_label_schemas(experiment()) if not one.is_default]) == 4
    spans = TracingClient().search_traces(locations=[experiment()], max_results=10)
    assert [len(one.data.spans) for one in spans] == [1] * 4, "MLflow's pages show no trace without a span"


def test_asking_again_changes_nothing_and_keeps_what_is_done(settings: Settings, workspace: Workspace) -> None:
    keep_questions(workspace, *(make_question(number) for number in range(3)))
    ask(NIGHT, "", settings, workspace)
    before = traces()
    (found,) = review_queues.list_review_queues(experiment_id=experiment())
    review_queues.set_review_queue_item_status(
        found.queue_id, item_id=before[0].trace_id, status="complete", completed_by="ana"
    )

    assert ask(NIGHT, "", settings, workspace) == 0

    assert [one.to_dict() for one in traces()] == [one.to_dict() for one in before]
    (done,) = review_queues.list_review_queue_items(found.queue_id, status="complete")
    assert done.completed_by == "ana"


def test_what_another_workspace_has_asked_is_not_asked_again(
    settings: Settings, workspace: Workspace, tmp_path: Any
) -> None:
    """As after a workspace was lost: its questions come in another order, and from another detector."""
    keep_questions(workspace, make_question(0), make_question(1))
    ask(NIGHT, "", settings, workspace)
    keep_questions(workspace, replace(make_question(1), detector_version="v4"), make_question(0), make_question(2))

    assert ask(NIGHT, "", settings, workspace) == 1

    assert sorted(one.tags["tilewatch.tile_id"] for one in traces()) == [
        make_question(number).tile_id for number in range(3)
    ]
    assert len(queues()["night 2025-07-01"]) == 3


def test_a_location_can_have_a_queue_whatever_its_name(
    with_settings: Callable[..., Settings], workspace: Workspace
) -> None:
    by_place = with_settings(queue="location")
    names = ["default", HOSTILE, "a" * 400, "a" * 401, "two\nlines"]
    keep_questions(workspace, *(make_question(number, location=name) for number, name in enumerate(names)))

    ask(NIGHT, "", by_place, workspace)

    found = queues()
    assert {"place default", f"place {HOSTILE}"} < set(found)
    assert [len(items) for items in found.values()] == [1] * 5


def test_a_hostile_name_stays_text_in_every_line(settings: Settings, workspace: Workspace) -> None:
    keep_questions(workspace, make_question(0, location=HOSTILE))

    ask(NIGHT, "", settings, workspace)

    (found,) = traces()
    for shown in (found.request_preview, found.response_preview):
        assert "<img" not in shown
        assert "](javascript" not in shown
    assert found.tags["tilewatch.location"] == HOSTILE


def test_reviewers_of_the_settings_are_assigned_also_when_they_come_later(
    with_settings: Callable[..., Settings], workspace: Workspace
) -> None:
    keep_questions(workspace, make_question(0))
    ask(NIGHT, "", with_settings(reviewers=["ana"]), workspace)

    ask(NIGHT, "", with_settings(reviewers=["Ana", "Béla"]), workspace)

    (found,) = review_queues.list_review_queues(experiment_id=experiment())
    assert sorted(found.users) == ["ana", "béla"]


def test_nothing_is_asked_and_mlflow_is_not_spoken_to_when_all_counts_are_zero(
    with_settings: Callable[..., Settings], workspace: Workspace
) -> None:
    keep_questions(workspace, make_question(0))
    (workspace.root / "mlflow.db").unlink()

    assert ask(NIGHT, "", with_settings(flags=0, sample=0, suppressed=0), workspace) == 0

    assert not (workspace.root / "mlflow.db").exists()


def test_a_night_that_asks_nothing_makes_no_experiment(settings: Settings, workspace: Workspace) -> None:
    mlflow.set_tracking_uri(workspace.mlflow_uri)

    assert ask(NIGHT, "", settings, workspace) == 0

    assert mlflow.get_experiment_by_name("meadow-review") is None


def test_an_experiment_that_was_deleted_is_there_again(settings: Settings, workspace: Workspace) -> None:
    keep_questions(workspace, make_question(0))
    ask(NIGHT, "", settings, workspace)
    mlflow.delete_experiment(experiment())

    ask(NIGHT, "", settings, workspace)

    assert len(traces()) == 1


def test_a_question_whose_picture_is_gone_is_asked_without(settings: Settings, workspace: Workspace) -> None:
    keep_questions(workspace, make_question(0))
    for path in (workspace.reports / "2025-07-01/questions").iterdir():
        path.unlink()

    ask(NIGHT, "", settings, workspace)

    assert "No pictures" in traces()[0].response_preview


def test_an_mlflow_without_queues_is_named_and_left_as_it_is(
    settings: Settings, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_questions(workspace, make_question(0))

    def old(*_: Any, **__: Any) -> None:
        raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(queue.label_schemas, "list_label_schemas", old)
    with pytest.raises(NoQueues, match=r"3\.14 or later"):
        ask(NIGHT, "", settings, workspace)

    assert traces() == []


def test_a_database_that_takes_no_long_preview_gets_short_ones(
    settings: Settings, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL keeps a thousand characters; a real one is asked in `test_review_queue.py`."""
    keep_questions(workspace, *(make_question(number) for number in range(3)))
    real = TracingClient.start_trace

    def strict(client: TracingClient, trace: Any) -> Any:
        if len(trace.response_preview) > 1000:
            raise MlflowException("value too long for type character varying(1000)", error_code=BAD_REQUEST)
        return real(client, trace)

    monkeypatch.setattr(TracingClient, "start_trace", strict)
    ask(NIGHT, "", settings, workspace)

    assert [one.response_preview.splitlines()[0] for one in traces()] == ["### oxbow · 2025-07-01"] * 3


@pytest.mark.parametrize("uri", ["watch.example", "ftp://watch.example", "javascript:alert(1)"])
def test_a_public_address_is_one_of_the_web(uri: str) -> None:
    with pytest.raises(SettingsError, match="is no address"):
        load_settings(None, [f"review.public_uri={uri}"])
    assert load_settings(None, ["review.public_uri=https://watch.example/m/"]).review.public_uri == (
        "https://watch.example/m"
    )

"""Review queues in MLflow: each question is a trace of the review experiment, and an item of a queue.

The id of a trace follows from what it asks, and MLflow merges what it is told of one trace twice. So a kill or an
outage half-way leaves nothing behind that is not made good by asking again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from urllib.parse import quote

import mlflow
from mlflow.entities import LifecycleStage, Span, TraceInfo, TraceLocation, TraceState
from mlflow.exceptions import MlflowException
from mlflow.genai import label_schemas, review_queues
from mlflow.genai.label_schemas import InputCategorical, InputNumeric, InputText, LabelSchema
from mlflow.genai.review_queues import ReviewQueue
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey

from configs import Settings, Workspace
from imagery.inject import KINDS
from tasks import tracking
from tasks.review.preview import headline, preview, short_preview
from tasks.review.questions import Question, read_questions
from tasks.review.verdicts import MEANS

log = logging.getLogger(__name__)

VERDICT, KIND, SEVERITY, COMMENT = "verdict", "kind of event", "severity", "comment"
ELSEWHERE = "patch"  # of another place: nothing that happens; MLflow takes ten choices
LONGEST_COMMENT = 2000
LONGEST_QUEUE = 200  # characters of its name
AT_ONCE = 4  # traces that are on their way to a server
NO_SUCH_ADDRESS = (404, 405, 501)
REFUSED = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INTERNAL_ERROR")


class NoQueues(RuntimeError):
    """This MLflow has no review queues."""


@dataclass(frozen=True)
class Form:
    """A question of the form.

    Attributes:
        name: Its title, and the name of the answers.
        answer: What can be answered.
        help: What is meant.
    """

    name: str
    answer: InputCategorical | InputNumeric | InputText
    help: str


def form() -> tuple[Form, ...]:
    """The questions, in the order in which they are asked."""
    kinds = [name.replace("_", " ") for name, kind in KINDS.items() if kind.event and name != ELSEWHERE]
    return (
        Form(VERDICT, InputCategorical(list(MEANS)), "What the pictures show. Bad data: nothing can be said."),
        Form(KIND, InputCategorical([*kinds, "other"]), "Of an anomaly: what it is. Of a false alarm: taken for what."),
        Form(SEVERITY, InputNumeric(0, 10), "Of an anomaly: 0 hardly matters, 10 somebody must act now."),
        Form(COMMENT, InputText(LONGEST_COMMENT), "Whatever the next reader should know."),
    )


def experiment_name(settings: Settings) -> str:
    """Where the reviews are."""
    return settings.review.experiment or f"{settings.name}-review"


def ask(night: date, run_id: str, settings: Settings, workspace: Workspace) -> int:
    """Put what a night asks into MLflow's review queues, unless it is there.

    Args:
        night: A night whose questions are kept: see `tasks.review.questions`.
        run_id: Its run, to which the questions link.
        settings: Name the queues and the address.
        workspace: Holds the questions.

    Returns:
        How many questions are new in MLflow.

    Raises:
        NoQueues: MLflow is too old for that.
        TrackingUnreachable: It does not answer. It raises other errors of its own when that happens half-way.
    """
    review = settings.review
    questions = read_questions(workspace, night) if review.flags or review.suppressed or review.sample else []
    if not questions:
        return 0
    home = tracking.connect(settings, workspace)
    experiment = _experiment(settings, workspace)
    known = _known(night, experiment, settings)
    by_queue = _by_queue(questions, settings)
    queues = _queues(list(by_queue), experiment, settings)  # first: an MLflow without any is left as it is
    traces = {
        one.item(settings.name): _trace(one, place, len(questions), experiment, settings)
        for place, one in enumerate(questions, start=1)
    }
    new = [one for one in questions if one.item(settings.name) not in known]
    _tell(
        [(one, traces[one.item(settings.name)]) for one in new],
        _Shown(home, run_id, settings, workspace),
    )
    traces |= {item: trace for item, trace in known.items() if item in traces}
    spans = [_span(traces[one.item(settings.name)], one) for one in questions]
    TracingClient().log_spans(experiment, spans)  # again for those that are known: a kill may have come before them
    for name, mine in by_queue.items():
        items = [traces[one.item(settings.name)].trace_id for one in mine]
        review_queues.add_items_to_review_queue(queues[name].queue_id, item_ids=items)
    return len(new)


def _queues(names: Sequence[str], experiment: str, settings: Settings) -> dict[str, ReviewQueue]:
    """The queues of some names, with the questions of the form.

    Raises:
        NoQueues: This MLflow knows of none.
    """
    try:
        known = {one.name: one for one in label_schemas.list_label_schemas(experiment)}
    except MlflowException as error:
        if error.get_http_status_code() in NO_SUCH_ADDRESS:  # the experiment is there
            raise NoQueues("MLflow has no review queues: update its server to 3.14 or later") from error
        raise
    # The form begins with the question that was made last.
    schemas = [_schema(one, known.get(one.name), experiment) for one in reversed(form())]
    return {name: _queue(name, schemas, experiment, settings) for name in names}


@dataclass(frozen=True)
class _Shown:
    """What reviewers see of questions, and where it lies.

    Attributes:
        home: Experiment of the night's run.
        run_id: The run.
        settings: Name the address.
        workspace: Holds the pictures.
    """

    home: str
    run_id: str
    settings: Settings
    workspace: Workspace

    @property
    def base(self) -> str:
        """Address of MLflow as reviewers see it; '' without a server."""
        uri = self.settings.review.public_uri or self.settings.tracking.uri or ""
        return uri.rstrip("/") if uri.startswith(("http://", "https://")) else ""

    def links(self) -> dict[str, str]:
        """Where the night is shown."""
        run = f"{self.base}/#/experiments/{quote(self.home)}/runs/{quote(self.run_id)}"
        return {"The night's report": f"{run}/artifacts/report.html", "Its run": run} if self.base else {}

    def whole(self, question: Question) -> str:
        """The preview with its picture inside."""
        path = self.workspace.root / question.picture
        jpeg = path.read_bytes() if question.picture and path.is_file() else None
        return preview(question, jpeg, self.links())

    def short(self, question: Question) -> str:
        """The preview for a database that takes no long one: its picture becomes an artifact of the night's run."""
        path, address = self.workspace.root / question.picture, ""
        if question.picture and path.is_file() and self.base:
            mlflow.MlflowClient().log_artifact(self.run_id, str(path), "questions")
            address = f"{self.base}/get-artifact?path=questions%2F{quote(path.name)}&run_uuid={quote(self.run_id)}"
        return short_preview(question, address, self.links())


def _tell(new: Sequence[tuple[Question, TraceInfo]], shown: _Shown) -> None:
    """Make the traces; the first one shows whether MLflow's database takes long previews. Only SQLite does."""
    if not new:
        return
    client = TracingClient()
    (question, trace), *others = new
    write = shown.whole
    try:
        trace.response_preview = write(question)
        client.start_trace(trace)
    except MlflowException as error:
        if error.error_code not in REFUSED:
            raise
        write = shown.short
        trace.response_preview = write(question)
        client.start_trace(trace)

    def tell(one: tuple[Question, TraceInfo]) -> None:
        one[1].response_preview = write(one[0])
        client.start_trace(one[1])

    with ThreadPoolExecutor(AT_ONCE if shown.settings.tracking.uri else 1) as pool:
        list(pool.map(tell, others))


def _trace(question: Question, place: int, of: int, experiment: str, settings: Settings) -> TraceInfo:
    """A question as MLflow keeps it. Items of a queue are listed by their ids, so these begin with the place."""
    item = question.item(settings.name)
    about: Mapping[str, object] = {
        "watch": settings.name,
        "item": item,
        "night": question.night,
        "location": question.location,
        "scene_id": question.scene_id,
        "tile_id": question.tile_id,
        "detector_version": question.detector_version,
        "score": repr(question.score),
        "p_value": "" if question.p_value is None else repr(question.p_value),
        "asked": question.asked,
        "share": repr(question.share),
    }
    return TraceInfo(
        trace_id=trace_id(item, place, experiment),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=int(time.time() * 1000),
        execution_duration=0,
        state=TraceState.OK,
        request_preview=headline(question, place, of),
        tags={f"tilewatch.{name}": str(value) for name, value in about.items()} | {"mlflow.traceName": question.asked},
    )


def trace_id(item: str, place: int, experiment: str) -> str:
    """The id of a trace: of a place in a night, an item, and an experiment, since ids are those of a whole server."""
    digest = hashlib.blake2b(f"{experiment}\0{item}".encode(), digest_size=14).hexdigest()
    return f"tr-{min(place, 0xFFFF):04x}{digest}"


def _span(trace: TraceInfo, question: Question) -> Span:
    """The one span of a trace: MLflow's pages show no trace without one."""
    about = asdict(question) | {"night": question.night.isoformat()}
    started = trace.request_time * 1_000_000
    content = {
        "trace_id": base64.b64encode(bytes.fromhex(trace.trace_id.removeprefix("tr-"))).decode(),
        "span_id": base64.b64encode(bytes.fromhex(trace.trace_id[-16:])).decode(),
        "parent_span_id": "",
        "name": question.asked,
        "start_time_unix_nano": started,
        "end_time_unix_nano": started,
        "status": {"code": "OK", "message": ""},
        "attributes": {
            SpanAttributeKey.REQUEST_ID: json.dumps(trace.trace_id),
            SpanAttributeKey.SPAN_TYPE: json.dumps("UNKNOWN"),
            SpanAttributeKey.INPUTS: json.dumps({name: about.pop(name) for name in ("night", "scene_id", "tile_id")}),
            SpanAttributeKey.OUTPUTS: json.dumps(about),
        },
        "events": [],
    }
    return Span.from_dict(content)


def _known(night: date, experiment: str, settings: Settings) -> dict[str, TraceInfo]:
    """The traces of a night that MLflow has, by item."""
    wanted = f"tags.`tilewatch.watch` = '{settings.name}' AND tags.`tilewatch.night` = '{night}'"
    client, token = TracingClient(), None
    found: dict[str, TraceInfo] = {}
    while True:
        page = client.search_traces(
            locations=[experiment], filter_string=wanted, max_results=100, page_token=token, include_spans=False
        )
        found |= {one.info.tags.get("tilewatch.item", ""): one.info for one in page}
        token = page.token
        if not token:
            return found


def _experiment(settings: Settings, workspace: Workspace) -> str:
    """The experiment of the reviews, made when it is missing, or there again when it was deleted."""
    name = experiment_name(settings)
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        embedded = settings.tracking.uri is None
        location = workspace.mlflow_artifacts.resolve().as_uri() if embedded else None
        return str(mlflow.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == LifecycleStage.DELETED:
        mlflow.MlflowClient().restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _schema(wanted: Form, found: LabelSchema | None, experiment: str) -> LabelSchema:
    """A question of the form, made once; its choices are those of today."""
    if found is None:
        return label_schemas.create_label_schema(
            wanted.name, type="feedback", input=wanted.answer, instruction=wanted.help, experiment_id=experiment
        )
    if found.schema_id and found.input != wanted.answer and type(found.input) is type(wanted.answer):
        return label_schemas.update_label_schema(found.schema_id, input=wanted.answer)
    return found


def _queue(name: str, schemas: Sequence[LabelSchema], experiment: str, settings: Settings) -> ReviewQueue:
    """A queue, made when it is missing, and open to all reviewers of the settings."""
    users = list(settings.review.reviewers)
    try:
        found = review_queues.get_review_queue(name=name, experiment_id=experiment)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        ids = [one.schema_id for one in schemas]
        return review_queues.create_review_queue(
            name, queue_type="custom", users=users, schema_ids=ids, experiment_id=experiment
        )
    missing = [one for one in users if one.strip().lower() not in found.users]
    if missing:
        return review_queues.update_review_queue(found.queue_id, users=[*found.users, *missing])
    return found


def _by_queue(questions: Sequence[Question], settings: Settings) -> dict[str, list[Question]]:
    """The questions of a night by the name of their queue."""
    found: dict[str, list[Question]] = {}
    for one in questions:
        name = f"night {one.night}" if settings.review.queue == "night" else _place(one.location)
        found.setdefault(name, []).append(one)
    return found


def _place(location: str) -> str:
    """The name of a location's queue; a long one ends in a digest of the whole."""
    shown = " ".join(location.encode("utf-8", "replace").decode().split())
    if len(shown) <= LONGEST_QUEUE and shown == location:
        return f"place {shown}"
    return f"place {shown[:LONGEST_QUEUE]} {hashlib.sha256(location.encode('utf-8', 'replace')).hexdigest()[:8]}"

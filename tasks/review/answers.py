"""What reviewers have answered in MLflow, brought into the table of verdicts."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import mlflow
from mlflow.entities import Feedback, TraceInfo
from mlflow.entities.assessment_source import AssessmentSourceType
from mlflow.tracing.client import TracingClient

from configs import Settings, Workspace
from imagery.sources.scene import place_and_day
from tasks import tracking
from tasks.exclusive import exclusive
from tasks.review.questions import item_of
from tasks.review.queue import COMMENT, KIND, SEVERITY, VERDICT, experiment_name
from tasks.review.verdicts import MEANS, Verdict, read_all, write_verdicts

log = logging.getLogger(__name__)

PAGE = 100  # traces at once: each brings the pictures that were shown
MOST_SEVERE = 10


class Malformed(ValueError):
    """An answer, or a trace, that is not as the queue has made it."""


@dataclass(frozen=True)
class Collected:
    """What a sync has found.

    Attributes:
        new: Verdicts that were not known, by verdict.
        changed: Verdicts that were known and are others now, by what they are now.
        withdrawn: How many were taken back.
        verdicts: How many tiles have a verdict now.
        skipped: Answers that cannot be understood, and why.
    """

    new: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    withdrawn: int = 0
    verdicts: int = 0
    skipped: tuple[str, ...] = ()


def collect(settings: Settings, workspace: Workspace, everything: bool = False) -> Collected:
    """Bring the answers of MLflow's review queues into the table of verdicts.

    The newest verdict of a trace counts, with the other answers of the same reviewer. One that was taken back is taken
    out of the table; what was entered there by hand stays, and so does what was said of traces that are deleted since.

    Args:
        settings: Name the experiment, and how far back to look.
        workspace: Holds the table.
        everything: Look at all that was ever asked.

    Raises:
        TrackingUnreachable: MLflow does not answer. It raises other errors of its own when that happens half-way.
        VerdictError: The table cannot be understood.
    """
    with exclusive(workspace, "review"):
        return _collect(settings, workspace, everything)


def _collect(settings: Settings, workspace: Workspace, everything: bool) -> Collected:
    rows = read_all(workspace)
    tracking.connect(settings, workspace)
    experiment = mlflow.get_experiment_by_name(experiment_name(settings))
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return Collected(verdicts=len({(one.scene_id, one.tile_id) for one in rows}))
    since = None if everything else datetime.now(UTC) - timedelta(days=settings.review.days)
    of_watch = f"tags.`tilewatch.watch` = '{settings.name}'"
    asked = "" if since is None else f" AND trace.timestamp_ms > {int(since.timestamp() * 1000)}"
    answered = f"{of_watch}{asked} AND feedback.`{VERDICT}` IS NOT NULL"
    traces = {one.trace_id: one for one in _traces(str(experiment.experiment_id), answered)}
    known = {one.trace_id: one for one in rows if one.trace_id}
    missing = [
        trace_id
        for trace_id, one in known.items()
        if trace_id not in traces and (since is None or (one.reviewed_at or since) >= since)
    ]
    for first in range(0, len(missing), PAGE):
        named = ", ".join(f"'{trace_id}'" for trace_id in missing[first : first + PAGE])
        found = _traces(str(experiment.experiment_id), f"trace.request_id IN ({named})")
        traces |= {one.trace_id: one for one in found}
    said, skipped = _said(traces.values(), settings)
    return _merged(rows, said, set(traces), skipped, workspace)


def _merged(
    rows: list[Verdict], said: Mapping[str, Verdict], seen: set[str], skipped: list[str], workspace: Workspace
) -> Collected:
    """Write the table when anything has changed.

    Args:
        rows: Of the table.
        said: What is said now, by trace.
        seen: Traces that were looked at; what is in the table of others stays.
        skipped: What was not understood.
        workspace: Holds the table.
    """
    known = {one.trace_id: one for one in rows if one.trace_id}
    kept = [one for one in rows if one.trace_id not in seen]
    now = sorted([*kept, *said.values()], key=lambda one: (one.scene_id, one.tile_id, one.trace_id))
    before = sorted(rows, key=lambda one: (one.scene_id, one.tile_id, one.trace_id))
    if now != before:
        write_verdicts(now, workspace)
    changed = [one for trace, one in said.items() if trace in known and known[trace] != one]
    return Collected(
        new=dict(Counter(one.verdict for trace, one in sorted(said.items()) if trace not in known)),
        changed=dict(Counter(one.verdict for one in changed)),
        withdrawn=len([trace for trace in known if trace in seen and trace not in said]),
        verdicts=len({(one.scene_id, one.tile_id) for one in now}),
        skipped=tuple(skipped),
    )


def _traces(experiment: str, wanted: str) -> Iterator[TraceInfo]:
    """All traces of an experiment that fit a filter."""
    client, token = TracingClient(), None
    while True:
        page = client.search_traces(
            locations=[experiment], filter_string=wanted, max_results=PAGE, page_token=token, include_spans=False
        )
        yield from (one.info for one in page)
        token = page.token
        if not token:
            return


def _said(traces: Iterable[TraceInfo], settings: Settings) -> tuple[dict[str, Verdict], list[str]]:
    """The verdicts on some traces, by trace, and what was not understood."""
    said: dict[str, Verdict] = {}
    skipped: list[str] = []
    for trace in sorted(traces, key=lambda one: one.trace_id):
        try:
            verdict = _verdict(trace, settings, skipped)
        except ValueError as error:
            skipped.append(f"{trace.trace_id}: {error}")
            continue
        if verdict is not None:
            said[trace.trace_id] = verdict
    for words in skipped:
        log.warning("an answer of the review is left out: %s", words)
    return said, skipped


def _verdict(trace: TraceInfo, settings: Settings, skipped: list[str]) -> Verdict | None:
    """What was said last of a trace by a person; None when nothing was, or all of it taken back.

    Raises:
        Malformed: The trace, or the verdict, is not as the queue has made it.
    """
    answers = [one for one in trace.assessments if isinstance(one, Feedback) and _by_person(one)]
    verdicts = _newest_first(answers, VERDICT)
    if not verdicts:
        return None
    about = {name.removeprefix("tilewatch."): text for name, text in trace.tags.items()}
    scene_id, tile_id = about.get("scene_id", ""), about.get("tile_id", "")
    if about.get("item") != item_of(settings.name, scene_id, tile_id):
        raise Malformed("its tags were changed, so it is not known which tile is meant")
    place_and_day(scene_id)
    latest = verdicts[0]
    value = latest.value
    if not isinstance(value, str) or value not in MEANS:
        raise Malformed(f"the verdict {value!r} is none of {', '.join(MEANS)}")
    mine = [one for one in answers if one.source.source_id == latest.source.source_id]
    comment = _text(mine, COMMENT) or (latest.rationale or "")
    try:
        severity = _severity(mine)
    except Malformed as error:
        skipped.append(f"{trace.trace_id}: {error}")
        severity = None
    return Verdict(
        scene_id=scene_id,
        tile_id=tile_id,
        verdict=value,
        reviewed_at=datetime.fromtimestamp(_time(latest) / 1000, UTC),
        reviewer=latest.source.source_id or "",
        kind=_text(mine, KIND),
        severity=severity,
        comment=comment,
        asked=about.get("asked", "flag"),
        share=_share(about.get("share", "")),
        detector_version=about.get("detector_version", ""),
        score=_number(about.get("score", "")),
        p_value=_number(about.get("p_value", "")),
        trace_id=trace.trace_id,
    )


def _by_person(one: Feedback) -> bool:
    return one.source.source_type == AssessmentSourceType.HUMAN and one.valid is not False and one.error is None


def _time(one: Feedback) -> int:
    return int(one.last_update_time_ms or one.create_time_ms or 0)


def _newest_first(answers: Iterable[Feedback], name: str) -> list[Feedback]:
    mine = [one for one in answers if one.name == name]
    return sorted(mine, key=lambda one: (_time(one), one.assessment_id or ""), reverse=True)


def _text(answers: Iterable[Feedback], name: str) -> str:
    found = _newest_first(answers, name)
    return "" if not found or found[0].value is None else str(found[0].value)


def _severity(answers: Iterable[Feedback]) -> float | None:
    found = _newest_first(answers, SEVERITY)
    value: Any = found[0].value if found else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_SEVERE:
        raise Malformed(f"the severity {value!r} is no number from 0 to {MOST_SEVERE}, so the verdict is without one")
    return float(value)


def _share(text: str) -> float:
    share = _number(text)
    if share is None or not 0 < share <= 1:
        raise Malformed(f"its share {text!r} is no number above 0 and up to 1")
    return share


def _number(text: str) -> float | None:
    number = float(text) if text else None
    return None if number is None or not math.isfinite(number) else number

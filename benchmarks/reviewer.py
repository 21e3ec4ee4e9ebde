"""A scripted reviewer, who knows the truth and errs now and then, and gives feedback in MLflow as people do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import mlflow
from mlflow.entities import AssessmentSource

from benchmarks.restless import LASTS, Happening
from configs import Settings, Workspace
from imagery.simulate.noise import stream
from tasks import tracking
from tasks.review.queue import KIND, VERDICT, experiment_name


@dataclass
class Reviewer:
    """Somebody who knows what there is to see, errs now and then, and does not confirm the same event twice.

    Attributes:
        happened: What the tiles show, by place, night and tile.
        mistakes: Share of the answers that are wrong.
        seed: Decides which.
        confirmed: Tiles with the last night on which they were called an anomaly.
    """

    happened: dict[tuple[str, date, str], Happening]
    mistakes: float
    seed: int
    confirmed: dict[str, date] = field(default_factory=dict)

    @classmethod
    def of(cls, happened: Sequence[Happening], mistakes: float, seed: int) -> Reviewer:
        """Who knows all that happened."""
        return cls({(one.location, one.night, one.tile_id): one for one in happened}, mistakes, seed)

    def answer(self, location: str, night: date, tile_id: str) -> tuple[str, str] | None:
        """The verdict and the kind of event, '' for none; None when nothing is said."""
        seen = self.happened.get((location, night, tile_id))
        event = seen.event if seen else ""
        if stream(self.seed, "mistake", location, night, tile_id).random() < self.mistakes:
            verdict, kind = ("false alarm", "") if event else ("anomaly", "other")
        else:
            verdict, kind = ("anomaly", event.replace("_", " ")) if event else ("false alarm", "")
        if verdict == "anomaly":
            if 0 < (night - self.confirmed.get(tile_id, date.min)).days < LASTS:
                return None
            self.confirmed[tile_id] = night
        return verdict, kind


def give_feedback(day: date, reviewer: Reviewer, settings: Settings, workspace: Workspace) -> None:
    """Answer the questions of a night, as the form of a review queue does."""
    tracking.connect(settings, workspace)
    experiment = mlflow.get_experiment_by_name(experiment_name(settings))
    if experiment is None:
        return
    asked = f"tags.`tilewatch.night` = '{day}'"
    traces = mlflow.search_traces(
        locations=[experiment.experiment_id], filter_string=asked, include_spans=False, return_type="list"
    )
    human = AssessmentSource(source_type="HUMAN", source_id="scripted")
    for trace in traces:
        answer = reviewer.answer(trace.info.tags["tilewatch.location"], day, trace.info.tags["tilewatch.tile_id"])
        if answer is None:
            continue
        verdict, kind = answer
        if kind:
            mlflow.log_feedback(trace_id=trace.info.trace_id, name=KIND, value=kind, source=human)
        mlflow.log_feedback(trace_id=trace.info.trace_id, name=VERDICT, value=verdict, source=human)

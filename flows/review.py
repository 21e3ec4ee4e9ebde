"""Review: bring in what people have said of the tiles that they were asked about, and say what is waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from configs import Settings, Workspace
from flows.parameters import Watch
from tasks import pending
from tasks.artifacts import table_artifact
from tasks.review.answers import Collected, collect
from tasks.review.questions import questioned_nights, read_questions
from tasks.review.verdicts import MEANS, Verdict, read_verdicts


class ReviewRequest(BaseModel):
    """How far back to look."""

    model_config = ConfigDict(extra="forbid")

    everything: bool = Field(
        False, description="Look at all that was ever asked, not only at that of the last days (review.days)."
    )


@dataclass(frozen=True)
class Waiting:
    """What a night has asked.

    Attributes:
        night: The night.
        asked: Tiles that people were asked about.
        answered: Those of them that have a verdict.
        in_mlflow: Whether MLflow has the questions; if not, the next nightly run asks again.
    """

    night: date
    asked: int
    answered: int
    in_mlflow: bool


@dataclass(frozen=True)
class Reviews:
    """The verdicts, and what is waiting for one.

    Attributes:
        verdicts: The latest of each tile and scene, the newest first.
        waiting: The nights that have asked something that nobody has answered, the newest first.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def by_verdict(self) -> Mapping[str, int]:
        """How many there are of each."""
        counted = Counter(one.verdict for one in self.verdicts)
        return {verdict: counted[verdict] for verdict in MEANS if counted[verdict]}


@flow(name="review", flow_run_name="review", persist_result=False)
def review(watch: Watch, request: ReviewRequest | None = None) -> Collected:
    """Read the answers of MLflow's review queues into the verdicts; the nightly run begins with the same.

    Args:
        watch: Configuration and workspace.
        request: How far back to look.
    """
    settings, workspace = watch.open()
    found = synced(settings, workspace, request or ReviewRequest())
    rows = [{"verdict": one, "new": found.new.get(one, 0), "changed": found.changed.get(one, 0)} for one in MEANS]
    table_artifact("review", rows, f"{found.verdicts} tiles have a verdict; {found.withdrawn} were withdrawn")
    return found


def synced(settings: Settings, workspace: Workspace, request: ReviewRequest) -> Collected:
    """The same without Prefect, for the command line."""
    return collect(settings, workspace, request.everything)


def reviews(watch: Watch) -> Reviews:
    """The verdicts as the workspace has them, and what is waiting."""
    _, workspace = watch.open()
    verdicts = read_verdicts(workspace)
    said = {(one.scene_id, one.tile_id) for one in verdicts}
    untold = {entry.night.record.night for entry in pending.entries(workspace)}
    waiting = []
    for night in reversed(questioned_nights(workspace)):
        keys = [(one.scene_id, one.tile_id) for one in read_questions(workspace, night)]
        answered = sum(key in said for key in keys)
        if answered < len(keys):
            waiting.append(Waiting(night, len(keys), answered, night not in untold))
    newest = sorted(verdicts, key=lambda one: (str(one.reviewed_at or ""), one.scene_id, one.tile_id), reverse=True)
    return Reviews(newest, waiting)

"""Prune: delete what the settings no longer want kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.parameters import Watch
from flows.progress import progress
from tasks.artifacts import table_artifact
from tasks.exclusive import exclusive
from tasks.prune import Removal, carry_out, plan


class PruneRequest(BaseModel):
    """What to do with what is no longer wanted."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(False, description="Only list what would be deleted.")
    today: date | None = Field(None, description="Days are counted back from this date; by default today, UTC.")


@dataclass(frozen=True)
class PruneSummary:
    """What was deleted, or would be, by date."""

    dry_run: bool
    removals: list[Removal]

    @property
    def by_kind(self) -> dict[str, tuple[int, int]]:
        """How many of each kind, and their bytes."""
        kinds = sorted({one.kind for one in self.removals})
        sizes = {kind: [one.size for one in self.removals if one.kind == kind] for kind in kinds}
        return {kind: (len(found), sum(found)) for kind, found in sizes.items()}


@flow(name="prune", flow_run_name="prune", persist_result=False)
def prune(watch: Watch, request: PruneRequest | None = None) -> PruneSummary:
    """Delete what is kept longer than the settings say; waits for a night or a training that is at work.

    Args:
        watch: Configuration and workspace.
        request: Whether to look only.
    """
    request = request or PruneRequest()
    settings, workspace = watch.open()
    today = request.today or datetime.now(UTC).date()
    if request.dry_run:
        summary = PruneSummary(True, plan(settings, workspace, today))
    else:
        with exclusive(workspace, "nightly"), exclusive(workspace, "train"):
            planned = plan(settings, workspace, today)
            with progress("prune", len(planned)) as counter:
                done = carry_out(planned, settings, workspace, lambda removal: counter.step(removal.what))
        summary = PruneSummary(False, done)
    rows = [{"what": kind, "count": count, "bytes": size} for kind, (count, size) in summary.by_kind.items()]
    table_artifact("prune", rows, "What would be deleted" if request.dry_run else "What was deleted")
    return summary

"""Ingest: enter new and changed scenes in the catalog."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date

from prefect import flow

from configs import Settings, Workspace
from flows.parameters import Watch
from flows.progress import progress
from tasks import steps
from tasks.disk import told
from tasks.exclusive import exclusive
from tasks.ingest import plan_ingest, settle_grids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest did. `quarantined` holds the reason of each scene that was set aside now."""

    ingested: int
    unchanged: int
    quarantined: dict[str, str]
    quarantined_before: int
    skipped: dict[str, str]
    tiles: int


@flow(name="ingest", flow_run_name="ingest", persist_result=False)
def ingest(watch: Watch, until: date | None = None, retry_quarantined: bool = False) -> IngestSummary:
    """Enter new and changed scenes in the catalog.

    Args:
        watch: Configuration and workspace.
        until: Leave out scenes acquired after this date.
        retry_quarantined: Try quarantined scenes again although nothing changed.
    """
    settings, workspace = watch.open()
    return ingest_new(settings, workspace, until, retry_quarantined)


def ingest_new(
    settings: Settings, workspace: Workspace, until: date | None, retry_quarantined: bool = False
) -> IngestSummary:
    """The same, within another flow. What another run is entering is waited for, and then known."""
    with told(workspace), exclusive(workspace, "ingest"):
        return _ingest_new(settings, workspace, until, retry_quarantined)


def _ingest_new(settings: Settings, workspace: Workspace, until: date | None, retry_quarantined: bool) -> IngestSummary:
    plan = plan_ingest(settings, workspace, until, retry_quarantined)
    for path, reason in plan.skipped:
        log.warning("left out %s: %s", path, reason)
    settle_grids(plan.scenes, settings, workspace)
    parameters = [{"scene": scene, "settings": settings, "workspace": workspace} for scene in plan.scenes]
    results = []
    if parameters:
        with progress("ingest", len(parameters)) as counter:
            results = steps.for_each(
                steps.ingest_scene,
                parameters,
                settings,
                lambda one, failure: steps.set_aside("ingest", one["scene"], failure, settings, workspace),
                lambda done: counter.step(done.scene_id),
            )
    return IngestSummary(
        ingested=sum(result.reason is None for result in results),
        unchanged=plan.unchanged,
        quarantined={result.scene_id: result.reason for result in results if result.reason is not None},
        quarantined_before=plan.quarantined,
        skipped=dict(plan.skipped),
        tiles=sum(result.tiles for result in results),
    )

"""Latents: the champion's posterior means of every tile, as Parquet."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from prefect import flow

from flows.parameters import NightRequest, Watch
from flows.progress import progress
from imagery.catalog import SceneRecord
from tasks import registry, steps
from tasks.calibrate import observe_scenes
from tasks.score import check_fit, has_latents, latents_file, write_latents
from tasks.train import usable_scenes


@dataclass(frozen=True)
class LatentsSummary:
    """Where the latents are."""

    detector_version: str
    folder: str
    scenes: int
    written: int


@flow(name="latents", flow_run_name="latents", persist_result=False)
def latents(watch: Watch, request: NightRequest | None = None) -> LatentsSummary:
    """Write the latents of all scenes of the catalog that have none yet.

    Args:
        watch: Configuration and workspace.
        request: Dates to consider, and whether to write those again that exist.
    """
    request = request or NightRequest()
    settings, workspace = watch.open()
    steps.limit_threads(settings)
    folder, version = registry.champion(settings, workspace)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    scenes = [record for record in usable_scenes(settings, workspace) if record.day in request.period]
    todo = [
        record
        for record in scenes
        if request.force or not has_latents(latents_file(workspace, version, record), record)
    ]

    def keep(record: SceneRecord, rows: list[pd.DataFrame]) -> None:
        write_latents(latents_file(workspace, version, record), rows, record)

    if todo:
        with progress("latents", len(todo)) as counter:
            observe_scenes(detector, tuple(todo), settings, workspace, counter.at, latents=keep)
    return LatentsSummary(version, str(workspace.latents / version), len(scenes), len(todo))

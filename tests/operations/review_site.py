"""A watch with a night of flags, reported to an MLflow server of its own and asked about there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import yaml
from mlflow.genai import review_queues
from mlflow.tracing.client import TracingClient

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.outputs import write_flags
from imagery.simulate import Event, Location, Plan, simulate
from tasks.calibrate import calibrate_detector
from tasks.drift import Drift
from tasks.evidence import Scored, illustrate, pairs, read_scores
from tasks.nights import Night, NightRecord, write_night
from tasks.reference import usual_of
from tasks.report import ranked, write_report
from tasks.review.asking import choose
from tasks.review.heeding import heed
from tasks.review.questions import write_questions
from tasks.review.queue import experiment_name
from tasks.score import score_scene
from tasks.tracked_night import log_night, night_log
from tasks.train import train_detector
from tasks.validate import Validation
from tests.places import ingested
from tests.servers import answers, end_family, free_port
from vae.detector import Detector

HOSTILE = "<img src=x onerror=alert(1)>|`b` [x](javascript:alert(1)) **"
DATES = tuple(date(2025, 3, 4) + timedelta(days=6 * number) for number in range(12))
TRAIN_END, CALIBRATE_END, NIGHT = DATES[5], DATES[9], DATES[11]


@dataclass(frozen=True)
class Site:
    """A server, and a watch with a night that has asked."""

    url: str
    config: Path
    settings: Settings
    workspace: Workspace
    run_id: str

    @property
    def experiment(self) -> str:
        return str(mlflow.get_experiment_by_name(experiment_name(self.settings)).experiment_id)

    @property
    def queue(self) -> str:
        """The id of the one queue."""
        found = review_queues.list_review_queues(experiment_id=self.experiment)
        return next(one.queue_id for one in found if one.name == f"night {NIGHT}")

    def items(self) -> dict[str, str]:
        """The ids of the traces by tile, in the order of the queue."""
        ids = [one.item_id for one in review_queues.list_review_queue_items(self.queue)]
        found = TracingClient().search_traces(locations=[self.experiment], include_spans=False)
        tiles = {one.info.trace_id: one.info.tags["tilewatch.tile_id"] for one in found}
        return {tiles[one]: one for one in ids}


@contextmanager
def mlflow_server(folder: Path, *more: str, **environment: str) -> Iterator[str]:
    """A server as `tilewatch up` starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri(), "--uvicorn-opts", "--log-level warning"]
    if "MLFLOW_BACKEND_STORE_URI" not in environment:
        command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    with (folder / "mlflow.log").open("w") as log:
        started = psutil.Popen([*command, *more], env=os.environ | environment, cwd=folder, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 180
        while not answers(port):
            assert started.poll() is None, (folder / "mlflow.log").read_text()
            assert time.monotonic() < end, (folder / "mlflow.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_family(started)


def write_watch(folder: Path, uri: str) -> Path:
    """Two places at a river, one with a hostile name, and what happens there on the last two dates."""
    places = (
        Location("oxbow", "river", 32634, 463_200, 5_218_600, 192),
        Location(HOSTILE, "river", 32634, 563_200, 5_218_600, 64),
    )
    events = (
        Event("flood", "oxbow", DATES[-2], DATES[-1], radius=36),
        Event("burn", "oxbow", DATES[-2], DATES[-1], radius=16),
        Event("new_buildings", "oxbow", DATES[-2], DATES[-1], radius=12),
        Event("flood", HOSTILE, DATES[-2], DATES[-1], radius=24),
    )
    clear = tuple((place.name, day) for place in places for day in DATES)
    simulate(folder / "scenes", Plan(3, places, DATES, TRAIN_END, CALIBRATE_END, events, (), clear))
    values = {
        "name": "meadow",
        "source": {"root": "scenes", "bands": ["B02", "B03", "B04", "B08"]},
        "masks": {"class_band": "SCL"},
        "grid": {"tile_size": 32},
        "reference": {"scenes": 4, "seasonal": 0},
        "model": {"members": 0},
        "score": {"name": "aligned_difference", "without_past": "rx", "also": []},
        "split": {"train": {"end": TRAIN_END}, "calibrate": {"start": DATES[6], "end": CALIBRATE_END}},
        "calibration": {"min_tiles": 50, "false_alarm_rate": 0.05},
        "compute": {"threads": 1},
        "tracking": {"uri": uri},
    }
    config = folder / "meadow.yaml"
    config.write_text(yaml.safe_dump(values))
    return config


def report_night(settings: Settings, workspace: Workspace) -> str:
    """A night as the flow reports it, without Prefect; gives its run."""
    return reported(*scored_night(settings, workspace), settings, workspace)


def scored_night(settings: Settings, workspace: Workspace) -> tuple[Detector, list[SceneRecord], list[Scored]]:
    """Train, and score the scenes of the night."""
    records = ingested(settings, workspace)
    trained = train_detector(settings, workspace)
    detector = calibrate_detector(trained.detector, trained.split, settings, workspace).detector
    scenes = [one for one in records if one.day == NIGHT]
    usual = {one.scene_id: usual_of(one, settings, workspace) for one in scenes}
    for one in scenes:
        score_scene(one, detector, "v1", settings, workspace, usual[one.scene_id])
    known = {scene_id: one for scene_id, one in usual.items() if one}
    return detector, scenes, heed(read_scores(scenes, known, "v1", workspace), detector, settings, workspace)


def reported(
    detector: Detector, scenes: list[SceneRecord], scored: list[Scored], settings: Settings, workspace: Workspace
) -> str:
    """Write the page and the questions, and log the night."""
    asked = choose(scored, settings, workspace)
    shown = illustrate(scored, {*pairs(ranked(scored)), *pairs(asked)}, detector, settings, workspace)
    drift = Drift(None, ("too few dates",))
    night = Night(NIGHT, tuple(scenes), ())
    report = write_report(night, [], scored, shown, asked, drift, [], [], detector, "v1", settings, workspace)
    write_questions(NIGHT, asked, scored, shown, detector.bands, "v1", workspace)
    return logged(scored, scenes, report, settings, workspace)


def logged(
    scored: list[Scored], scenes: list[SceneRecord], report: Path, settings: Settings, workspace: Workspace
) -> str:
    """Log a reported night."""
    together = pd.concat([one.scores for one in scored], ignore_index=True)
    grids = {one.location: Catalog(workspace).grid(one.location) for one in scenes}
    flags = write_flags(report.parent, together, {place: grid for place, grid in grids.items() if grid})
    record = NightRecord(
        NIGHT, "v1", "c0ffee", {one.scene_id: one.fingerprint for one in scenes}, (), {}, len(together),
        int(together["score"].notna().sum()), int(together["flagged"].sum()), None, (), None,
        report=report.relative_to(workspace.root).as_posix(),
    )  # fmt: skip
    files = [report, flags.flags]
    night = night_log(record, together, scenes, files, Validation((), {}), settings, workspace)
    run_id = log_night(night, settings, workspace)
    write_night(workspace, replace(record, run_id=run_id))
    return run_id

"""Demo: three simulated places over eighteen months, from the first scene to a retrain after drift."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow

import configs
from configs import Workspace
from configs.workspace import write_text
from flows.nightly import NightlySummary, nightly
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.progress import console, progress
from flows.train import TrainSummary, train
from imagery.simulate import Plan, Truth, demo_plan, simulate
from tasks.evaluate import Detection, detection
from tasks.nights import NightRecord

POSITIVE_FRACTION = 0.1  # a tile shows an event when more of it than this changed; with less, nothing is said of it


@dataclass(frozen=True)
class DemoSummary:
    """What `summary.json` holds: the story of the demo in numbers. Rates are shares, dates are nights."""

    nights: int
    tiles_scored: int
    flags: int
    precision: float | None
    recall: float | None
    auroc: float | None
    false_alarm_rate: float | None
    nominal_false_alarm_rate: float
    quarantined: dict[str, str]
    events: int
    events_found: int
    drift_started: date | None
    drift_noticed: date | None
    retrained: date | None
    periods: dict[str, Detection]
    kinds: dict[str, str]
    report: str
    seconds: float
    peak_memory_gb: float


@flow(name="demo", flow_run_name="demo", persist_result=False)
def demo(watch: Watch, seed: int = 7) -> DemoSummary:
    """Simulate, train, watch twenty nights, notice the drift, retrain, and compare with the truth.

    Args:
        watch: Workspace and settings that differ; the configuration is the demo's own.
        seed: Another seed gives another landscape.
    """
    started = time.monotonic()
    workspace = Workspace(Path(watch.workspace))
    plan = demo_plan(seed)
    scenes = workspace.root / "scenes"
    console.print(f"[bold]1[/] simulate {len(plan.locations)} places, {len(plan.dates)} dates")
    with progress("simulate", len(list(plan.scenes()))) as counter:
        truth = simulate(scenes, plan, lambda path: counter.step(path.parent.name))
    watch = _watch(watch, plan, scenes)
    settings, _ = watch.open()
    console.print(f"[bold]2[/] train on the first year, calibrate on the weeks until {plan.calibrate_end}")
    train(watch, TrainRequest(reason="first training"))
    console.print(f"[bold]3[/] watch {len(plan.nights)} nights, one after another")
    nights, trainings = _watch_nights(watch, plan.nights)
    console.print("[bold]4[/] compare with the truth")
    scores = _labelled_scores(nights, truth, workspace)
    summary = _summarise(nights, trainings, scores, plan, settings.calibration.false_alarm_rate, workspace, started)
    write_text(workspace.root / "summary.json", json.dumps(asdict(summary), default=str, indent=1, ensure_ascii=False))
    return summary


def _watch(watch: Watch, plan: Plan, scenes: Path) -> Watch:
    """The demo's configuration with the plan's dates; settings of the user come last."""
    train_end, calibrate_end = plan.train_end, plan.calibrate_end
    first_calibration = min(day for day in plan.dates if day > train_end)
    overrides = [
        f"source.root={json.dumps(str(scenes.resolve()))}",
        f"split.train={{end: {train_end}}}",
        f"split.calibrate={{start: {first_calibration}, end: {calibrate_end}}}",
        *watch.overrides,
    ]
    preset = Path(configs.__file__).parent / "demo.yaml"
    return Watch(config=watch.config or str(preset), workspace=watch.workspace, overrides=overrides)


def _watch_nights(watch: Watch, nights: Sequence[date]) -> tuple[list[NightRecord], dict[date, TrainSummary]]:
    """Run each night as the scheduler would: knowing no scene of a later one."""
    records, trainings = [], {}
    for night in nights:
        done: NightlySummary = nightly(watch, NightRequest(night=night))
        records += done.nights
        for training in done.trainings:
            if training.promoted:
                trainings[night] = training
    return records, trainings


def _labelled_scores(nights: Sequence[NightRecord], truth: Truth, workspace: Workspace) -> pd.DataFrame:
    """The scores of all nights with the truth beside each: `positive` is 1, 0, or NaN where a tile hardly changed."""
    tables = []
    for record in nights:
        for scene_id in record.scenes:
            location, acquired = scene_id.split("/")[:2]
            path = workspace.scores / record.detector_version / location / f"{acquired}.parquet"
            table = pd.read_parquet(
                path, columns=["tile_id", "row_off", "col_off", "height", "width", "score", "flagged"]
            )
            found = [
                truth.event_fraction(location, record.night, row.row_off, row.col_off, row.height, row.width)
                for row in table.itertuples()
            ]
            fraction = np.array([share for share, _ in found])
            table["positive"] = np.where(fraction > POSITIVE_FRACTION, 1.0, np.where(fraction > 0, np.nan, 0.0))
            table["kind"] = [kind or "" for _, kind in found]
            tables.append(table.assign(night=record.night, location=location))
    return pd.concat(tables, ignore_index=True)


def _summarise(
    nights: Sequence[NightRecord],
    trainings: dict[date, TrainSummary],
    scores: pd.DataFrame,
    plan: Plan,
    nominal: float,
    workspace: Workspace,
    started: float,
) -> DemoSummary:
    noticed = [record for record in nights if record.drift_began is not None]
    retrained = min(trainings) if trainings else None
    all_nights = _detection(scores)
    periods = {name: _detection(scores[rows]) for name, rows in _periods(scores["night"], plan, retrained).items()}
    shown = scores[(scores["positive"] == 1) & scores["score"].notna()]
    kinds = {str(kind): f"{int(tiles['flagged'].sum())} of {len(tiles)} tiles" for kind, tiles in shown.groupby("kind")}
    seen = shown.assign(event=shown["location"] + " " + shown["kind"]).groupby("event")["flagged"].any()
    most = max(nights, key=lambda record: (record.flags, record.night))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return DemoSummary(
        nights=len(nights),
        tiles_scored=sum(record.scored for record in nights),
        flags=sum(record.flags for record in nights),
        precision=all_nights.precision,
        recall=all_nights.recall,
        auroc=all_nights.auroc,
        false_alarm_rate=all_nights.false_alarm_rate,
        nominal_false_alarm_rate=nominal,
        quarantined={scene: reason for record in nights for scene, reason in record.quarantined.items()},
        events=len(seen),
        events_found=int(seen.sum()),
        drift_started=plan.gain_from,
        drift_noticed=noticed[0].night if noticed else None,
        retrained=retrained,
        periods=periods,
        kinds=kinds,
        report=str(workspace.root / most.report),
        seconds=round(time.monotonic() - started, 1),
        peak_memory_gb=round(peak / 1e6, 2),
    )


def _detection(scores: pd.DataFrame) -> Detection:
    return detection(scores["score"], scores["flagged"], scores["positive"])


def _periods(night: pd.Series, plan: Plan, retrained: date | None) -> dict[str, Any]:
    """Rows of each chapter of the story."""
    if plan.gain_from is None:
        return {"all nights": night == night}
    if retrained is None:
        return {"before the drift": night < plan.gain_from, "under drift": night >= plan.gain_from}
    return {
        "before the drift": night < plan.gain_from,
        "under drift": (night >= plan.gain_from) & (night <= retrained),
        "after retraining": night > retrained,
    }

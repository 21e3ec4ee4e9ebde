"""Drift: compare finished nights with training again, e.g. after its settings were changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import mlflow
import pandas as pd
from prefect import flow

from configs import Settings, Workspace
from flows.parameters import NightRequest, Watch
from tasks import registry, steps, tracking
from tasks.artifacts import table_artifact
from tasks.drift import Drift, judge_night
from tasks.drift_figures import drift_history
from tasks.nights import NightRecord, read_nights
from tasks.train import usable_scenes


@dataclass(frozen=True)
class NightDrift:
    """The verdict on one night.

    Attributes:
        night: The night.
        alarmed: Whether its statistics alarm; None without a verdict.
        began: First night of the drift that lasts until this one; None when there is none.
        reasons: Why they alarm, or why there is no verdict.
        statistics: How far it lies from training.
        limits: What each statistic may be.
        effects: How far what is judged has moved, in standard deviations of training; negative is lower.
    """

    night: date
    alarmed: bool | None
    began: date | None
    reasons: tuple[str, ...]
    statistics: dict[str, float]
    limits: dict[str, float] = field(default_factory=dict)
    effects: dict[str, float] = field(default_factory=dict)


@flow(name="drift", flow_run_name="drift", persist_result=False)
def drift(watch: Watch, request: NightRequest | None = None) -> list[NightDrift]:
    """Judge the champion's finished nights with the settings as they are now; nothing that was reported is changed.

    Args:
        watch: Configuration and workspace.
        request: Which nights; by default all.
    """
    request = request or NightRequest()
    settings, workspace = watch.open()
    folder, version = registry.champion(settings, workspace)
    detector = steps.load_detector(folder)
    scenes = usable_scenes(settings, workspace)
    past: list[NightRecord] = []
    judged: list[NightDrift] = []
    for night in read_nights(workspace, version):
        found = judge_night(night.night, scenes, detector, version, past, settings, workspace)
        past.append(replace(night, alarmed=found.alarmed, drift_began=found.began, statistics=dict(found.statistics)))
        if night.night in request.period:
            judged.append(_told(night.night, found))
    rows = [{"night": str(one.night), "alarmed": one.alarmed, "reason": "; ".join(one.reasons)} for one in judged]
    table_artifact("drift", rows, f"Drift of the nights of {version}")
    _log(judged, [night for night in past if night.night in request.period], version, settings, workspace)
    return judged


def _told(night: date, found: Drift) -> NightDrift:
    effects = {name: effect.size for name, effect in found.effects.items()}
    return NightDrift(
        night, found.alarmed, found.began, found.reasons, dict(found.statistics), dict(found.limits), effects
    )


def _log(
    judged: Sequence[NightDrift], nights: Sequence[NightRecord], version: str, settings: Settings, workspace: Workspace
) -> None:
    """One MLflow run: the history as a picture, and every statistic with its limit and its effect size as a table."""
    rows = [row for one in judged for row in _rows(one)]
    with tracking.run(settings, workspace, "drift", f"drift of {version}", {"detector_version": version}):
        tracking.log_finite({"nights": len(judged), "alarms": sum(bool(one.alarmed) for one in judged)}, step=0)
        if rows:
            mlflow.log_table(pd.DataFrame(rows), "drift.json")
            mlflow.log_figure(drift_history(nights, judged[-1].limits), "figures/drift.png")


def _rows(one: NightDrift) -> list[Mapping[str, object]]:
    return [
        {
            "night": str(one.night),
            "statistic": name,
            "value": value,
            "limit": one.limits[name],
            "effect_size": one.effects.get(name),
        }
        for name, value in one.statistics.items()
    ]

"""Drift: compare finished nights with training again, e.g. after its settings were changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from prefect import flow

from flows.parameters import NightRequest, Watch
from tasks import registry, steps
from tasks.artifacts import table_artifact
from tasks.drift import judge_night
from tasks.nights import NightRecord, read_nights
from tasks.train import usable_scenes


@dataclass(frozen=True)
class NightDrift:
    """The verdict on one night."""

    night: date
    alarmed: bool | None
    began: date | None
    reasons: tuple[str, ...]
    statistics: dict[str, float]


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
    judged = []
    for night in read_nights(workspace, version):
        found = judge_night(night.night, scenes, detector, version, past, settings, workspace)
        past.append(night.judged_again(found.alarmed))
        if night.night in request.period:
            judged.append(NightDrift(night.night, found.alarmed, found.began, found.reasons, dict(found.statistics)))
    rows = [{"night": str(one.night), "alarmed": one.alarmed, "reason": "; ".join(one.reasons)} for one in judged]
    table_artifact("drift", rows, f"Drift of the nights of {version}")
    return judged

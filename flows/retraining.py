"""What a nightly run does about a lasting drift: train, or ask for a training."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from configs import Settings, SettingsError, Workspace
from flows.parameters import TrainRequest, Watch
from flows.train import TrainSummary, train
from tasks.dataset import NothingToTrain
from tasks.events import NobodyListens
from tasks.nights import read_nights
from tasks.retraining import ask, due, failed
from tasks.tracking import TrackingUnreachable
from vae.errors import VaeError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What came of a drift in this run: trainings, and by night why one failed. Mostly nothing."""

    trainings: list[TrainSummary] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def answer_drift(watch: Watch, version: str, settings: Settings, workspace: Workspace) -> Answer:
    """Look at a detector's finished nights, and do what their drift asks for, once.

    Nothing but what lies in the workspace decides, so a run that was killed between a night and its answer is made up
    for by the next.

    Args:
        watch: Configuration and workspace.
        version: The detector.
        settings: `drift`.
        workspace: The finished nights, and what became of earlier drifts.
    """
    wanted = None if settings.drift.retrain == "never" else due(read_nights(workspace, version), settings, workspace)
    if wanted is None:
        return Answer()
    if settings.drift.retrain == "event":
        try:
            ask(wanted, settings, workspace)
        except NobodyListens as error:
            log.warning("no training could be asked for, the next run tries again: %s", error)
        return Answer()
    try:
        made = train(watch, TrainRequest(**wanted.request))
    except (NothingToTrain, SettingsError, VaeError, TrackingUnreachable) as error:
        log.warning("retraining after %s failed, %s goes on: %s", wanted.night, version, error)
        failed(wanted, workspace)
        return Answer(failures={str(wanted.night): str(error)})
    return Answer([made] if made else [])

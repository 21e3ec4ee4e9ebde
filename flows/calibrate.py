"""Calibrate: set the champion's threshold anew, on other dates or at another false-alarm rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from configs import Period, Settings, SettingsError, Workspace
from flows.parameters import Watch
from flows.progress import progress
from flows.train import log_score_histograms, what_it_would_miss
from tasks import registry, steps, tracking
from tasks.calibrate import observe_scenes, with_calibrations
from tasks.dataset import NothingToTrain
from tasks.disk import told
from tasks.exclusive import exclusive
from tasks.moves import CHAMPION
from tasks.score import check_fit
from tasks.suspects import is_suspect, suspects
from tasks.train import usable_scenes
from vae.calibration import Basis


class CalibrateRequest(BaseModel):
    """On which dates, and how many false alarms. What is left empty is taken from the settings."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=500, description="Why; kept with the model.")
    start: date | None = Field(None, description="First date to calibrate on.")
    end: date | None = Field(None, description="Last date to calibrate on.")
    false_alarm_rate: float | None = Field(None, gt=0, lt=1, description="Share of normal tiles that may be flagged.")


@dataclass(frozen=True)
class CalibrateSummary:
    """What a calibration gave."""

    detector_version: str
    run_id: str
    calibration_id: str
    basis: str
    tiles: int
    dates: int
    false_alarm_rate: float
    threshold: float
    threshold_before: float | None


@flow(name="calibrate", flow_run_name="calibrate", persist_result=False)
def calibrate(watch: Watch, request: CalibrateRequest | None = None) -> CalibrateSummary:
    """Calibrate the champion again; the result is a new version with the same network.

    Dates the network was trained on are left out, unless nothing else is there and the settings allow it.

    Args:
        watch: Configuration and workspace.
        request: Dates and rate.
    """
    request = request or CalibrateRequest()
    settings, workspace = watch.open()
    steps.limit_threads(settings)
    with told(workspace), exclusive(workspace, "train"):
        return _calibrate(request, settings, workspace)


def _calibrate(request: CalibrateRequest, settings: Settings, workspace: Workspace) -> CalibrateSummary:
    """The calibration itself, by the only one in the workspace who makes a detector."""
    period = settings.split.calibrate or Period()
    if request.start or request.end:
        period = Period(start=request.start, end=request.end)
    folder, _ = registry.champion(settings, workspace)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    learned = {date.fromisoformat(day) for day in detector.metadata["training_dates"]}
    stopped = {date.fromisoformat(day) for day in detector.metadata["validation_dates"]}
    inside = [record for record in usable_scenes(settings, workspace) if record.day in period]
    held_out = tuple(record for record in inside if record.day not in learned | stopped)
    seen = tuple(record for record in inside if record.day in stopped)
    basis: Basis = "held_out" if held_out else "validation"
    scenes = held_out or seen
    if not scenes and settings.split.allow_training_dates:
        scenes, basis = tuple(inside), "training"
    if not scenes:
        raise NothingToTrain(
            f"no scene from {period.start or 'the beginning'} to {period.end or 'today'} was held out from training: "
            "choose other dates, or set split.allow_training_dates=true and treat the p-values as optimistic"
        )
    if request.false_alarm_rate is not None:
        try:
            changed = settings.calibration.model_dump() | {"false_alarm_rate": request.false_alarm_rate}
            settings = settings.model_copy(update={"calibration": type(settings.calibration)(**changed)})
        except ValueError as error:
            raise SettingsError(str(error)) from None
    tracking.end_killed(settings, workspace, "calibrate")
    with tracking.run(settings, workspace, "calibrate", "calibrate", {"reason": request.reason}) as run:
        with progress("calibrate", len(scenes)) as counter:
            uncalibrated = replace(detector, calibrations={})
            scores, _ = observe_scenes(uncalibrated, scenes, settings, workspace, counter.at)
            scores = scores[~is_suspect(scores, suspects(scenes, settings, workspace))]
        made = with_calibrations(detector, scores, None, settings, basis, places=detector)
        calibration = made.detector.required_calibration
        metadata = {**detector.metadata, "calibration_dates": list(calibration.dates), "misses": []}
        calibrated = what_it_would_miss(replace(made.detector, metadata=metadata), scenes, settings, workspace)
        log_score_histograms(replace(made, detector=calibrated))
        tracking.log_finite({"threshold": calibration.threshold, "calibration_tiles": calibration.tiles}, step=0)
        version = registry.register(calibrated, settings, request.reason or "calibrated again", CHAMPION)
        run_id = str(run.info.run_id)
    return CalibrateSummary(
        detector_version=version,
        run_id=run_id,
        calibration_id=calibrated.calibration_id,
        basis=calibration.basis,
        tiles=calibration.tiles,
        dates=len(calibration.dates),
        false_alarm_rate=calibration.false_alarm_rate,
        threshold=calibration.threshold,
        threshold_before=detector.calibration.threshold if detector.calibration else None,
    )

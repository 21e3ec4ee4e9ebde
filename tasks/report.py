"""Report: the page of a night, from its score files, the pixels of its flagged tiles and what people have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pandas as pd

from configs import Settings, Workspace
from configs.workspace import write_text
from imagery.catalog import SceneRecord
from tasks import pages, views
from tasks.drift import Drift
from tasks.evidence import Illustrations, Scored
from tasks.flag_views import HISTORY_NIGHTS, place_views, ranked, suppressed_views
from tasks.nights import Night, NightRecord, night_folder
from tasks.reference import Usual
from tasks.review.counting import Missed, Precision, missed, precision, recent, wrongly_suppressed
from tasks.review.verdicts import known_verdicts
from tasks.validate import Check, Validation
from vae.detector import Detector
from vae.drift import REPORTED_ONLY

REVIEWED_DAYS = 30
WEEK = 7  # nights

__all__ = ["check_views", "ranked", "validation_page", "write_report"]


def write_report(
    night: Night,
    unknown: Sequence[SceneRecord],
    scored: Sequence[Scored],
    shown: Illustrations,
    asked: pd.DataFrame,
    drift: Drift,
    past: Sequence[NightRecord],
    checks: Sequence[Check],
    detector: Detector,
    detector_version: str,
    settings: Settings,
    workspace: Workspace,
) -> Path:
    """Write the page of a night.

    Args:
        night: The night.
        unknown: Scenes of locations the detector was never trained on.
        scored: Its scored scenes, in the light of the verdicts: see `tasks.review.heeding`.
        shown: Pictures of the tiles that are shown.
        asked: The tiles that people are asked about: see `tasks.review.asking`.
        drift: The verdict on the night.
        past: Earlier nights of the same detector.
        checks: The checks of its scenes; may be empty when they were checked on another day.
        detector: The detector that scored.
        detector_version: Its version.
        settings: How many flags get pictures, and in which bands.
        workspace: Where the page is kept.

    Returns:
        The HTML file.
    """
    calibration = detector.required_calibration
    kinds = asked["asked"].value_counts()
    view = views.NightView(
        name=settings.name,
        night=night.night.isoformat(),
        detector_version=detector_version,
        calibration_id=calibration.calibration_id,
        basis=calibration.basis,
        nominal_rate=calibration.false_alarm_rate,
        tiles=sum(len(scene.scores) for scene in scored),
        scored=sum(int(scene.scores["score"].notna().sum()) for scene in scored),
        flagged=len(ranked(scored)),
        places=place_views(scored, shown, detector, detector_version, night.night, workspace),
        suppressed=suppressed_views(scored),
        asked=views.AskedView(**{name: int(kinds.get(name, 0)) for name in ("flag", "suppressed", "sample")}),
        before=_before(past),
        reviewed=_reviewed_view(night.night, workspace),
        scenes=_scene_views(night, unknown, scored),
        quarantined=[views.QuarantineView(bad.scene_id, bad.step, bad.reason) for bad in night.quarantined],
        drift=_drift_view(drift, past, night.night),
        checks=check_views(checks),
        maps=shown.maps,
        details=_details(detector),
        created=night.night.isoformat(),
    )
    path = night_folder(workspace, night.night) / "report.html"
    write_text(path, pages.render_night(view))
    return path


def validation_page(validation: Validation, settings: Settings, when: str) -> str:
    """The page of all checks of a run."""
    return pages.render_validation(views.ValidationView(settings.name, when, check_views(validation.checks), when))


def check_views(checks: Sequence[Check]) -> list[views.CheckView]:
    """Checks as the pages show them."""
    return [
        views.CheckView(
            scene=check.scene_id,
            check=check.check,
            column=check.column,
            severity=check.severity,  # type: ignore[arg-type]
            observed="–" if check.observed is None else f"{check.observed:.4g}",
            expected=check.expected,
            passed=check.passed,
        )
        for check in checks
    ]


def _scene_views(night: Night, unknown: Sequence[SceneRecord], scored: Sequence[Scored]) -> list[views.SceneView]:
    found = []
    for scene in scored:
        numbers = scene.scores["score"].dropna()
        whole = next(iter(scene.nights.values()), None)
        found.append(
            views.SceneView(
                location=scene.record.location,
                acquired=scene.record.acquired.isoformat(),
                tiles=len(scene.scores),
                scored=len(numbers),
                flags=int(scene.scores["flagged"].sum()),
                level=whole.level if whole else None,
                cloud_fraction=scene.record.cloud_fraction,
                status="scored" if len(numbers) else "too cloudy",
                reason="; ".join(level.note for level in scene.nights.values() if level.note),
                usual=_usual_words(scene.usual),
                alarm="; ".join(level.alarm for level in scene.nights.values() if level.alarm),
            )
        )
    for record in unknown:
        reason = "no scene of this location was in the training dates: train again to include it"
        found.append(
            views.SceneView(
                location=record.location,
                acquired=record.acquired.isoformat(),
                tiles=record.tiles,
                scored=0,
                flags=0,
                level=None,
                cloud_fraction=record.cloud_fraction,
                status="not trained",
                reason=reason,
            )
        )
    for bad in night.quarantined:
        found.append(views.SceneView(bad.location, bad.acquired, 0, 0, 0, None, None, "quarantined", bad.reason))
    return found


def _usual_words(usual: Usual | None) -> str:
    """How a scene lies to its reference."""
    if usual is None:
        return "not compared: no earlier clear scene that can be read"
    registration, alignment = usual.alignment.registration, usual.alignment.alignment
    rows, cols = registration.correction
    if registration.reason:
        moved = f"shift unknown: {registration.reason}"
    elif rows or cols:
        moved = f"moved {rows:+.1f} px down, {cols:+.1f} px right"
    else:
        moved = "lies where it should"
    gains = f"gain {alignment.gain.min():.2f} to {alignment.gain.max():.2f}"
    light = f"not aligned: {alignment.reason}" if alignment.reason else gains
    count, expectation = len(usual.reference.members), usual.expectation
    if expectation.reason:
        expected = f"looked at alone: {expectation.reason}"
    elif expectation.confirms and expectation.witness:
        expected = f"confirmed by {expectation.witness.scene_id}"
    else:
        expected = "not confirmed by an earlier scene"
    return f"{count} {'scene' if count == 1 else 'scenes'}; {moved}; {light}; {expected}"


def _before(past: Sequence[NightRecord]) -> views.LastNights | None:
    """What the week of nights before brought."""
    week = past[-WEEK:]
    if not week:
        return None
    mean = sum(record.flags for record in week) / len(week)
    return views.LastNights(len(week), week[0].night.isoformat(), mean)


def _reviewed_view(night: date, workspace: Workspace) -> views.ReviewedView | None:
    """What people have said of the nights until this one."""
    verdicts = recent(known_verdicts(workspace), night, REVIEWED_DAYS)
    if not verdicts:
        return None
    overall = precision(verdicts)
    return views.ReviewedView(
        days=REVIEWED_DAYS,
        overall=_reviewed_row(overall[0]) if overall else None,
        locations=[_reviewed_row(one) for one in precision(verdicts, "location")],
        missed=_estimate(missed(verdicts)),
        wrongly_suppressed=_estimate(wrongly_suppressed(verdicts)),
    )


def _reviewed_row(found: Precision) -> views.ReviewedRow:
    return views.ReviewedRow(**asdict(found))


def _estimate(found: Missed | None) -> views.EstimateView | None:
    return None if found is None else views.EstimateView(**asdict(found))


def _drift_view(drift: Drift, past: Sequence[NightRecord], night: date) -> views.DriftView:
    if drift.alarmed is None:
        return views.DriftView("not enough clear tiles", drift.reasons)
    rows = [views.DriftRow(name, value, drift.limits[name]) for name, value in drift.statistics.items()]
    judged = {name: limit for name, limit in drift.limits.items() if not name.startswith(REPORTED_ONLY)}
    nights = [*((record.night, record.statistics) for record in past[-HISTORY_NIGHTS:]), (night, drift.statistics)]
    history = [
        (day.isoformat(), max(values[name] / limit for name, limit in judged.items() if name in values))
        for day, values in nights
        if values
    ]
    return views.DriftView("drift" if drift.began else "no drift", drift.reasons, rows, history)


def _details(detector: Detector) -> dict[str, str]:
    about = detector.metadata
    calibration = detector.required_calibration
    dates = about["training_dates"]
    return {
        "score": f"{calibration.score}, {detector.score_settings.pool} over the valid pixels of a tile"
        + ", as a multiple of what is usual there on that night",
        "bands": ", ".join(detector.bands),
        "trained on": f"{about['training_tiles']} tiles of {len(dates)} dates, {dates[0]} to {dates[-1]}",
        "calibrated on": f"{calibration.tiles} tiles of {len(calibration.dates)} dates",
        **({"misses": "; ".join(about["misses"])} if about.get("misses") else {}),
        "tile": f"{detector.tile_size} × {detector.tile_size} pixels",
    }

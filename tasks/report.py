"""Report: the page of a night, from its score files and the pixels of its flagged tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import geopandas as gpd
import pandas as pd

from configs import Settings, Workspace
from configs.workspace import safe_name, write_text
from imagery.catalog import SceneRecord
from imagery.outputs import empty_scores
from tasks import pages, views
from tasks.drift import Drift
from tasks.evidence import Illustrations, Scored
from tasks.nights import Night, NightRecord, night_folder
from tasks.reference import Usual
from tasks.validate import Check, Validation
from vae.detector import Detector
from vae.drift import REPORTED_ONLY

HISTORY_NIGHTS = 30


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
    flags = ranked(scored)
    history = _history(flags, night.night, detector_version, workspace)
    by_scene = {scene.record.scene_id: scene for scene in scored}
    flag_views = [
        _flag_view(
            row, by_scene[row["scene_id"]], detector, shown.tiles.get((row["scene_id"], row["tile_id"]), {}), history
        )
        for _, row in flags.iterrows()
    ]
    view = views.NightView(
        name=settings.name,
        night=night.night.isoformat(),
        detector_version=detector_version,
        calibration_id=calibration.calibration_id,
        basis=calibration.basis,
        nominal_rate=calibration.false_alarm_rate,
        tiles=sum(len(scene.scores) for scene in scored),
        scored=sum(int(scene.scores["score"].notna().sum()) for scene in scored),
        flagged=len(flags),
        flags=flag_views,
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


def ranked(scored: Sequence[Scored]) -> gpd.GeoDataFrame:
    """All flags of the night, the least likely first."""
    flags = [scene.scores[scene.scores["flagged"]] for scene in scored]
    if not flags:
        return empty_scores()
    together = pd.concat(flags, ignore_index=True)
    return together.sort_values(["p_value", "score"], ascending=[True, False], kind="stable", ignore_index=True)


def _shares(row: pd.Series, columns: Mapping[str, str]) -> dict[str, float]:
    """Shares that were worked out with the score, by name; those that are not known are left out."""
    found = {name: row[column] for name, column in columns.items() if column in row.index}
    return {name: float(value) for name, value in found.items() if pd.notna(value)}


def _judged_words(row: pd.Series, detector: Detector) -> str:
    """What a reader should know of how a tile was judged."""
    if row["basis"] == "in_scene":
        return "judged by the other tiles of its scene alone: the p-value is not calibrated"
    if row["kind"] != detector.required_calibration.score:
        return f"looked at alone, by {row['kind']}: its past does not show it"
    return ""


def _flag_view(
    row: pd.Series,
    scene: Scored,
    detector: Detector,
    images: Mapping[str, str],
    history: dict[str, list[tuple[str, float]]],
) -> views.FlagView:
    centre = row["geometry"].centroid
    return views.FlagView(
        tile_id=row["tile_id"],
        location=row["location"],
        acquired=row["acquired"].isoformat(),
        score=row["score"],
        p_value=row["p_value"],
        threshold=row["threshold"],
        latitude=centre.y,
        longitude=centre.x,
        valid_fraction=row["valid_fraction"],
        pictures=images,
        band_errors=_shares(row, {band: f"off_{number}" for number, band in enumerate(detector.bands)}),
        parts=_shares(
            row, {str(name).removeprefix("part_"): str(name) for name in row.index if str(name).startswith("part_")}
        ),
        judged=_judged_words(row, detector),
        history=[*history.get(row["tile_id"], []), (row["acquired"].date().isoformat(), row["score"])],
        heatmap_file=scene.heatmap.name,
        window=_window(row, scene),
    )


def _window(row: pd.Series, scene: Scored) -> tuple[float, float, float, float]:
    """Left, top, width and height of a tile as shares of its location."""
    tiles = scene.scores
    width, height = (tiles["col_off"] + tiles["width"]).max(), (tiles["row_off"] + tiles["height"]).max()
    return row["col_off"] / width, row["row_off"] / height, row["width"] / width, row["height"] / height


def _history(
    flags: gpd.GeoDataFrame, night: date, detector_version: str, workspace: Workspace
) -> dict[str, list[tuple[str, float]]]:
    """Earlier scores of the flagged tiles by the same detector, oldest first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for location, mine in flags.groupby("location"):
        folder = workspace.scores / safe_name(detector_version) / safe_name(str(location))
        earlier = sorted(path for path in folder.glob("[!.]*.parquet") if path.name < night.isoformat())
        for path in earlier[-HISTORY_NIGHTS:]:
            wanted = [("tile_id", "in", set(mine["tile_id"]))]
            table = pd.read_parquet(path, columns=["tile_id", "acquired", "score"], filters=wanted).dropna()
            for tile_id, acquired, score in table.itertuples(index=False):
                found.setdefault(tile_id, []).append((acquired.date().isoformat(), score))
    return found


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

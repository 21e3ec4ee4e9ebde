"""Calibrate: look at all scenes of a split once, and learn what is usual at each place and which scores are rare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from tasks.dataset import Split
from tasks.observe import observe, opened
from tasks.reference import usual_of
from tasks.score import latent_rows
from tasks.suspects import is_suspect, suspects
from vae.calibration import Basis
from vae.detector import Detector
from vae.drift_profile import Profile
from vae.errors import CalibrationError

log = logging.getLogger(__name__)


def observe_scenes(
    detector: Detector,
    scenes: Sequence[SceneRecord],
    settings: Settings,
    workspace: Workspace,
    on_scene: Callable[[int, int], None] | None = None,
    latents: Callable[[SceneRecord, list[pd.DataFrame]], None] | None = None,
) -> tuple[pd.DataFrame, Profile]:
    """Look at every tile of some scenes once, without a threshold.

    Args:
        detector: The detector; need not be calibrated.
        scenes: From the catalog.
        settings: How they are read.
        workspace: Where they are catalogued.
        on_scene: Called with (scenes done, scenes in all).
        latents: Called with each scene's latents, row of tiles by row of tiles.

    Returns:
        One row a tile with `scene_id, day, tile_id, compared` (whether `score.name` judges it) and a column a score,
        raw, NaN for tiles without; and what drift is measured against.
    """
    frames, profile = [], Profile()
    name = detector.score_settings.name
    for done, record in enumerate(scenes, start=1):
        rows = []
        usual = usual_of(record, settings, workspace) if detector.looks_back else None
        with opened(record, detector, usual, settings, workspace) as scene:
            for batch, scores in observe(detector, scene, settings.grid.stride):
                places = [tile.tile_id(record.location) for tile in batch.tiles]
                frame = {"scene_id": record.scene_id, "day": record.day, "tile_id": places}
                frames.append(pd.DataFrame(frame | {"compared": scores.kind == name} | scores.components))
                counts = detector.histograms(batch.values, batch.valid, scores)
                profile = profile.add(record.location, record.day, counts)
                if latents:
                    rows.append(latent_rows(batch, scores, record))
        if latents:
            latents(record, rows)
        if on_scene:
            on_scene(done, len(scenes))
    return pd.concat(frames, ignore_index=True), profile


@dataclass(frozen=True)
class Calibrated:
    """A detector that is ready to score, and the raw scores that it was calibrated on, by score."""

    detector: Detector
    scores: dict[str, pd.Series]


def calibrate_detector(
    detector: Detector,
    split: Split,
    settings: Settings,
    workspace: Workspace,
    on_scene: Callable[[int, int], None] | None = None,
    latents: Callable[[SceneRecord, list[pd.DataFrame]], None] | None = None,
) -> Calibrated:
    """Learn from the scenes of a split what is usual at each place, what drift is measured against, and the threshold.

    The usual score of a place comes from dates that do not calibrate, so that calibration treats its own tiles as it
    will those of tonight.

    Raises:
        CalibrationError: Too few tiles or dates for the rate asked for.
    """
    calibrating = split.calibration_scenes
    flagged = suspects(split.scenes, settings, workspace)
    others = tuple(record for record in split.scenes if split.basis == "training" or record not in calibrating)
    total = len(others) + len(calibrating)

    def on_later_scene(done: int, _: int) -> None:
        if on_scene:
            on_scene(len(others) + done, total)

    usual, profile = observe_scenes(
        detector, others, settings, workspace, lambda done, _: on_scene(done, total) if on_scene else None, latents
    )
    usual = usual[~is_suspect(usual, flagged)]
    scores, calibration_profile = observe_scenes(detector, calibrating, settings, workspace, on_later_scene, latents)
    if split.basis != "training":
        profile = profile.merge(calibration_profile)
    scores = scores[~is_suspect(scores, flagged)]
    made = with_calibrations(detector, scores, usual, settings, split.basis)
    return Calibrated(replace(made.detector, profile=profile), made.scores)


def with_calibrations(
    detector: Detector,
    scores: pd.DataFrame,
    usual: pd.DataFrame | None,
    settings: Settings,
    basis: Basis,
    places: Detector | None = None,
) -> Calibrated:
    """Calibrate the score for tiles with a past and that for tiles without one.

    Args:
        detector: The detector.
        scores: Of normal tiles, from `observe_scenes`.
        usual: Of other dates, that say what is usual at each place; None takes all places to be alike.
        settings: How.
        basis: Where the dates of `scores` come from.
        places: A calibrated detector that knows what is usual at each place, in place of `usual`.

    Raises:
        CalibrationError: Too few tiles or dates for the rate asked for; of tiles with a past alone, that is a warning,
            and all tiles are judged as if they had none.
    """
    name, alone = detector.score_settings.name, detector.score_settings.without_past
    found = replace(detector, calibrations={})
    used = {}
    for one in dict.fromkeys((alone, name)):
        rows = scores[scores["compared"]] if one == name else scores
        others = None
        if usual is not None and settings.score.relative_to_place:
            seen = usual[usual["compared"]] if one == name else usual
            if seen[one].notna().any():
                others = seen[one].to_numpy(), seen["scene_id"].tolist(), seen["tile_id"].tolist()
        known = places.calibrations.get(one) if places else None
        labels = rows["day"].tolist(), rows["scene_id"].tolist(), rows["tile_id"].tolist()
        try:
            found = found.with_calibration(
                one, rows[one].to_numpy(), *labels, settings.calibration, basis, others, known.levels if known else None
            )
        except CalibrationError as error:
            if one == alone:
                raise
            log.warning("%s is not used, all tiles are judged by %s: %s", name, alone, error)
            continue
        used[one] = rows[one]
    return Calibrated(found, used)

"""Train: fit the network to the training dates, look at all scenes of the split once, and calibrate."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import Settings, SettingsError, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.normalise import band_limits
from imagery.statistics import BandStats
from tasks.dataset import Split, gathered, split_scenes
from tasks.ingest import open_scene, reading_key
from tasks.score import latent_rows, observe
from tasks.suspects import is_suspect, suspects
from vae.calibration import fewest_tiles
from vae.detector import Detector
from vae.drift import Profile
from vae.errors import CalibrationError, ScoreError
from vae.normalisation import Normalisation
from vae.scores import find
from vae.tiles import TileArrays
from vae.training import EpochMetrics, Fitted, fit

log = logging.getLogger(__name__)

PACKAGES = ("tilewatch", "torch", "numpy", "rasterio")


@dataclass(frozen=True)
class Sample:
    """A few tiles to look at: (N, C, H, W) physical values, (N, H, W) masks, and what the network expects."""

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    expected: NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """A fitted network in its bundle, not yet calibrated."""

    detector: Detector
    fitted: Fitted
    split: Split
    sample: Sample


def training_stats(scenes: tuple[SceneRecord, ...], bands: tuple[str, ...]) -> dict[str, BandStats]:
    """Statistics of each band over some scenes."""
    merged = {band: BandStats() for band in bands}
    for record in scenes:  # one by one: a scene's statistics are read when they are asked for, and are large
        merged = {band: merged[band].merge(record.stats[band]) for band in bands}
    return merged


def check_request(settings: Settings, split: Split, workspace: Workspace) -> None:
    """Refuse, before any work, a training whose result could not be used.

    Raises:
        SettingsError: A score that does not exist.
        CalibrationError: Too few tiles to calibrate on.
    """
    try:
        find(settings.score.name)
    except ScoreError as error:
        raise SettingsError(f"score.name = {settings.score.name!r}: {error}") from None
    catalog = Catalog(workspace)
    tiles = sum(
        int((catalog.tiles(record)["valid_fraction"] >= settings.score.min_valid).sum())
        for record in split.calibration_scenes
    )
    needed = max(settings.calibration.min_tiles, fewest_tiles(settings.calibration.false_alarm_rate))
    if tiles < needed:
        raise CalibrationError(
            f"{tiles} tiles of the calibration dates can be scored, {needed} are needed for "
            f"calibration.false_alarm_rate={settings.calibration.false_alarm_rate:g} and "
            f"calibration.min_tiles={settings.calibration.min_tiles}: add calibration dates, or change these settings"
        )


def train_detector(
    settings: Settings,
    workspace: Workspace,
    reason: str = "",
    on_scene: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> Trained:
    """Fit a network to the training dates of the catalog.

    Interrupted work goes on from its last epoch when it is started again with the same settings and scenes.

    Raises:
        NothingToTrain: No usable scene or tile in the training period.
        Diverged: The loss became infinite or NaN.
    """
    split = split_scenes(settings, trainable_scenes(settings, workspace))
    stats = training_stats(split.train, settings.source.bands)
    limits = band_limits(stats, settings.normalise)
    normalisation = Normalisation.from_limits(limits, log=settings.normalise.log, clip=settings.normalise.clip)
    data = data_fingerprint(split)
    checkpoint = workspace.models / "checkpoints" / f"{data[:16]}.safetensors"
    with gathered(split.train, settings, workspace, settings.train.max_tiles, on_scene) as tiles:
        held_out_limit = max(1, settings.train.max_tiles // 4)
        if split.validation:
            with gathered(split.validation, settings, workspace, held_out_limit) as held_out:
                fitted = _fit(tiles, held_out, normalisation, settings, checkpoint, on_epoch)
        else:
            fitted = _fit(tiles, None, normalisation, settings, checkpoint, on_epoch)
        pick = np.linspace(0, len(tiles) - 1, min(8, len(tiles))).astype(int)
        sample_values, sample_valid = np.array(tiles.values[pick]), np.array(tiles.valid[pick])
        training_tiles = len(tiles)
    detector = Detector(
        network=fitted.network,
        normalisation=normalisation,
        tile_size=settings.grid.tile_size,
        score_settings=settings.score,
        seed=settings.seed,
        metadata={
            "bands": list(settings.source.bands),
            "reading_key": reading_key(settings),
            "locations": sorted({record.location for record in split.scenes}),
            "training_dates": _days(split.train),
            "validation_dates": _days(split.validation),
            "calibration_dates": _days(split.calibrate),
            "training_tiles": training_tiles,
            "data_fingerprint": data,
            "band_ranges": {band: [stat.percentile(2), stat.percentile(98)] for band, stat in stats.items()},
            "rgb_limits": {band: [stat.percentile(1), stat.percentile(99)] for band, stat in stats.items()},
            "reason": reason,
            "versions": {name: version(name) for name in PACKAGES},
        },
    )
    sample = Sample(sample_values, sample_valid, detector.expected(sample_values, sample_valid))
    return Trained(detector, fitted, split, sample)


def usable_scenes(settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """The scenes of the catalog that were read with these settings."""
    key = reading_key(settings)
    scenes = Catalog(workspace).scenes()
    stale = [record.scene_id for record in scenes if record.key != key]
    if stale:
        log.warning("%d scenes were ingested with other settings and are left out, e.g. %s", len(stale), stale[0])
    return [record for record in scenes if record.key == key]


def trainable_scenes(settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """Those whose files are still there: an archive may keep only the last months."""
    scenes = usable_scenes(settings, workspace)
    present = [record for record in scenes if all(file.local is None or file.local.exists() for file in record.files)]
    if len(present) < len(scenes):
        log.warning(
            "%d scenes of the catalog are no longer in the archive and are left out", len(scenes) - len(present)
        )
    return present


def observe_scenes(
    detector: Detector,
    scenes: tuple[SceneRecord, ...],
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
        One row a tile with `scene_id, day, tile_id, score` (NaN for tiles without), and what drift is measured against.
    """
    frames, profile = [], Profile()
    for done, record in enumerate(scenes, start=1):
        rows = []
        with open_scene(record.scene, settings, workspace) as reader:
            for batch, scores in observe(detector, reader, settings.grid.stride, calibrated=False):
                places = [tile.tile_id(record.location) for tile in batch.tiles]
                frame = {"scene_id": record.scene_id, "day": record.day, "tile_id": places, "score": scores.score}
                frames.append(pd.DataFrame(frame))
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
    """A detector that is ready to score, and the scores that set its threshold."""

    detector: Detector
    scores: pd.Series


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
        CalibrationError: Too few tiles for the rate asked for.
    """
    calibrating = split.calibration_scenes
    flagged = suspects(split.scenes, settings, workspace)
    others = tuple(record for record in split.scenes if split.basis == "training" or record not in calibrating)
    total = len(others) + len(calibrating)

    def on_later_scene(done: int, _: int) -> None:
        if on_scene:
            on_scene(len(others) + done, total)

    scores, profile = observe_scenes(
        detector, others, settings, workspace, lambda done, _: on_scene(done, total) if on_scene else None, latents
    )
    scores = scores[~is_suspect(scores, flagged)]
    if settings.score.relative_to_place:
        detector = detector.with_levels(scores["tile_id"].tolist(), scores["score"].to_numpy())
    scores, calibration_profile = observe_scenes(detector, calibrating, settings, workspace, on_later_scene, latents)
    if split.basis != "training":
        profile = profile.merge(calibration_profile)
    scores = scores[~is_suspect(scores, flagged)]
    days = scores["day"].tolist()
    detector = detector.with_calibration(scores["score"].to_numpy(), days, settings.calibration, split.basis)
    return Calibrated(replace(detector, profile=profile), scores["score"])


def data_fingerprint(split: Split) -> str:
    """A digest of the scenes of a split and of what each is used for."""
    digest = hashlib.sha256()
    for name, records in (("train", split.train), ("validation", split.validation), ("calibrate", split.calibrate)):
        for record in records:
            digest.update(f"{name} {record.scene_id} {record.fingerprint} {record.key}\n".encode())
    return digest.hexdigest()


def _fit(
    tiles: TileArrays,
    held_out: TileArrays | None,
    normalisation: Normalisation,
    settings: Settings,
    checkpoint: Path,
    on_epoch: Callable[[EpochMetrics], None] | None,
) -> Fitted:
    return fit(
        tiles,
        held_out,
        normalisation,
        settings.model,
        settings.train,
        settings.seed,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )


def _days(records: tuple[SceneRecord, ...]) -> list[str]:
    days: set[date] = {record.day for record in records}
    return [day.isoformat() for day in sorted(days)]

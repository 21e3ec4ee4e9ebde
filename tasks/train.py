"""Train: fit the network to the training dates, look at all scenes of the split once, and calibrate."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from configs import Settings, SettingsError, Workspace
from imagery.bands import find_common
from imagery.catalog import Catalog, SceneRecord
from imagery.normalise import band_limits
from imagery.robust import evenly
from imagery.statistics import BandStats
from imagery.tiles import read_tiles
from tasks.conditions import check_conditions, place_names, sensor_names
from tasks.dataset import Split, gathered, scenes_of_tiles, split_scenes
from tasks.diagnosing import Diagnosing, OnDiagnosis, groups_of
from tasks.ingest import reading_key
from tasks.injected import kinds_of
from tasks.observe import conditions_for, opened
from tasks.reference import usual_of
from tasks.suspects import suspects
from vae.calibration import fewest
from vae.detector import BATCH, Detector, NormalTiles
from vae.errors import CalibrationError, DetectorError, ScoreError
from vae.normalisation import Normalisation
from vae.scores.asked import check_scores
from vae.tiles import TileArrays
from vae.training import Fitted, OnEpoch, fit

log = logging.getLogger(__name__)

PACKAGES = ("tilewatch", "torch", "numpy", "rasterio")
LEARNED_SCENES, LEARNED_TILES = 24, 2000  # that scores learn from what is normal


@dataclass(frozen=True)
class Sample:
    """A few tiles to look at: (N, C, H, W) physical values, (N, H, W) masks, and what the networks make of them."""

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    expected: NDArray[np.float32] | None


@dataclass(frozen=True)
class Trained:
    """Fitted networks in their bundle, not yet calibrated."""

    detector: Detector
    fitted: list[Fitted]
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
        SettingsError: A score, or a kind of injected anomaly, that does not exist.
        CalibrationError: Too few tiles or dates to calibrate on.
    """
    try:
        check_scores(settings.score, settings.model, visible_channels(settings))
    except (ScoreError, DetectorError) as error:
        raise SettingsError(str(error)) from None
    kinds_of(settings.injections)
    check_conditions(split.train, settings.model.condition, workspace)
    catalog = Catalog(workspace)
    tiles = sum(
        int((catalog.tiles(record)["valid_fraction"] >= settings.score.min_valid).sum())
        for record in split.calibration_scenes
    )
    dates = {record.day for record in split.calibration_scenes}
    if len(dates) < settings.calibration.min_dates:
        raise CalibrationError(
            f"{len(dates)} dates are there to calibrate on, calibration.min_dates asks for "
            f"{settings.calibration.min_dates}: add calibration dates, or lower it"
        )
    needed = max(settings.calibration.min_tiles, fewest(settings.calibration.false_alarm_rate))
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
    on_epoch: OnEpoch | None = None,
    on_diagnosis: OnDiagnosis | None = None,
) -> Trained:
    """Fit a network to the training dates of the catalog.

    Interrupted work goes on from its last epoch when it is started again with the same settings and scenes.

    Args:
        settings: What to learn from, and how.
        workspace: Holds the catalog and the checkpoints.
        reason: Why; kept with the detector.
        on_scene: Called with (scenes read, scenes in all).
        on_epoch: Called after every epoch.
        on_diagnosis: Called each `train.diagnose_every` epochs and at the end with a diagnosis of the first network.

    Raises:
        NothingToTrain: No usable scene or tile in the training period.
        Diverged: The loss became infinite or NaN.
    """
    split = split_scenes(settings, trainable_scenes(settings, workspace))
    with learning_tiles(split, settings, workspace, on_scene) as tiles:
        return fit_detector(tiles, split, settings, workspace, reason, on_epoch, on_diagnosis)


@dataclass(frozen=True)
class LearningTiles:
    """What networks are fitted to, and the tiles of other dates that stop the fitting, if there are any."""

    train: TileArrays
    validation: TileArrays | None


@contextmanager
def learning_tiles(
    split: Split, settings: Settings, workspace: Workspace, on_scene: Callable[[int, int], None] | None = None
) -> Iterator[LearningTiles]:
    """The training and validation tiles of a split, in files that are mapped into memory.

    Raises:
        NothingToTrain: No usable tile.
    """
    with ExitStack() as stack:
        tiles = stack.enter_context(gathered(split.train, settings, workspace, settings.train.max_tiles, on_scene))
        held_out = None
        if split.validation and settings.model.members:
            limit = _held_out_limit(settings)
            held_out = stack.enter_context(gathered(split.validation, settings, workspace, limit, learned=split.train))
        yield LearningTiles(tiles, held_out)


def fit_detector(
    tiles: LearningTiles,
    split: Split,
    settings: Settings,
    workspace: Workspace,
    reason: str = "",
    on_epoch: OnEpoch | None = None,
    on_diagnosis: OnDiagnosis | None = None,
    resumable: bool = True,
) -> Trained:
    """Fit networks to tiles that were gathered, and put them into a detector, which is not calibrated yet.

    Args:
        tiles: From `learning_tiles`, of this split.
        split: Where they come from.
        settings: How they were read, and how to fit.
        workspace: Holds the checkpoints.
        reason: Why; kept with the detector.
        on_epoch: Called after every epoch.
        on_diagnosis: Called with diagnoses of the first network; None makes none.
        resumable: Keep checkpoints, so that interrupted work goes on from its last epoch.

    Raises:
        Diverged: The loss became infinite or NaN.
    """
    stats = training_stats(split.train, settings.source.bands)
    limits = band_limits(stats, settings.normalise)
    normalisation = Normalisation.from_limits(
        limits, log=settings.normalise.log, clip=settings.normalise.clip, log_offset=settings.normalise.log_offset
    )
    data = data_fingerprint(split)
    checkpoints = workspace.models / "checkpoints"
    looking = None
    if on_diagnosis is not None and settings.model.members:
        looking = _diagnosing(tiles, split, settings, workspace, normalisation, on_diagnosis)
    fitted = [
        fit(
            tiles.train,
            tiles.validation,
            normalisation,
            settings.model,
            settings.train,
            settings.seed + member,
            checkpoint=checkpoints / f"{data[:16]}-{member}.safetensors" if resumable else None,
            on_epoch=on_epoch if looking is None or member else looking.after_epochs(on_epoch),
        )
        for member in range(settings.model.members)
    ]
    if looking is not None:
        looking.look(fitted[0].network, fitted[0].best_epoch, final=True)
    pick = np.linspace(0, len(tiles.train) - 1, min(8, len(tiles.train))).astype(int)
    sample_values, sample_valid = tiles.train.physical(pick), tiles.train.rows(pick).valid
    detector = Detector(
        networks=tuple(one.network for one in fitted),
        normalisation=normalisation,
        model=settings.model,
        tile_size=settings.grid.tile_size,
        score_settings=settings.score,
        seed=settings.seed,
        visible=visible_channels(settings),
        places=place_names(split.train, settings.model.condition),
        sensors=sensor_names(split.train, settings.model.condition),
        metadata={
            "bands": list(settings.source.bands),
            "reading_key": reading_key(settings),
            "locations": sorted({record.location for record in split.scenes}),
            "training_dates": _days(split.train),
            "validation_dates": _days(split.validation),
            "calibration_dates": _days(split.calibrate),
            "training_tiles": len(tiles.train),
            "data_fingerprint": data,
            "band_ranges": {band: [stat.percentile(2), stat.percentile(98)] for band, stat in stats.items()},
            "rgb_limits": {band: [stat.percentile(1), stat.percentile(99)] for band, stat in stats.items()},
            "reason": reason,
            "versions": {name: version(name) for name in PACKAGES},
        },
    )
    detector = detector.with_constants(lambda: normal_tiles(detector, split.train, settings, workspace))
    told = tiles.train.conditions.rows(pick) if tiles.train.conditions else None
    expected = detector.expected(sample_values, sample_valid, told) if detector.networks else None
    sample = Sample(sample_values, sample_valid, expected)
    return Trained(detector, fitted, split, sample)


def _held_out_limit(settings: Settings) -> int:
    return max(1, settings.train.max_tiles // 4)


def _diagnosing(
    tiles: LearningTiles,
    split: Split,
    settings: Settings,
    workspace: Workspace,
    normalisation: Normalisation,
    tell: OnDiagnosis,
) -> Diagnosing:
    """Through the tiles that stop the fitting; without any, through those that are learned from."""
    scenes, seen, limit = split.validation, tiles.validation, _held_out_limit(settings)
    if seen is None:
        scenes, seen, limit = split.train, tiles.train, settings.train.max_tiles
        log.warning("no date is held out (split.validation_fraction): the network is diagnosed on training tiles")
    labels = groups_of(scenes_of_tiles(scenes, settings, workspace, limit))
    return Diagnosing(seen, labels, normalisation, settings, tell)


def usable_scenes(settings: Settings, workspace: Workspace, since: date | None = None) -> list[SceneRecord]:
    """The scenes of the catalog, all or those since a date, that were read with these settings."""
    key = reading_key(settings)
    scenes = Catalog(workspace).scenes(since=since)
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


def look_back(
    scenes: Sequence[SceneRecord],
    settings: Settings,
    workspace: Workspace,
    on_scene: Callable[[int, int], None] | None = None,
) -> None:
    """Work out what the past of some scenes lets expect of them, several side by side; it is kept, and found again."""
    with ThreadPoolExecutor(settings.compute.workers) as pool:
        for done, _ in enumerate(pool.map(lambda record: usual_of(record, settings, workspace), scenes), start=1):
            if on_scene:
                on_scene(done, len(scenes))


def visible_channels(settings: Settings) -> tuple[int, ...]:
    """Which channels are red, green and blue; empty when neither the settings nor the bands' names tell.

    Raises:
        SettingsError: `score.visible` names a band that is not read.
    """
    bands = settings.source.bands
    named = settings.score.visible
    if named is None:
        common = find_common(bands)
        if not {"red", "green", "blue"} <= common.keys():
            return ()
        named = common["red"], common["green"], common["blue"]
    missing = [band for band in named if band not in bands]
    if missing:
        raise SettingsError(f"score.visible names {', '.join(missing)}, source.bands has {', '.join(bands)}")
    return tuple(bands.index(band) for band in named)


def normal_tiles(
    detector: Detector, scenes: Sequence[SceneRecord], settings: Settings, workspace: Workspace
) -> Iterator[NormalTiles]:
    """Some tiles of some training scenes, that scores learn from what is normal, with what their past lets expect."""
    flagged = suspects(scenes, settings, workspace)
    some = [scenes[index] for index in evenly(len(scenes), LEARNED_SCENES)]
    size, stride = detector.tile_size, settings.grid.stride
    for record in some:
        usual = usual_of(record, settings, workspace) if detector.looks_back else None
        with opened(record, detector, usual, settings, workspace) as scene:
            wanted = [
                (tile.row_off, tile.col_off)
                for tile in scene.grid.tiles(size, stride)
                if (record.scene_id, tile.tile_id(record.location)) not in flagged
            ]
            only = {wanted[index] for index in evenly(len(wanted), max(LEARNED_TILES // len(some), 1))}
            for batch in read_tiles(scene.reader, size, stride, only, at_least=BATCH, past=scene.past):
                told = conditions_for(detector, scene, batch)
                yield NormalTiles(batch.values, batch.valid, batch.past, told)


def data_fingerprint(split: Split) -> str:
    """A digest of the scenes of a split and of what each is used for."""
    digest = hashlib.sha256()
    for name, records in (("train", split.train), ("validation", split.validation), ("calibrate", split.calibrate)):
        for record in records:
            digest.update(f"{name} {record.scene_id} {record.fingerprint} {record.key}\n".encode())
    return digest.hexdigest()


def _days(records: tuple[SceneRecord, ...]) -> list[str]:
    days: set[date] = {record.day for record in records}
    return [day.isoformat() for day in sorted(days)]

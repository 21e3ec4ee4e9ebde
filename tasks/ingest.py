"""Ingest: find new and changed scenes, read each once, and enter its tiles and band statistics in the catalog."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.clouds import CloudModel
from imagery.errors import ImageryError, SceneEmpty, SceneUnreachable
from imagery.grid import Grid
from imagery.quarantine import Quarantine
from imagery.reading import SceneReader
from imagery.sources import Scene, find_scenes
from imagery.survey import survey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestPlan:
    """What there is to do.

    Attributes:
        scenes: New and changed scenes, oldest first.
        unchanged: Number of scenes that are in the catalog as they are.
        quarantined: Number of scenes that were quarantined before and have not changed.
        skipped: Files without a readable date, with the reason.
    """

    scenes: tuple[Scene, ...]
    unchanged: int
    quarantined: int
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Ingested:
    """What became of a scene: `reason` says why it was quarantined, and is None when it was not."""

    scene_id: str
    tiles: int
    reason: str | None


def plan_ingest(
    settings: Settings, workspace: Workspace, until: date | None = None, retry_quarantined: bool = False
) -> IngestPlan:
    """Compare the source with the catalog.

    Args:
        settings: Where scenes lie and how they are read.
        workspace: Where the catalog is.
        until: Leave out scenes acquired after this date.
        retry_quarantined: Try quarantined scenes again although neither they nor the settings have changed.

    Raises:
        ImageryError: The source cannot be listed, or `masks.cloud_model` cannot be used.
    """
    if settings.masks.cloud_model:
        CloudModel(settings.masks.cloud_model, settings.source.bands)  # else every scene would be quarantined for it
    listing = find_scenes(settings.source, settings.locations)
    known = {record.scene_id: record for record in Catalog(workspace).scenes()}
    in_quarantine = {record.scene_id: record for record in Quarantine(workspace).records()}
    key, trial = reading_key(settings), _trial_key(settings)
    todo, unchanged, quarantined = [], 0, 0
    for scene in listing.scenes:
        if until and scene.acquired.date() > until:
            continue
        record, bad = known.get(scene.scene_id), in_quarantine.get(scene.scene_id)
        if record and record.key == key and record.stamp == scene.stamp and record.files == scene.files:
            unchanged += 1
        elif bad and bad.key == trial and bad.stamp == scene.stamp and not retry_quarantined:
            quarantined += 1
        else:
            todo.append(scene)
    return IngestPlan(tuple(todo), unchanged, quarantined, listing.skipped)


def settle_grids(scenes: Iterable[Scene], settings: Settings, workspace: Workspace) -> None:
    """Fix the grid of each location that has none: as `locations` says, else by its oldest usable scene.

    This is done before scenes are ingested side by side, so that the grid does not depend on which one is faster.

    Raises:
        ImageryError: A location has another grid already than the settings ask for.
    """
    catalog = Catalog(workspace)
    for scene in sorted(scenes, key=lambda scene: scene.acquired):
        grid, area = catalog.grid(scene.location), settings.locations.get(scene.location)
        if grid is not None:
            _check_unchanged(scene.location, grid, settings)
        elif area is not None:
            catalog.settle_grid(scene.location, Grid.of_area(area))
        else:
            _settle_by(scene, settings, catalog)


def _check_unchanged(location: str, grid: Grid, settings: Settings) -> None:
    area, wanted = settings.locations.get(location), settings.grid.resolution
    if area is not None and grid != Grid.of_area(area):
        raise ImageryError(
            f"{location} was entered on a grid other than locations.{location}: a location keeps its grid, so set it "
            "back or use another workspace"
        )
    if area is None and wanted is not None and wanted != grid.resolution:
        raise ImageryError(
            f"{location} was entered at a resolution of {grid.resolution:g}, grid.resolution is {wanted:g}: "
            "a location keeps its grid, so set it back or use another workspace"
        )


def _settle_by(scene: Scene, settings: Settings, catalog: Catalog) -> None:
    """Give a location the grid of a scene, unless that cannot be read or holds no data."""
    try:
        with SceneReader(scene, settings.source, settings.masks, settings.grid) as reader:
            if reader.has_any_data():
                catalog.settle_grid(scene.location, reader.grid)
    except (ImageryError, OSError) as error:
        log.debug("%s does not define a grid: %s", scene.scene_id, error)


def ingest_scene(scene: Scene, settings: Settings, workspace: Workspace) -> Ingested:
    """Read one scene and enter it in the catalog, or quarantine it.

    A scene whose files were touched but hold the same content is not read again.

    Raises:
        OSError: The catalog cannot be written.
    """
    catalog, quarantine, key = Catalog(workspace), Quarantine(workspace), reading_key(settings)
    try:
        stamp = scene.stamp
        known = catalog.get(scene)
        if known and known.key == key and known.fingerprint == scene.fingerprint():
            catalog.write_record(replace(known, files=scene.files, stamp=stamp))
            return Ingested(scene.scene_id, known.tiles, None)
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(scene.fingerprint)
            grid = settings.grid
            found = survey(
                lambda: open_scene(scene, settings, workspace), settings.source.bands, grid.tile_size, grid.stride
            )
        fingerprint = digest.result()
        if found.data_fraction == 0:
            raise SceneEmpty(f"{scene.scene_id} has no data: every pixel is nodata")
        if catalog.grid(scene.location) is None:  # what should have settled it could not be read a moment ago
            raise SceneUnreachable(f"{scene.location} has no grid yet: ingest again")
    except (ImageryError, OSError) as error:
        passing = isinstance(error, SceneUnreachable)
        return quarantine_scene(scene, "ingest", str(error), settings, workspace, passing)
    record = SceneRecord(
        scene_id=scene.scene_id,
        location=scene.location,
        acquired=scene.acquired,
        number=scene.number,
        files=scene.files,
        stamp=stamp,
        fingerprint=fingerprint,
        key=key,
        tile_size=settings.grid.tile_size,
        stride=settings.grid.stride or settings.grid.tile_size,
        tiles=len(found.tiles),
        valid_fraction=found.valid_fraction,
        data_fraction=found.data_fraction,
        cloud_fraction=found.cloud_fraction,
        masked=found.masked,
        stats=found.stats,
        ingested_at=datetime.now(UTC).replace(microsecond=0),
    )
    # Not in the block above: a disk that is full is no fault of the scene. A scene is never in both places: one that a
    # kill leaves in neither is read again.
    quarantine.release(scene)
    catalog.write(record, found.tiles)
    return Ingested(scene.scene_id, record.tiles, None)


def quarantine_scene(
    scene: Scene, step: str, reason: str, settings: Settings, workspace: Workspace, passing: bool = False
) -> Ingested:
    """Take a scene out of the catalog and record why; when the reason may pass, the next run tries it again."""
    key = "" if passing else _trial_key(settings)
    Catalog(workspace).remove(scene)  # first: see `ingest_scene`
    Quarantine(workspace).add(scene, step, reason, scene.stamp, key)
    log.warning("quarantined %s (%s): %s", scene.scene_id, step, reason)
    return Ingested(scene.scene_id, 0, reason)


def open_scene(
    scene: Scene, settings: Settings, workspace: Workspace, shift: tuple[float, float] = (0.0, 0.0)
) -> SceneReader:
    """A scene opened on its location's grid, moved by so many rows and columns first.

    Raises:
        ImageryError: It cannot be opened or does not fit.
    """
    grid = Catalog(workspace).grid(scene.location)
    return SceneReader(scene, settings.source, settings.masks, settings.grid, grid, shift)


def reading_key(settings: Settings) -> str:
    """A digest of the settings that decide what is read from a scene."""
    source = settings.source.model_dump_json(include={"bands", "band_names", "names", "scale", "offset"})
    return _digest(source, settings.masks.model_dump_json(), settings.grid.model_dump_json())


def _trial_key(settings: Settings) -> str:
    """A digest of the settings that decide whether a scene is quarantined."""
    return _digest(reading_key(settings), settings.validation.model_dump_json())


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]

"""The catalog: what has been ingested. A GeoParquet file of tiles and a JSON record for each scene.

The JSON record is written last and removed first, so a scene is in the catalog when its record is, and no reader meets
half of one. Scenes are files of their own, named after place and time: what is asked for is found by its name, and
nothing else is opened. Readers need no lock; writers of a location wait for each other.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import geopandas as gpd
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from configs.remembered import Remembered
from configs.workspace import LONGEST_NAME, Workspace, safe_name, whole_file, write_first, write_text
from imagery.errors import ImageryError
from imagery.grid import Grid, Tile
from imagery.records import OtherVersion, SceneRecord, file_name, numbered
from imagery.sources.scene import Scene, scene_name
from imagery.tile_files import Box, SceneReplaced, StoredStats, read_tiles, select_tiles, write_tiles

__all__ = ["Catalog", "SceneRecord", "SceneReplaced", "degree_boxes", "list_files", "scene_file"]

GRID_FILE = "grid.json"
TIME = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(?P<time>T[\d.]+Z)?(?:_(?P<number>\d+))?")

log = logging.getLogger(__name__)
_told: set[Path] = set()  # catalogs with records of another version: said once


class Catalog:
    """The scenes and tiles of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def write(self, record: SceneRecord, tiles: gpd.GeoDataFrame) -> None:
        """Add a scene, or replace what was known of it."""
        grid = self.grid(record.location)
        if grid is None:
            raise FileNotFoundError(f"{record.location} has no grid in {self.workspace.catalog}: settle it first")
        frame = tiles.assign(
            location=record.location,
            scene_id=record.scene_id,
            acquired=pd.Timestamp(record.acquired),
            crs=grid.crs,
            fingerprint=record.fingerprint,
            ingested_at=pd.Timestamp(record.ingested_at),
        )
        known = self._file(record, ".json")
        with self._alone(record.location):
            with whole_file(self._file(record, ".parquet")) as path:
                write_tiles(path, frame, record.stats, record.entry)
                known.unlink(missing_ok=True)  # or the old record would stand beside tiles that are not its own
            write_text(known, record.to_json())

    def write_record(self, record: SceneRecord) -> None:
        """Replace what is known of a scene whose tiles stay as they are; not if they were replaced meanwhile."""
        with self._alone(record.location):
            there = self.get(record.scene)
            if there and there.entry == record.entry:
                write_text(self._file(record, ".json"), record.to_json())

    def remove(self, scene: Scene) -> None:
        """Forget a scene; nothing happens when it is not known."""
        if self._file(scene, ".json").parent.is_dir():
            with self._alone(scene.location):
                for suffix in (".json", ".parquet"):
                    self._file(scene, suffix).unlink(missing_ok=True)

    def get(self, scene: Scene) -> SceneRecord | None:
        """What is known of a scene. Nothing, when another version of tilewatch entered it: it counts as new."""
        return self._read(self._file(scene, ".json"))

    def named(self, scene_ids: Iterable[str]) -> list[SceneRecord]:
        """The scenes of some names that are in the catalog, oldest first. Of others no file is opened.

        Raises:
            ValueError: One names no scene.
        """
        paths = {named_file(self.workspace.catalog, scene_id, ".json") for scene_id in scene_ids}
        return sorted(filter(None, map(self._read, paths)), key=_age)

    def locations(self) -> list[str]:
        """Names of the locations, in order."""
        folders = self.workspace.catalog.glob("*/") if self.workspace.catalog.is_dir() else ()
        return sorted(self._name(folder) for folder in folders)

    def days(self, location: str) -> list[date]:
        """The UTC date of each scene of a place, oldest first, by the names of their files alone."""
        times = [TIME.fullmatch(path.stem) for path in list_files(self.workspace.catalog, [location])]
        return [date.fromisoformat(time["day"]) for time in times if time]

    def scenes(
        self,
        locations: Iterable[str] | None = None,
        since: date | None = None,
        until: date | None = None,
        bbox: Box | None = None,
    ) -> list[SceneRecord]:
        """The scenes of some places and times, oldest first. Of others no file is opened.

        Args:
            locations: Names of locations; None is all.
            since: First UTC date.
            until: Last UTC date.
            bbox: West, south, east, north in degrees: locations whose grid touches it. West is greater than east where
                it crosses the 180th meridian.

        Raises:
            ImageryError: A box that is none.
        """
        records = filter(None, (self._read(path) for path in self._records(locations, since, until, bbox)))
        return sorted(records, key=_age)

    def query(
        self,
        locations: Iterable[str] | None = None,
        since: date | None = None,
        until: date | None = None,
        bbox: Box | None = None,
        columns: Sequence[str] | None = None,
    ) -> gpd.GeoDataFrame:
        """The tiles of some places and times, by location and time. Of others no file is opened.

        Args:
            locations: Names of locations; None is all.
            since: First UTC date.
            until: Last UTC date.
            bbox: West, south, east, north in degrees: tiles that touch it; see `scenes`.
            columns: What to read beside the footprint, the last column then; None is all.

        Raises:
            ImageryError: A box that is none, or a column that no scene has.
        """
        paths = [path.with_suffix(".parquet") for path in self._records(locations, since, until, bbox)]
        return select_tiles(paths, columns, degree_boxes(bbox) if bbox else ())

    def tiles(self, record: SceneRecord) -> gpd.GeoDataFrame:
        """The tiles of a scene.

        Raises:
            SceneReplaced: It was entered anew, or taken out, since the record was read.
        """
        return read_tiles(self._file(record, ".parquet"), record.entry)

    def grid(self, location: str) -> Grid | None:
        """The grid of a location; None before its first scene."""
        try:
            return Grid.from_record(json.loads(self._grid_file(location).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def settle_grid(self, location: str, grid: Grid) -> Grid:
        """Fix the grid of a location. The first one to come is kept, and returned from then on."""
        write_first(self._grid_file(location), json.dumps(asdict(grid)))
        settled = self.grid(location)
        if settled is None:
            raise FileNotFoundError(f"the grid of {location} vanished from {self.workspace.catalog} as it was written")
        return settled

    def near(self, bbox: Box, locations: Iterable[str] | None = None) -> list[str]:
        """Which locations, of some or of all, have a grid that touches a box; see `scenes`.

        Raises:
            ImageryError: A box that is none.
        """
        boxes = [shapely.box(*box) for box in degree_boxes(bbox)]
        grids = {name: self.grid(name) for name in (self.locations() if locations is None else locations)}
        return [name for name, grid in grids.items() if grid and shapely.intersects(_outline(grid), boxes).any()]

    def _records(
        self, locations: Iterable[str] | None, since: date | None, until: date | None, bbox: Box | None
    ) -> list[Path]:
        """The records asked for, by location and time."""
        chosen = self.near(bbox, locations) if bbox else locations
        return list_files(self.workspace.catalog, chosen, since, until)

    def _read(self, path: Path) -> SceneRecord | None:
        try:
            return read_record(path)
        except FileNotFoundError:
            return None
        except (OtherVersion, UnicodeDecodeError):
            self._tell_of_other_version(path)
            return None

    def _tell_of_other_version(self, path: Path) -> None:
        if self.workspace.catalog not in _told:
            _told.add(self.workspace.catalog)
            log.warning(
                "%s was written by another version of tilewatch, or is damaged: such scenes count as new, and the next "
                "ingest reads them again",
                path,
            )

    def _name(self, folder: Path) -> str:
        """The location of a folder. The names of folders are cut where they are long; then a record knows it."""
        name = unquote(folder.name)
        if len(folder.name) < LONGEST_NAME:
            return name
        records = (self._read(path) for path in sorted(folder.glob("[!.]*.json")) if path.name != GRID_FILE)
        return next((record.location for record in records if record), name)

    @contextmanager
    def _alone(self, location: str) -> Iterator[None]:
        """Hold back all other writers of a location, of this process or another one."""
        folder = self._grid_file(location).parent
        with (folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released as the file is closed, by the end of the process at the latest
            yield

    def _grid_file(self, location: str) -> Path:
        return self.workspace.catalog / safe_name(location) / GRID_FILE

    def _file(self, scene: Scene | SceneRecord, suffix: str) -> Path:
        return scene_file(self.workspace.catalog, scene, suffix)


def _age(record: SceneRecord) -> tuple[datetime, str]:
    return record.acquired, record.scene_id


def _parsed(path: Path) -> SceneRecord:
    text = path.read_text(encoding="utf-8")
    return SceneRecord.from_json(text, lambda entry: StoredStats(path.with_suffix(".parquet"), entry))


read_record = Remembered(_parsed)


def scene_file(folder: Path, scene: Scene | SceneRecord, suffix: str) -> Path:
    """The file of a scene in a folder of the workspace, e.g. `scores/v1/<location>/<acquired>.parquet`."""
    return folder / safe_name(scene.location) / (file_name(scene) + suffix)


def named_file(folder: Path, scene_id: str, suffix: str) -> Path:
    """The same of a scene that is known by its name alone.

    Raises:
        ValueError: It names none.
    """
    location, acquired, number = scene_name(scene_id)
    return folder / safe_name(location) / (numbered(acquired, number) + suffix)


def list_files(
    folder: Path, locations: Iterable[str] | None = None, since: date | None = None, until: date | None = None
) -> list[Path]:
    """The JSON files of scenes in a folder of the workspace, by location and time, chosen by their names alone.

    Args:
        folder: As of `scene_file`.
        locations: Names of locations; None is all.
        since: First UTC date.
        until: Last UTC date.
    """
    names = _entries(folder) if locations is None else {safe_name(name) for name in locations}
    places, found = {name: folder / name for name in names}, []
    for name, place in places.items():
        for file in _entries(place):  # strings: paths of thousands of scenes would take longer than all else
            time = TIME.fullmatch(file.removesuffix(".json")) if file.endswith(".json") else None
            if not time or (since and time["day"] < since.isoformat()) or (until and time["day"] > until.isoformat()):
                continue
            found.append((name, time["day"], time["time"] or "", int(time["number"] or 1), file))
    return [places[name] / file for name, _, _, _, file in sorted(found)]


def _entries(folder: Path) -> list[str]:
    """The names in a folder; none when it is not there, or is none."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def degree_boxes(bbox: Box) -> list[Box]:
    """One box, or the two that meet at the 180th meridian where west is greater than east (RFC 7946, section 5.2).

    Raises:
        ImageryError: Numbers that are no longitudes and latitudes, or south above north.
    """
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ImageryError(
            f"the box {', '.join(f'{number:g}' for number in bbox)} is not west, south, east, north in degrees, "
            "with longitudes between -180 and 180 and latitudes between -90 and 90"
        )
    return [bbox] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]


@lru_cache(maxsize=1024)
def _outline(grid: Grid) -> BaseGeometry:
    """Of a whole grid, in degrees."""
    outline: BaseGeometry = grid.footprints([Tile(0, 0, grid.height, grid.width)]).iloc[0]
    return outline

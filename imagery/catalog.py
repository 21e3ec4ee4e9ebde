"""The catalog: what has been ingested. A GeoParquet file of tiles and a JSON record for each scene.

The JSON record is written last, so a scene is in the catalog when its record is. Scenes are files of their own, so
several writers never meet, and a night reads no more than it needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from configs.workspace import Workspace, safe_name, time_name, whole_file, write_first, write_text
from imagery.grid import Grid
from imagery.sources.scene import Scene, SceneFile
from imagery.statistics import BandStats

GRID_FILE = "grid.json"


@dataclass(frozen=True)
class SceneRecord:
    """What the catalog knows of a scene.

    Attributes:
        scene_id: `<location>/<acquired>[/<n>]`.
        location: Name of the place.
        acquired: Time of acquisition, UTC.
        number: Counts scenes of the same place and time, from 1.
        files: Its rasters.
        stamp: Size and time of each file when it was read.
        fingerprint: Digest of the files' content.
        key: Digest of the settings that decide how it is read.
        tile_size: Side of its tiles, pixels.
        tiles: Number of tiles.
        valid_fraction: Share of pixels that count.
        data_fraction: Share of pixels with data, cloudy or not.
        cloud_fraction: Share of the pixels with data that are cloud.
        stats: Statistics of the valid pixels, by band.
        ingested_at: When, UTC.
    """

    scene_id: str
    location: str
    acquired: datetime
    number: int
    files: tuple[SceneFile, ...]
    stamp: tuple[str, ...]
    fingerprint: str
    key: str
    tile_size: int
    tiles: int
    valid_fraction: float
    data_fraction: float
    cloud_fraction: float
    stats: dict[str, BandStats]
    ingested_at: datetime

    @property
    def scene(self) -> Scene:
        """The scene, to be opened again."""
        return Scene(self.location, self.acquired, self.files, self.number)

    @property
    def day(self) -> date:
        """The night it belongs to: its UTC date."""
        return self.acquired.date()

    @property
    def file_name(self) -> str:
        """What its files are named after: the time, and the number where there are several."""
        return _file_name(self)

    def to_json(self) -> str:
        """As one JSON object."""
        record = asdict(self) | {
            "acquired": self.acquired.isoformat(),
            "ingested_at": self.ingested_at.isoformat(),
            "files": [file.to_record() for file in self.files],
            "stats": {band: stat.to_record() for band, stat in self.stats.items()},
        }
        return json.dumps(record, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SceneRecord:
        """The inverse of `to_json`."""
        record: dict[str, Any] = json.loads(text)
        return cls(
            **record
            | {
                "acquired": datetime.fromisoformat(record["acquired"]),
                "ingested_at": datetime.fromisoformat(record["ingested_at"]),
                "files": tuple(SceneFile(**file) for file in record["files"]),
                "stamp": tuple(record["stamp"]),
                "stats": {band: BandStats.from_record(stat) for band, stat in record["stats"].items()},
            }
        )


class Catalog:
    """The scenes and tiles of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def write(self, record: SceneRecord, tiles: gpd.GeoDataFrame) -> None:
        """Add a scene, or replace what was known of it."""
        frame = tiles.assign(
            location=record.location,
            scene_id=record.scene_id,
            acquired=pd.Timestamp(record.acquired),
            crs=self.grid(record.location).crs,  # type: ignore[union-attr]
            fingerprint=record.fingerprint,
            ingested_at=pd.Timestamp(record.ingested_at),
        )
        with whole_file(self._file(record, ".parquet")) as path:
            frame.to_parquet(path, index=False, compression="zstd")
        self.write_record(record)

    def write_record(self, record: SceneRecord) -> None:
        """Replace what is known of a scene whose tiles stay as they are."""
        write_text(self._file(record, ".json"), record.to_json())

    def remove(self, scene: Scene) -> None:
        """Forget a scene; nothing happens when it is not known."""
        for suffix in (".json", ".parquet"):
            self._file(scene, suffix).unlink(missing_ok=True)

    def get(self, scene: Scene) -> SceneRecord | None:
        """What is known of a scene."""
        path = self._file(scene, ".json")
        return SceneRecord.from_json(path.read_text(encoding="utf-8")) if path.exists() else None

    def scenes(self) -> list[SceneRecord]:
        """All scenes, oldest first."""
        return sorted(self._records(), key=lambda record: (record.acquired, record.scene_id))

    def tiles(self, scene: Scene | SceneRecord) -> gpd.GeoDataFrame:
        """The tiles of a scene."""
        return gpd.read_parquet(self._file(scene, ".parquet"))

    def grid(self, location: str) -> Grid | None:
        """The grid of a location; None before its first scene."""
        path = self._grid_file(location)
        return Grid.from_record(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def settle_grid(self, location: str, grid: Grid) -> Grid:
        """Fix the grid of a location. The first one to come is kept, and returned from then on."""
        write_first(self._grid_file(location), json.dumps(asdict(grid)))
        settled = self.grid(location)
        if settled is None:
            raise FileNotFoundError(f"the grid of {location} vanished from {self.workspace.catalog} as it was written")
        return settled

    def _records(self) -> Iterator[SceneRecord]:
        for path in self.workspace.catalog.glob("*/*.json"):
            if path.name != GRID_FILE and not path.name.startswith("."):
                yield SceneRecord.from_json(path.read_text(encoding="utf-8"))

    def _grid_file(self, location: str) -> Path:
        return self.workspace.catalog / safe_name(location) / GRID_FILE

    def _file(self, scene: Scene | SceneRecord, suffix: str) -> Path:
        return scene_file(self.workspace.catalog, scene, suffix)


def scene_file(folder: Path, scene: Scene | SceneRecord, suffix: str) -> Path:
    """The file of a scene in a folder of the workspace, e.g. `scores/v1/<location>/<acquired>.parquet`."""
    return folder / safe_name(scene.location) / (_file_name(scene) + suffix)


def _file_name(scene: Scene | SceneRecord) -> str:
    return time_name(scene.acquired) + (f"_{scene.number}" if scene.number > 1 else "")

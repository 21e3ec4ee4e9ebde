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
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.workspace import Workspace, safe_name, time_name, whole_file, write_first, write_text
from imagery.grid import Grid, Tile
from imagery.reading import Pixels, SceneReader
from imagery.sources import Scene
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
        files: (band name or "", path) of each file.
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
    files: tuple[tuple[str, Path], ...]
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
            "files": [[band, str(path)] for band, path in self.files],
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
                "files": tuple((band, Path(path)) for band, path in record["files"]),
                "stamp": tuple(record["stamp"]),
                "stats": {band: BandStats.from_record(stat) for band, stat in record["stats"].items()},
            }
        )


@dataclass(frozen=True)
class Survey:
    """One pass over a scene: its tiles, and the statistics of its bands."""

    tiles: gpd.GeoDataFrame
    stats: dict[str, BandStats]
    valid_fraction: float
    data_fraction: float
    cloud_fraction: float


def survey(reader: SceneReader, bands: tuple[str, ...], tile_size: int) -> Survey:
    """Read a scene once, one row of tiles at a time, and describe its tiles and bands.

    Returns:
        Tiles with `tile_id, row_off, col_off, height, width, geometry` (EPSG:4326), `valid_fraction`,
        `cloud_fraction` and per band `<band>_mean, _std, _p02, _p98` of the valid pixels (NaN without any).

    Raises:
        SceneUnreadable: A block that cannot be read.
    """
    grid, location = reader.grid, reader.scene.location
    stats = {band: BandStats() for band in bands}
    rows: list[dict[str, Any]] = []
    columns: list[NDArray[np.float32]] = []
    valid = data = cloud = 0
    for strip in grid.strips(tile_size):
        pixels = reader.read(grid.strip_window(strip))
        for channel, band in enumerate(bands):
            stats[band] = stats[band].merge(BandStats.of(pixels.values[channel][pixels.valid]))
        valid, data, cloud = valid + pixels.valid.sum(), data + pixels.data.sum(), cloud + pixels.cloud.sum()
        columns.append(_tile_statistics(pixels, strip, tile_size))
        for tile in strip:
            window = (slice(None), slice(tile.col_off, tile.col_off + tile.width))
            area = tile.height * tile.width
            rows.append(
                {
                    "tile_id": tile.tile_id(location),
                    **asdict(tile),
                    "valid_fraction": pixels.valid[window].sum() / area,
                    "cloud_fraction": pixels.cloud[window].sum() / area,
                }
            )
    names = [f"{band}_{name}" for band in bands for name in ("mean", "std", "p02", "p98")]
    described = pd.DataFrame(np.concatenate(columns), columns=names)
    geometry = grid.footprints(grid.tiles(tile_size))
    frame = gpd.GeoDataFrame(pd.concat([pd.DataFrame(rows), described], axis=1), geometry=geometry, crs="EPSG:4326")
    size = grid.width * grid.height
    return Survey(frame, stats, float(valid / size), float(data / size), float(cloud / max(data, 1)))


def _tile_statistics(pixels: Pixels, strip: list[Tile], tile_size: int) -> NDArray[np.float32]:
    """Mean, std, 2nd and 98th percentile of each band in each tile of a strip: (tiles, 4 · bands)."""
    channels, height = pixels.values.shape[:2]
    masked = np.where(pixels.valid, pixels.values, np.float32(np.nan))
    padding = len(strip) * tile_size - masked.shape[2]
    masked = np.pad(masked, ((0, 0), (0, 0), (0, padding)), constant_values=np.nan)
    tiles = masked.reshape(channels, height, len(strip), tile_size).transpose(2, 0, 1, 3)
    tiles = np.sort(tiles.reshape(len(strip), channels, -1), axis=2)  # NaN goes last
    count = np.isfinite(tiles).sum(axis=2)
    some = np.maximum(count, 1)
    mean = np.nansum(tiles, axis=2, dtype=np.float64) / some
    std = np.sqrt(np.nansum(np.square(tiles - mean[..., None]), axis=2) / some)
    ranks = [np.rint(share * (some - 1)).astype(int) for share in (0.02, 0.98)]
    low, high = (np.take_along_axis(tiles, rank[..., None], axis=2)[..., 0] for rank in ranks)
    described = np.stack([mean, std, low, high], axis=2)
    described[count == 0] = np.nan
    return described.reshape(len(strip), -1).astype(np.float32)


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

"""One pass over a scene: what its tiles and bands hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imagery.grid import Tile
from imagery.reading import Pixels, SceneReader
from imagery.statistics import BandStats


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

"""Truth as areas: masks and polygons, held against heatmaps pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import Settings
from configs.workspace import safe_name
from imagery.catalog import Catalog
from imagery.grid import Grid, Tile
from imagery.truth import Reader, TruthError, as_texts, open_heatmap, open_mask, polygon_reader
from tasks.regions import RegionCounter
from tasks.truth.base import SceneTruth, ScoredScene, Shares, read_table

# Where the mask of a scene is looked for in a folder: its own, else that of its place.
MASK_NAMES = ("{location}/{date}.tif", "{location}/{date}.mask.tif", "{location}.tif")
# What the numbers of masks mean, beside the masks or above them; the last one is what a simulation writes.
KIND_TABLES = {"kinds.csv": "value", "kinds.parquet": "value", "truth.parquet": "event_id"}
LEAST_KNOWN = 0.5  # share of a tile's valid pixels that the truth must cover, or nothing is said of the tile
WINDOW = ["row_off", "col_off", "height", "width"]


@dataclass(frozen=True)
class Area:
    """The truth of a scene, pixel by pixel: how it is read, and what its numbers mean."""

    read: Reader
    kinds: Mapping[int, str]


def _nothing(window: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """No event anywhere."""
    shape = (int(window.height), int(window.width))
    return np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=bool)


NOTHING = Area(_nothing, {})


@dataclass(frozen=True)
class MaskTruth:
    """Rasters of event numbers: one a scene, or one a location for all of its scenes."""

    path: str
    one_place: str | None
    settings: Settings
    catalog: Catalog
    complete: bool

    def of(self, scene: ScoredScene, table: pd.DataFrame, shares: Shares) -> SceneTruth | None:
        """See `Truth`."""
        grid = _grid(self.catalog, scene.location)
        path = self._path(scene)
        if path is None:
            return _label_area(scene, table, grid, NOTHING, shares) if self.complete else None
        with open_mask(path, grid, scene.location, self.settings.grid) as read:
            return _label_area(scene, table, grid, Area(read, self._kinds), shares)

    def _path(self, scene: ScoredScene) -> Path | None:
        folder = Path(self.path)
        if folder.is_dir():
            patterns = [str(folder / name) for name in MASK_NAMES]
        elif "{" in self.path or self.one_place == scene.location:
            patterns = [self.path]
        else:
            return None
        names = {"{location}": safe_name(scene.location), "{date}": scene.name}
        for pattern in patterns:
            for field_, name in names.items():
                pattern = pattern.replace(field_, name)
            if Path(pattern).is_file():
                return Path(pattern)
        return None

    @cached_property
    def _kinds(self) -> dict[int, str]:
        """What the numbers mean, where a table beside the masks, or one folder above them, says so."""
        fixed = Path(self.path.partition("{")[0] + "_" if "{" in self.path else self.path)
        folder = fixed if fixed.is_dir() else fixed.parent
        for path, column in (
            (place / name, key) for place in (folder, folder.parent) for name, key in KIND_TABLES.items()
        ):
            if path.is_file():
                table = read_table(path)
                missing = {column, "kind"} - set(table.columns)
                if missing:
                    raise TruthError(f"{path} has no column {', '.join(sorted(missing))}: it says what the masks mean")
                return dict(zip(table[column].astype(int), as_texts(table, "kind"), strict=True))
        return {}


@dataclass(frozen=True)
class PolygonTruth:
    """Outlines of events, each at a place and for some time where this is said.

    A location that no polygon ever touches is unknown, unless the truth is complete.
    """

    path: str
    shapes: gpd.GeoDataFrame
    catalog: Catalog
    complete: bool
    _covered: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def of(self, scene: ScoredScene, table: pd.DataFrame, shares: Shares) -> SceneTruth | None:
        """See `Truth`."""
        grid = _grid(self.catalog, scene.location)
        here = self.shapes[self.shapes["location"].isin(["", scene.location])]
        if scene.location not in self._covered:
            self._covered[scene.location] = len(here) > 0 and polygon_reader(here, grid) is not None
        if not self._covered[scene.location] and not self.complete:
            return None
        day = pd.Timestamp(scene.day)
        now = here[~(here["start"] > day) & ~(here["end"] < day)]  # an open end is NaT, which is neither
        read = polygon_reader(now, grid) if len(now) else None
        kinds = dict(enumerate(now["kind"], start=1))
        return _label_area(scene, table, grid, Area(read, kinds) if read else NOTHING, shares)


def _label_area(scene: ScoredScene, table: pd.DataFrame, grid: Grid, area: Area, shares: Shares) -> SceneTruth:
    """Hold the heatmap of a scene against its truth, a row of tiles at a time."""
    share, kind = np.full(len(table), np.nan), np.full(len(table), "", dtype=object)
    windows, counter, done = table[WINDOW].to_numpy(), RegionCounter(), 0
    with open_heatmap(scene.heatmap, grid, scene.location) as heat:
        for top in np.unique(windows[:, 0]):
            rows = np.flatnonzero(windows[:, 0] == top)
            window = Tile(int(top), 0, int(windows[rows[0], 2]), grid.width).window
            scores, (numbers, known) = heat(window), area.read(window)
            scored = np.isfinite(scores)
            new = slice(max(0, done - int(top)), None)  # rows that the tiles above did not reach
            counter.add(np.where(known, scores, np.float32(np.nan))[new], numbers[new] > 0)
            done = int(top) + len(scores)
            share[rows] = _shares(scored, known, numbers > 0, windows[rows])
            for row in rows[share[rows] > shares.positive]:
                columns = slice(windows[row, 1], windows[row, 1] + windows[row, 3])
                inside = numbers[:, columns][(scored & known)[:, columns]]
                found, pixels = np.unique(inside[inside > 0], return_counts=True)
                kind[row] = area.kinds.get(int(found[pixels.argmax()]), "")
    return SceneTruth(shares.answer(share), share, kind, counter.finish())


def _shares(
    scored: NDArray[np.bool_], known: NDArray[np.bool_], event: NDArray[np.bool_], windows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of the scored and known pixels that show an event, of each window (N, 4) of one row of tiles."""
    ends = np.stack([windows[:, 1], windows[:, 1] + windows[:, 3]])

    def pixels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        until = np.concatenate([[0], np.cumsum(mask.sum(axis=0))])
        return until[ends[1]] - until[ends[0]]

    counted = pixels(scored & known)
    enough = (counted > 0) & (counted >= LEAST_KNOWN * pixels(scored))
    share = pixels(scored & known & event) / np.maximum(counted, 1)
    return np.where(enough, share, np.nan)


def _grid(catalog: Catalog, location: str) -> Grid:
    grid = catalog.grid(location)
    if grid is None:
        raise TruthError(
            f"the catalog has no grid of {location}, so its truth cannot be placed: run `tilewatch ingest`"
        )
    return grid

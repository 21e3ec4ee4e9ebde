"""Find more like this: the tiles whose latents lie nearest to those of a tile, across places and dates."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs import Period, Workspace
from configs.workspace import safe_name
from imagery.catalog import Catalog, SceneRecord
from imagery.grid import Grid, tile_ids
from tasks.score import has_latents, latents_file
from vae.detector import Detector
from vae.similarity import Metric, Nearest, Neighbour, Spread

ROWS = 8192  # that are in memory at a time
NAMED = re.compile(r"(?P<location>.*)-r(?P<row>\d{1,9})-c(?P<column>\d{1,9})", re.ASCII | re.DOTALL)
LATENTS = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)[^.]*(\.\d+Z)?(_\d+)?\.parquet")

OnFile = Callable[[int, int], None]  # files done, files in all

log = logging.getLogger(__name__)


class SimilarError(LookupError):
    """What is to be compared is not there."""


@dataclass(frozen=True)
class Subject:
    """The tile that others are compared with: its scene, and its latent."""

    record: SceneRecord
    tile_id: str
    latent: NDArray[np.float32]


@dataclass(frozen=True)
class Search:
    """What was found.

    Attributes:
        found: The nearest first.
        tiles: Tiles with a latent that were compared.
        scenes: Scenes that these are of.
        active: Latent channels that count, of `channels`.
        channels: Those that there are.
    """

    found: tuple[Neighbour, ...]
    tiles: int
    scenes: int
    active: int
    channels: int


def find_subject(
    tile_id: str, scene_id: str | None, night: date | None, detector: Detector, version: str, workspace: Workspace
) -> Subject:
    """The latent of a tile on a scene.

    Args:
        tile_id: The tile.
        scene_id: The scene; None takes the last one on which the tile has a latent, of the night if there is one.
        night: The date of the scene.
        detector: The detector that the latents are of.
        version: Its version.
        workspace: Where they are kept.

    Raises:
        SimilarError: There is no such tile or scene, or it has no latent.
    """
    if not detector.latent_size:
        raise SimilarError(f"{version} has no network (model.members = 0), so its tiles have no latents to compare")
    catalog = Catalog(workspace)
    location = _location(tile_id, catalog, detector.tile_size)
    records = _asked(catalog.scenes([location]), location, scene_id, night)
    written = [one for one in records if has_latents(latents_file(workspace, version, one), one)]
    for record in reversed(written):
        latent = _latent_of(latents_file(workspace, version, record), tile_id, detector.latent_size)
        if latent is not None:
            return Subject(record, tile_id, latent)
    if written:
        dates = f"on {written[-1].scene_id}" if len(written) == 1 else f"on any of {len(written)} scenes"
        raise SimilarError(
            f"the tile {tile_id} has no latent {dates}: too little of it was usable there, or it is none of the tiles; "
            "choose another night"
        )
    first, last = records[0].day, records[-1].day
    raise SimilarError(
        f"{version} has no latents of {records[-1].scene_id if len(records) == 1 else location} yet: run "
        f"`tilewatch latents --since {first} --until {last}`, which writes those of the champion"
    )


def search(
    subject: Subject,
    detector: Detector,
    version: str,
    workspace: Workspace,
    count: int,
    each: int = 1,
    period: Period | None = None,
    other_places: bool = False,
    on_file: OnFile | None = None,
) -> Search:
    """The tiles that are nearest to one, of all latents that were written. The tile itself on its scene is none.

    All files are read twice, some rows at a time: for the spread of each channel, and for the distances.

    Args:
        subject: The tile that others are compared with.
        detector: The detector that the latents are of.
        version: Its version.
        workspace: Where they are kept.
        count: So many tiles at most.
        each: At most so many scenes of one tile; the nearest of them.
        period: Dates of the scenes that are looked at; None is all.
        other_places: Leave out the tile's own location.
        on_file: Called after each file, of both readings.

    Raises:
        SimilarError: A file cannot be read, or there is nothing to compare.
        NothingLearned: No channel of the latents is in use.
    """
    own = safe_name(subject.record.location)
    paths = [
        path
        for path in latents_files(workspace, version, period or Period())
        if not (other_places and path.parent.name == own)
    ]
    shape, size = detector.latent_shape, detector.latent_size
    spread, scenes = None, 0
    for done, path in enumerate(paths, start=1):
        seen = False
        for batch in _batches(path, ["latent"]):
            _, latents = _known(batch, size, path)
            if len(latents):
                part = Spread.of(latents, shape)
                spread, seen = part if spread is None else spread.merge(part), True
        scenes += seen
        if on_file:
            on_file(done, 2 * len(paths))
    if spread is None:
        raise SimilarError("there is no other tile with a latent: choose more dates, or run `tilewatch latents`")
    metric = spread.metric()
    nearest = _nearest(subject, paths, metric, Nearest(count, each), size, on_file)
    return Search(tuple(nearest.found), spread.means.count, scenes, int(metric.active.sum()), len(metric.active))


def latents_files(workspace: Workspace, version: str, period: Period) -> list[Path]:
    """The files of latents of a detector of some dates, in order."""
    root = workspace.latents / safe_name(version)
    found = []
    for path in sorted(root.glob("*/*.parquet")):
        named = LATENTS.fullmatch(path.name)
        if named and date.fromisoformat(named["day"]) in period:
            found.append(path)
    return found


def _nearest(
    subject: Subject, paths: Sequence[Path], metric: Metric, nearest: Nearest, size: int, on_file: OnFile | None
) -> Nearest:
    to = metric.point(subject.latent[None])[0]
    for done, path in enumerate(paths, start=1):
        for batch in _batches(path, ["tile_id", "scene_id", "latent"]):
            rows, latents = _known(batch, size, path)
            distances = metric.distances(latents, to)
            scene_id = batch.column("scene_id")[0].as_py() if batch.num_rows else ""
            if scene_id == subject.record.scene_id:
                names = batch.column("tile_id").take(pa.array(rows))
                distances[np.array(names.to_pylist(), object) == subject.tile_id] = np.inf
            near = nearest.candidates(distances)
            near = near[np.isfinite(distances[near])]
            if len(near):
                names = batch.column("tile_id").take(pa.array(rows[near]))
                nearest.add(distances[near].tolist(), scene_id, names.to_pylist())
        if on_file:
            on_file(len(paths) + done, 2 * len(paths))
    return nearest


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a file, some at a time."""
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(ROWS, columns=columns)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own are of these
        raise SimilarError(
            f"the latents {path} cannot be read: {error}: delete the file and run `tilewatch latents`"
        ) from error


def _known(batch: pa.RecordBatch, size: int, path: Path) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which rows of a batch have a latent, and these (N, size)."""
    column = batch.column(batch.schema.get_field_index("latent"))
    rows = np.flatnonzero(np.asarray(column.is_valid()))
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    if len(numbers) != len(rows) * size:
        raise SimilarError(
            f"the latents {path} are not {size} numbers a tile, as the detector's are: delete the file and run "
            "`tilewatch latents`"
        )
    return rows, numbers.reshape(len(rows), size)


def _latent_of(path: Path, tile_id: str, size: int) -> NDArray[np.float32] | None:
    """The latent of one tile; None when it has none, or is not there."""
    for batch in _batches(path, ["tile_id", "latent"]):
        rows, latents = _known(batch, size, path)
        names = batch.column("tile_id").take(pa.array(rows)).to_pylist()
        if tile_id in names:
            return latents[names.index(tile_id)]
    return None


def _asked(
    records: Sequence[SceneRecord], location: str, scene_id: str | None, night: date | None
) -> list[SceneRecord]:
    """The scenes of a location that are asked for, oldest first."""
    if not records:
        raise SimilarError(f"the catalog has no scene of {location}: run `tilewatch ingest`")
    asked = [
        record
        for record in records
        if (scene_id is None or record.scene_id == scene_id) and (night is None or record.day == night)
    ]
    if asked:
        return asked
    if scene_id is not None:
        raise SimilarError(
            f"unknown scene {scene_id!r} of {location}" + _meant(scene_id, [r.scene_id for r in records])
        )
    days = sorted({record.day for record in records}, key=lambda day: abs((day - night).days) if night else 0)
    raise SimilarError(f"{location} has no scene of {night}: the nearest nights are {', '.join(map(str, days[:3]))}")


def _location(tile_id: str, catalog: Catalog, tile_size: int) -> str:
    """The location of a tile.

    Raises:
        SimilarError: There is no such tile.
    """
    locations = catalog.locations()
    named = NAMED.fullmatch(tile_id)
    if named is None:
        raise SimilarError(
            f"unknown tile {tile_id!r}: tiles are named <location>-r<row>-c<column>, by where they begin"
            + "".join(f", e.g. {tile_ids(name, [0], [0])[0]}" for name in _close(tile_id, locations))
        )
    location, row, column = named["location"], int(named["row"]), int(named["column"])
    if location not in locations:
        raise SimilarError(
            f"unknown tile {tile_id!r}" + _meant(tile_id, [tile_ids(name, [row], [column])[0] for name in locations])
        )
    grid, records = catalog.grid(location), catalog.scenes([location])
    if grid and records:
        nearest = _nearest_tile(grid, location, row, column, tile_size, records[-1].stride)
        if nearest != tile_id:
            raise SimilarError(f"unknown tile {tile_id!r}: did you mean {nearest}?")
    return location


def _nearest_tile(grid: Grid, location: str, row: int, column: int, tile_size: int, stride: int) -> str:
    """The tile of a grid that begins nearest to a pixel."""
    table = grid.tile_table(tile_size, stride)
    off = np.hypot(table["row_off"] - row, table["col_off"] - column)
    best = int(off.argmin())
    return tile_ids(location, [table["row_off"][best]], [table["col_off"][best]])[0]


def _meant(name: str, known: Sequence[str]) -> str:
    return "".join(f": did you mean {close}?" for close in _close(name, known))


def _close(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.5)

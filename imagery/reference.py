"""The reference of a place: what it normally looks like, as the median of some of its clear scenes.

A reference is named by what it is made of, so it is built once and found again, and comes out the same when it was
deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from configs.schema import ReferenceSettings
from configs.workspace import Workspace, safe_name, write_text
from imagery.composite import Without, write_composite
from imagery.errors import ImageryError
from imagery.grid import Grid, Tile
from imagery.reading import SceneReader
from imagery.records import SceneRecord
from imagery.registration import ChipPair

FORMAT = 1  # of what is written; another number, another name
YEAR = 365.25  # days


def choose_members(
    records: Iterable[SceneRecord], day: date, settings: ReferenceSettings, excluded: Collection[str] = ()
) -> list[SceneRecord]:
    """The scenes that say what a place normally looks like on a day: its last clear ones, and those of the season.

    Of earlier years, those nearest to the day of the year come first, one of each year in turn, the last year first.

    Args:
        records: Scenes of one location, in any order.
        day: The day for which the reference is; scenes of that day and later ones are never chosen.
        settings: How many scenes, how clear, and how old.
        excluded: `scene_id` of scenes that are not to be chosen.

    Returns:
        The scenes, oldest first.
    """
    clear = [
        record
        for record in sorted(records, key=_age)
        if record.day < day and record.valid_fraction >= settings.min_valid and record.scene_id not in excluded
    ]
    young = [record for record in clear if (day - record.day).days <= settings.max_age]
    recent = young[max(len(young) - settings.scenes, 0) :]
    taken = {record.scene_id for record in recent}
    seasonal = _of_the_season([record for record in clear if record.scene_id not in taken], day, settings.season_days)
    return sorted(recent + seasonal[: settings.seasonal], key=_age)


def _age(record: SceneRecord) -> tuple[Any, str]:
    return record.acquired, record.scene_id


def _of_the_season(records: list[SceneRecord], day: date, within: int) -> list[SceneRecord]:
    """Scenes of earlier years near a day of the year, one of each year in turn."""
    years: dict[int, list[tuple[float, SceneRecord]]] = {}
    for record in records:
        days = (day - record.day).days
        back = round(days / YEAR)
        off = abs(days - back * YEAR)
        if back and off <= within:
            years.setdefault(back, []).append((off, record))
    ranked = [
        (rank, back, record)
        for back, found in years.items()
        for rank, (_, record) in enumerate(sorted(found, key=lambda pair: pair[0]))
    ]
    return [record for _, _, record in sorted(ranked, key=lambda item: item[:2])]


@dataclass(frozen=True)
class Member:
    """A scene that a reference is made of.

    Attributes:
        scene_id: The scene.
        fingerprint: Digest of its content.
        without: Tiles of it whose pixels do not count.
    """

    scene_id: str
    fingerprint: str
    without: tuple[Tile, ...] = ()

    @classmethod
    def of(cls, record: SceneRecord, without: Without | None = None) -> Member:
        """A scene of the catalog, without some tiles."""
        return cls(record.scene_id, record.fingerprint, (without or {}).get(record.scene_id, ()))

    def to_record(self) -> dict[str, Any]:
        """As JSON; of a scene that counts as a whole, what it was before tiles could be left out."""
        record: dict[str, Any] = {"scene_id": self.scene_id, "fingerprint": self.fingerprint}
        return record | {"without": [asdict(tile) for tile in self.without]} if self.without else record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Member:
        """The inverse of `to_record`."""
        return cls(**record | {"without": tuple(Tile(**tile) for tile in record.get("without", ()))})


@dataclass(frozen=True)
class Reference:
    """A composite of a location.

    Attributes:
        location: Name of the place.
        path: The COG: a float32 band for each band of the scenes, NaN where no scene has a valid pixel, and a last
            band that counts the scenes with a valid pixel.
        members: The scenes it is made of, oldest first.
        bands: Names of the bands, without the count.
        key: Digest of the settings that decide how scenes are read.
        grid: The location's grid.
        valid_fraction: Share of the pixels that have a value.
    """

    location: str
    path: Path
    members: tuple[Member, ...]
    bands: tuple[str, ...]
    key: str
    grid: Grid
    valid_fraction: float

    @property
    def name(self) -> str:
        """A digest of all that it is made of."""
        return self.path.stem

    @contextmanager
    def open(self) -> Iterator[ReferenceReader]:
        """Open it for reading.

        Raises:
            ImageryError: The file is gone or damaged.
        """
        try:
            with rasterio.open(self.path, driver="GTiff", sharing=False) as dataset:
                yield ReferenceReader(dataset)
        except RasterioError as error:
            raise ImageryError(f"the reference {self.path} cannot be read: {error}: delete it") from error


class ReferenceReader:
    """An open reference. Used by the thread that opened it."""

    def __init__(self, dataset: DatasetReader) -> None:
        self._dataset = dataset

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(C, H, W) values in physical units, NaN where there are none, and (H, W) of how many scenes each is made."""
        values = self._dataset.read(window=window)
        return values[:-1], values[-1].astype(np.int64)

    def beside(self, scene: SceneReader, windows: Iterable[Window]) -> Iterator[ChipPair]:
        """Windows of the reference with those of a scene, one at a time."""
        for window in windows:
            before, count = self.read(window)
            after = scene.read(window)
            yield ChipPair(before, after.values, count > 0, after.valid)


def reference_name(members: Sequence[Member], key: str, grid: Grid) -> str:
    """A digest of all that a reference is made of."""
    made_of = [FORMAT, key, asdict(grid), [member.to_record() for member in members]]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def find_reference(workspace: Workspace, location: str, name: str) -> Reference | None:
    """A reference that was built before."""
    path = _file(workspace, location, name)
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not path.exists():
        return None
    members = tuple(map(Member.from_record, record["members"]))
    grid, bands = Grid.from_record(record["grid"]), tuple(record["bands"])
    return Reference(record["location"], path, members, bands, record["key"], grid, record["valid_fraction"])


def build_reference(
    workspace: Workspace,
    members: Sequence[SceneRecord],
    bands: tuple[str, ...],
    key: str,
    grid: Grid,
    open_member: Callable[[SceneRecord], SceneReader],
    without: Without | None = None,
) -> Reference:
    """The composite of some scenes: found, or made. The same scenes give the same bytes.

    Args:
        workspace: Where references are kept.
        members: The scenes, at least one, all of one location.
        bands: Names of the bands that are read.
        key: Digest of the settings that decide how scenes are read.
        grid: The location's grid.
        open_member: Opens a scene on this grid.
        without: Tiles of these scenes whose pixels do not count.

    Raises:
        MemberUnreadable: A scene that can no longer be read.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """
    made_of = tuple(Member.of(record, without) for record in members)
    location, name = members[0].location, reference_name(made_of, key, grid)
    found = find_reference(workspace, location, name)
    if found:
        return found
    path = _file(workspace, location, name)
    tags = {"location": location, "reference": name, "scene_ids": ",".join(record.scene_id for record in members)}
    valid = write_composite(path, grid, bands, members, open_member, tags, without)
    reference = Reference(location, path, made_of, bands, key, grid, valid)
    record = {field: value for field, value in asdict(reference).items() if field != "path"}
    record["members"] = [member.to_record() for member in made_of]
    write_text(path.with_suffix(".json"), json.dumps(record, ensure_ascii=False))
    return reference


def _file(workspace: Workspace, location: str, name: str) -> Path:
    return workspace.reference / safe_name(location) / f"{name}.tif"

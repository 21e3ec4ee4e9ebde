"""A scene: which files hold it, and what its source knows of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from xxhash import xxh3_128

from configs.workspace import time_name

SCENE_ID = re.compile(r"(?P<location>.*)/(?P<day>\d{4}-\d\d-\d\d)(?P<clock>[^/]*)(?:/(?P<number>\d+))?", re.DOTALL)
ARCHIVE = re.compile(r"/vsi(?:zip|tar)/\{(?P<archive>.+?)\}/.+")


class SceneName(NamedTuple):
    """What a `scene_id` names.

    Attributes:
        location: The place; it may have any name.
        acquired: Time of acquisition, as `configs.workspace.time_name` writes it.
        number: Counts scenes of the same location and time, from 1.
    """

    location: str
    acquired: str
    number: int


def scene_name(scene_id: str) -> SceneName:
    """Take a `scene_id` apart.

    Example:
        >>> scene_name("north/east/2024-07-01T101112Z/2")
        SceneName(location='north/east', acquired='2024-07-01T101112Z', number=2)

    Raises:
        ValueError: It names none.
    """
    found = SCENE_ID.fullmatch(scene_id)
    if found is None:
        raise ValueError(f"{scene_id!r} names no scene: <location>/<date>[/<n>] is meant")
    return SceneName(found["location"], found["day"] + found["clock"], int(found["number"] or 1))


def place_and_day(scene_id: str) -> tuple[str, date]:
    """The location and the UTC date that a `scene_id` names.

    Example:
        >>> place_and_day("north/east/2024-07-01T101112Z/2")
        ('north/east', datetime.date(2024, 7, 1))

    Raises:
        ValueError: It names none.
    """
    name = scene_name(scene_id)
    return name.location, date.fromisoformat(name.acquired[: len("2024-07-01")])


@dataclass(frozen=True)
class SceneFile:
    """A raster of a scene.

    Attributes:
        band: Name of its band; "" when its bands are named inside.
        path: What is opened: a path on this machine, or one of GDAL's virtual file systems. Of an archive, with the
            archive in braces: `/vsizip/{/data/product.zip}/a.jp2`.
        scale: Stored number × scale + offset = physical value, when the source says so; None leaves it to the settings.
        offset: See `scale`.
        nodata: Stored number that means "no data", when the source says so.
        number: Which band of the file it is, from 1; counts only with a `band`.
        stamp: What tells whether a remote file has changed (its ETag, or size and time); None for one on this machine.
    """

    band: str
    path: str
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    number: int = 1
    stamp: str | None = None

    @property
    def local(self) -> Path | None:
        """The file on this machine that holds it, be it an archive; None for a remote one."""
        archive = ARCHIVE.fullmatch(self.path)
        if archive:
            return None if archive["archive"].startswith("/vsi") else Path(archive["archive"])
        return None if self.path.startswith("/vsi") else Path(self.path)

    def to_record(self) -> dict[str, Any]:
        """As JSON: only what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Scene:
    """One acquisition of one location at one time.

    Attributes:
        location: Name of the place.
        acquired: Time of acquisition, UTC.
        files: Its rasters.
        number: Counts scenes of the same location and time, from 1.
    """

    location: str
    acquired: datetime
    files: tuple[SceneFile, ...]
    number: int = 1

    @property
    def scene_id(self) -> str:
        """`<location>/<acquired>[/<n>]`."""
        return f"{self.location}/{time_name(self.acquired)}" + (f"/{self.number}" if self.number > 1 else "")

    @property
    def remote_files(self) -> tuple[str, ...]:
        """The files that lie elsewhere; an archive counts once."""
        remote = (file.path for file in self.files if file.local is None)
        return tuple(dict.fromkeys(path.partition("}")[0] if ARCHIVE.fullmatch(path) else path for path in remote))

    @property
    def stamp(self) -> tuple[str, ...]:
        """Name, size and modification time of each file: a cheap sign that nothing changed.

        What a source says of the numbers counts as well. A query is left out: it may be a signature, new every time.
        """
        seen: set[Path] = set()
        stamps = []
        for file in self.files:
            path = file.local
            if path is None:
                stamps.append(f"{file.path.partition('?')[0]} {file.stamp}")
            elif path not in seen:  # an archive counts once
                seen.add(path)
                stamps.append(_stamp(path))
        told = (f"{file.band}: {_numbers(file)}" for file in self.files if _numbers(file) != PLAIN)
        return (*stamps, *told)

    def fingerprint(self) -> str:
        """A digest of the content of the files, whatever their names and dates; of remote ones, of their stamps."""
        digest = xxh3_128()
        seen: set[Path] = set()
        for file in self.files:
            path = file.local
            digest.update(f"{file.band}:{_numbers(file)}:{path.stat().st_size if path else file.stamp};".encode())
            if path is not None and path not in seen:
                seen.add(path)
                with path.open("rb") as content:
                    while block := content.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Listing:
    """The scenes of a source, oldest first, and what looks like one but cannot be used, with the reason."""

    scenes: tuple[Scene, ...]
    skipped: tuple[tuple[str, str], ...]


def renamed(files: Iterable[SceneFile], names: Mapping[str, str]) -> tuple[SceneFile, ...]:
    """Files with the names that the settings give to bands, in place of those of the source.

    Args:
        files: As the source names them.
        names: Name in the source by our name: `source.names`.
    """
    return tuple(replace(file, band=band) for file in files for band in our_names(file.band, names))


def our_names(theirs: str, names: Mapping[str, str]) -> list[str]:
    """What we call a band of the source.

    Example:
        >>> our_names("red", {"B04": "red"}), our_names("blue", {"B04": "red"})
        (['B04'], ['blue'])
    """
    ours = [name for name, told in names.items() if told == theirs]
    return ours or ([] if theirs in names else [theirs])


def _numbers(file: SceneFile) -> str:
    """What the source says of the numbers in a file."""
    return f"{file.scale},{file.offset},{file.nodata},{file.number}"


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return f"{path} is gone"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


PLAIN = _numbers(SceneFile("", ""))

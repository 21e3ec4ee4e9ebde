"""A scene: which files hold it, and what its source knows of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from configs.workspace import time_name

ARCHIVE = re.compile(r"/vsi(?:zip|tar)/(?P<archive>/.*?\.(?:zip|tar))/.+", re.IGNORECASE)


@dataclass(frozen=True)
class SceneFile:
    """A raster of a scene.

    Attributes:
        band: Name of its band; "" when its bands are named inside.
        path: What is opened: a path on this machine, or one of GDAL's virtual file systems.
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
    def stamp(self) -> tuple[str, ...]:
        """Name, size and modification time of each file: a cheap sign that nothing changed."""
        return tuple(f"{file.path} {file.stamp}" if file.stamp else _stamp(path) for file, path in self._parts())

    def fingerprint(self) -> str:
        """A digest of the content of the files, whatever their names and dates; of remote ones, of their stamps."""
        digest = hashlib.sha256()
        for file, path in self._parts():
            numbers = f"{file.scale},{file.offset},{file.nodata},{file.number}"
            digest.update(f"{file.band}:{numbers}:{path.stat().st_size if path else file.stamp};".encode())
            if path:
                with path.open("rb") as content:
                    while block := content.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()[:32]

    def _parts(self) -> Iterator[tuple[SceneFile, Path | None]]:
        """Each file, with its place on this machine; an archive counts once."""
        seen: set[Path] = set()
        for file in self.files:
            path = file.local
            if path is None or path not in seen:
                yield file, path
            if path is not None:
                seen.add(path)


@dataclass(frozen=True)
class Listing:
    """The scenes of a source, oldest first, and what looks like one but cannot be used, with the reason."""

    scenes: tuple[Scene, ...]
    skipped: tuple[tuple[str, str], ...]


def _stamp(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return f"{path} is gone"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"

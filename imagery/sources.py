"""Sources: how scenes are found. A source lists scenes; `imagery.reading` opens them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from configs.schema import SourceSettings
from configs.workspace import time_name
from imagery.errors import ImageryError

FIELD = re.compile(r"\{(?P<name>\w+)(?::(?P<format>[^}]*))?\}|\*")


@dataclass(frozen=True)
class Scene:
    """One acquisition of one location at one time.

    Attributes:
        location: Name of the place.
        acquired: Time of acquisition, UTC.
        files: The files, by band name; a file that holds several bands has the name "".
        number: Counts scenes of the same location and time, from 1.
    """

    location: str
    acquired: datetime
    files: tuple[tuple[str, Path], ...]
    number: int = 1

    @property
    def scene_id(self) -> str:
        """`<location>/<acquired>[/<n>]`."""
        return f"{self.location}/{time_name(self.acquired)}" + (f"/{self.number}" if self.number > 1 else "")

    @property
    def stamp(self) -> tuple[str, ...]:
        """Name, size and modification time of each file: a cheap sign that nothing changed."""
        stats = ((path, path.stat()) for _, path in self.files)
        return tuple(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)

    def fingerprint(self) -> str:
        """A digest of the content of the files, whatever their names and dates."""
        digest = hashlib.blake2b(digest_size=16)
        for band, path in self.files:
            digest.update(f"{band}:{path.stat().st_size};".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Listing:
    """The scenes below a folder, and the files that look like scenes but have no readable date."""

    scenes: tuple[Scene, ...]
    skipped: tuple[tuple[Path, str], ...]


def find_scenes(source: SourceSettings) -> Listing:
    """List the scenes below `source.root` whose paths match `source.pattern`, oldest first.

    Raises:
        ImageryError: The folder does not exist, or the pattern cannot be read.

    Example:
        A pattern `{location}/{date:%Y-%m-%d}/{band}.tif` reads `paris/2016-11-30/B02.tif` as band B02 of the scene
        `paris/2016-11-30`.
    """
    if not source.root.is_dir():
        raise ImageryError(f"the folder of scenes {source.root} does not exist: set source.root")
    expression, glob, date_format = _compile(source.pattern)
    files: dict[tuple[datetime, str], list[tuple[str, Path]]] = defaultdict(list)
    skipped = []
    for path in sorted(source.root.glob(glob)):
        match = expression.fullmatch(path.relative_to(source.root).as_posix())
        if match is None or not path.is_file():
            continue
        fields = match.groupdict()
        try:
            acquired = datetime.strptime(fields["date"], date_format)
        except ValueError:
            skipped.append((path, f"{fields['date']!r} is not a date of the form {date_format}"))
            continue
        acquired = acquired.replace(tzinfo=UTC) if acquired.tzinfo is None else acquired.astimezone(UTC)
        location = fields.get("location") or source.location or ""
        files[acquired, location].append((fields.get("band") or "", path))
    scenes = [
        scene for (acquired, location), found in sorted(files.items()) for scene in _scenes(location, acquired, found)
    ]
    return Listing(tuple(scenes), tuple(skipped))


def _scenes(location: str, acquired: datetime, found: list[tuple[str, Path]]) -> list[Scene]:
    """One scene of all files with a band name, and one of each file without."""
    by_band = tuple((band, path) for band, path in found if band)
    groups = [(item,) for item in found if not item[0]] + ([by_band] if by_band else [])
    return [Scene(location, acquired, group, number) for number, group in enumerate(groups, start=1)]


def _compile(pattern: str) -> tuple[re.Pattern[str], str, str]:
    """A path pattern as a regular expression, a glob, and the date's format."""
    expression, glob, position, date_format = "", "", 0, ""
    seen: set[str] = set()
    for field in FIELD.finditer(pattern):
        literal = pattern[position : field.start()]
        position = field.end()
        expression += re.escape(literal)
        glob += re.sub(r"([*?\[])", r"[\1]", literal)
        name = field["name"]
        if name is None:
            expression += r"[^/]*"
        elif name not in ("location", "date", "band"):
            raise ImageryError(f"the pattern {pattern!r} has an unknown field {{{name}}}: use location, date or band")
        else:
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
        if name == "date" and field["format"]:
            date_format = field["format"]
        # A date with slashes would span folders, which `[^/]+` does not.
        if "/" in (field["format"] or ""):
            raise ImageryError(f"the date format {field['format']!r} in {pattern!r} spans folders, which it cannot")
        glob += "*"
    literal = pattern[position:]
    glob = re.sub(r"\*+", "*", glob + re.sub(r"([*?\[])", r"[\1]", literal))
    return re.compile(expression + re.escape(literal)), glob, date_format or "%Y-%m-%d"

"""Scenes as files whose names tell place, date and band."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

from configs.schema import SourceSettings
from imagery.errors import ImageryError
from imagery.sources.scene import Listing, Scene, SceneFile
from imagery.sources.storage import Storage

NOT_UTF8 = "its name is not valid UTF-8: rename it"
DIRECTIVES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%j": r"\d{3}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
    "%f": r"\d{1,6}",
    "%z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%%": "%",
}
FIELD = re.compile(r"\{(?P<name>\w+)(?::(?P<format>[^}]*))?\}|\*")


def find_by_pattern(source: SourceSettings, storage: Storage) -> Listing:
    """List the scenes whose names match `source.pattern`, oldest first.

    Numbers in dates are expected with their leading zeros; where a name could be read in several ways, the reading that
    gives a date is taken.

    Raises:
        ImageryError: The pattern cannot be read.

    Example:
        A pattern `{location}/{date:%Y-%m-%d}/{band}.tif` reads `paris/2016-11-30/B02.tif` as band B02 of the scene
        `paris/2016-11-30`.
    """
    pattern = _compile(source.pattern)
    files: dict[tuple[datetime, str], list[SceneFile]] = defaultdict(list)
    skipped = []
    for stored in storage.files(pattern.glob):
        if not _is_utf8(stored.name):
            skipped.append(
                (stored.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), NOT_UTF8)
            )
            continue
        match = pattern.strict.fullmatch(stored.name)
        try:
            acquired = datetime.strptime(match["date"] if match else "", pattern.date_format)
        except ValueError:
            resembling = pattern.loose.fullmatch(stored.name)
            if resembling:
                wrong = match["date"] if match else resembling["date"]
                reason = f"{wrong!r} is not a date of the form {pattern.date_format}"
                skipped.append((storage.address(stored.name), reason))
            continue
        fields = match.groupdict() if match else {}
        acquired = acquired.replace(tzinfo=UTC) if acquired.tzinfo is None else acquired.astimezone(UTC)
        location = fields.get("location") or source.location or ""
        file = SceneFile(fields.get("band") or "", storage.address(stored.name), stamp=stored.stamp)
        files[acquired, location].append(file)
    scenes = [
        scene for (acquired, location), found in sorted(files.items()) for scene in _scenes(location, acquired, found)
    ]
    return Listing(tuple(scenes), tuple(skipped))


def _scenes(location: str, acquired: datetime, found: list[SceneFile]) -> list[Scene]:
    """One scene of all files with a band name, and one of each file without."""
    by_band = tuple(file for file in found if file.band)
    groups = [(file,) for file in found if not file.band] + ([by_band] if by_band else [])
    return [Scene(location, acquired, group, number) for number, group in enumerate(groups, start=1)]


@dataclass(frozen=True)
class _Pattern:
    """A path pattern: `strict` asks for what looks like a date, `loose` takes anything in its place."""

    strict: re.Pattern[str]
    loose: re.Pattern[str]
    glob: str
    date_format: str


def _compile(pattern: str) -> _Pattern:
    """Read a path pattern.

    Raises:
        ImageryError: Unknown fields, or a date that is spread over several.
    """
    strict, loose, glob, position, date_format = "", "", "", 0, ""
    seen: set[str] = set()
    for field in FIELD.finditer(pattern):
        literal = pattern[position : field.start()]
        position = field.end()
        name = field["name"]
        if name not in (None, "location", "date", "band"):
            raise ImageryError(f"the pattern {pattern!r} has an unknown field {{{name}}}: use location, date or band")
        if name == "date" and "date" in seen:
            raise ImageryError(f"the pattern {pattern!r} has several dates: one {{date:FORMAT}} must hold all of it")
        if name == "date":
            date_format = field["format"] or "%Y-%m-%d"
            if "/" in date_format:
                raise ImageryError(f"the date format {date_format!r} in {pattern!r} spans folders, which it cannot")
        anything = r"[^/]*" if name is None else f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
        loose += re.escape(literal) + anything
        strict += re.escape(literal) + (f"(?P<date>{_date_expression(date_format)})" if name == "date" else anything)
        glob += _glob_literal(literal) + "*"
        if name:
            seen.add(name)
    rest = pattern[position:]
    return _Pattern(
        re.compile(strict + re.escape(rest)),
        re.compile(loose + re.escape(rest)),
        re.sub(r"\*+", "*", glob + _glob_literal(rest)),
        date_format,
    )


def _date_expression(date_format: str) -> str:
    """What a date of this format looks like."""
    parts = re.split(r"(%.)", date_format)
    return "".join(DIRECTIVES.get(part, r"[^/]+?") if part.startswith("%") else re.escape(part) for part in parts)


def _glob_literal(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Scenes as files whose names tell place, date and band."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from configs.schema import SourceSettings
from imagery.errors import ImageryError
from imagery.sources.scene import Listing, Scene, SceneFile, our_names
from imagery.sources.storage import Storage, glob_literal

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
    gives a date is taken. A file of `source.extra` joins the scene of its location and time, or of its day when its own
    pattern tells no more.

    Raises:
        ImageryError: A pattern cannot be read.

    Example:
        A pattern `{location}/{date:%Y-%m-%d}/{band}.tif` reads `paris/2016-11-30/B02.tif` as band B02 of the scene
        `paris/2016-11-30`.
    """
    patterns = {band: _compile(text) for band, text in source.extra.items()}
    extras = {band: _matches(pattern, source, storage) for band, pattern in patterns.items()}
    taken = {match.name for found, _ in extras.values() for match in found}
    matches, skipped = _matches(_compile(source.pattern), source, storage, taken)
    files: dict[tuple[datetime, str], list[SceneFile]] = defaultdict(list)
    for match in matches:
        bands = our_names(match.band, source.names) if match.band else [""]
        files[match.acquired, match.location] += [_file(band, match, storage) for band in bands]
    scenes = [
        scene for (acquired, location), found in sorted(files.items()) for scene in _scenes(location, acquired, found)
    ]
    skipped += [entry for _, unread in extras.values() for entry in unread]
    skipped += _join(scenes, {band: found for band, (found, _) in extras.items()}, patterns, storage)
    return Listing(tuple(scenes), tuple(skipped))


@dataclass(frozen=True)
class _Match:
    """What a name says; `band` is "" when it says nothing of it."""

    name: str
    location: str
    acquired: datetime
    band: str


def _matches(
    pattern: _Pattern, source: SourceSettings, storage: Storage, taken: Collection[str] = ()
) -> tuple[list[_Match], list[tuple[str, str]]]:
    """The names that fit a pattern, and those that almost do, with the reason; but for those that are taken."""
    matches, skipped = [], []
    for name in storage.files(pattern.glob):
        if name in taken:
            continue
        if not _is_utf8(name):
            skipped.append((name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), NOT_UTF8))
            continue
        match = pattern.strict.fullmatch(name)
        try:
            acquired = datetime.strptime(match["date"] if match else "", pattern.date_format)
        except ValueError:
            resembling = pattern.loose.fullmatch(name)
            if resembling:
                wrong = match["date"] if match else resembling["date"]
                reason = f"{wrong!r} is not a date of the form {pattern.date_format}"
                skipped.append((storage.address(name), reason))
            continue
        fields = match.groupdict() if match else {}
        acquired = acquired.replace(tzinfo=UTC) if acquired.tzinfo is None else acquired.astimezone(UTC)
        location = fields.get("location") or source.location or ""
        if source.since is None or acquired.date() >= source.since:
            matches.append(_Match(name, location, acquired, fields.get("band") or ""))
    return matches, skipped


def _scenes(location: str, acquired: datetime, found: list[SceneFile]) -> list[Scene]:
    """One scene of all files with a band name, and one of each file without."""
    by_band = tuple(file for file in found if file.band)
    groups = [(file,) for file in found if not file.band] + ([by_band] if by_band else [])
    return [Scene(location, acquired, group, number) for number, group in enumerate(groups, start=1)]


def _join(
    scenes: list[Scene], extras: dict[str, list[_Match]], patterns: dict[str, _Pattern], storage: Storage
) -> list[tuple[str, str]]:
    """Add further files to their scenes. One that could belong to several is skipped; one without a scene waits."""
    of_day: dict[tuple[str, date], list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        of_day[scene.location, scene.acquired.date()].append(index)
    skipped = []
    for band, match in ((band, match) for band, found in extras.items() for match in found):
        of_it = of_day[match.location, match.acquired.date()]
        if patterns[band].tells_hours:
            of_it = [index for index in of_it if scenes[index].acquired == match.acquired]
        if len(of_it) > 1:
            told = ", ".join(scenes[index].scene_id for index in of_it)
            reason = f"it could belong to {told}: put the time into source.extra.{band}"
            skipped.append((storage.address(match.name), reason))
            continue
        for index in of_it:
            files = (*scenes[index].files, _file(band, match, storage))
            scenes[index] = replace(scenes[index], files=files)
    return skipped


def _file(band: str, match: _Match, storage: Storage) -> SceneFile:
    return SceneFile(band, storage.address(match.name), stamp=storage.stamp(match.name))


@dataclass(frozen=True)
class _Pattern:
    """A path pattern: `strict` asks for what looks like a date, `loose` takes anything in its place."""

    strict: re.Pattern[str]
    loose: re.Pattern[str]
    glob: str
    date_format: str

    @property
    def tells_hours(self) -> bool:
        """Whether it tells more than the day."""
        return any(code in self.date_format for code in ("%H", "%I", "%c", "%X"))


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
        glob += glob_literal(literal) + "*"
        if name:
            seen.add(name)
    if not date_format:
        raise ImageryError(f"the pattern {pattern!r} has no {{date:FORMAT}} field, so its files would have no date")
    rest = pattern[position:]
    return _Pattern(
        re.compile(strict + re.escape(rest)),
        re.compile(loose + re.escape(rest)),
        re.sub(r"\*+", "*", glob + glob_literal(rest)),
        date_format,
    )


def _date_expression(date_format: str) -> str:
    """What a date of this format looks like."""
    parts = re.split(r"(%.)", date_format)
    return "".join(DIRECTIVES.get(part, r"[^/]+?") if part.startswith("%") else re.escape(part) for part in parts)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

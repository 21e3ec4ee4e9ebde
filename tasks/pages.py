"""The pages people read: what stands out tonight, and how the checks of the scenes went.

A page is one HTML file that needs nothing else: no network, no storage, and no script to be readable. The same view
gives the same bytes. Everything in a view is text from outside and is escaped; a content security policy in the page
keeps it so in the browser as well.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.night_words import asked_words, estimate_words, summarise
from tasks.page_words import area, curve, degrees, main_bands, number, odds, place, plural, share, when
from tasks.pictures import heat_ramp
from tasks.views import CheckView, FlagView, MapView, NightView, PlaceView, SuppressedView, ValidationView

# A night gone wrong can flag every tile: the page stays readable, and the score files have them all.
MAX_ROWS = 1000
MAX_TILES = 60_000  # of all maps, that are told of when they are pointed at
FEW = 3  # flags of a place that are not folded away
MOST_PLACES = 10  # in the overview
SEVERITIES = ("critical", "warning", "info")
PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class RankedFlag:
    """A flag and its number on the page."""

    rank: int
    flag: FlagView


@dataclass(frozen=True)
class RankedPlace:
    """A place and its flags: those with pictures, and those that are only listed."""

    place: PlaceView
    shown: Sequence[RankedFlag]
    listed: Sequence[RankedFlag]

    @property
    def first(self) -> RankedFlag:
        """The least likely one."""
        return min([*self.shown, *self.listed], key=attrgetter("rank"))


@dataclass(frozen=True)
class MarkedMap:
    """A map with what is marked on it. `tiles` is what the script knows of its tiles, '' when that is too much."""

    view: MapView
    flags: Sequence[RankedFlag]
    suppressed: Sequence[tuple[int, SuppressedView]]
    tiles: str


def render_night(view: NightView) -> str:
    """Write the page of a night.

    Raises:
        ValueError: A picture is not a base64 data URI, so the page would need the network.
    """
    places = _cut(rank_places(view.places))
    entries = [entry for place in places for entry in (*place.shown, *place.listed)]
    flags = [entry.flag for entry in entries]
    numbers = [number for flag in flags for number in (flag.score, flag.threshold) if math.isfinite(number)]
    suppressed = list(enumerate(view.suppressed, start=1))[:MAX_ROWS]
    environment = template_environment()
    script = "\n".join(_source(environment, name) for name in ("night.js.j2", "map.js.j2"))
    page = environment.get_template("night.html.j2").render(
        view=view,
        summary=summarise(view),
        asked=asked_words(view.asked, len(view.suppressed)),
        places=places,
        shown=sum(len(place.shown) for place in places),
        listed=sum(len(place.listed) for place in places),
        unlisted=view.flagged - len(entries),
        few=FEW,
        most_places=MOST_PLACES,
        suppressed=suppressed,
        maps=_marked_maps(view.maps, entries, suppressed),
        scale=(min([0.0, *numbers]), max([1e-12, *numbers])),
        observed_rate=view.flagged / view.scored if view.observed_rate is None and view.scored else view.observed_rate,
        checks=_checks_by_scene(view.checks),
        heat_ramp=heat_ramp(8),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    return encodable(page)


def render_validation(view: ValidationView) -> str:
    """Write the page of all checks: failed ones first, the gravest on top."""
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    checks = sorted(
        view.checks,
        key=lambda row: (row.passed, order.get(row.severity, len(order)), row.scene, row.check, row.column),
    )
    failed = {severity: sum(not row.passed and row.severity == severity for row in checks) for severity in SEVERITIES}
    page = (
        template_environment()
        .get_template("validation.html.j2")
        .render(
            view=view,
            checks=checks,
            failed=failed,
            scenes=len({row.scene for row in checks}),
            stopped=len({row.scene for row in checks if not row.passed and row.severity == "critical"}),
        )
    )
    return encodable(page)


def rank_places(places: Sequence[PlaceView]) -> list[RankedPlace]:
    """Put the place with the most unusual flag first, and within it the most unusual flag, and number the flags so.

    More unusual is a smaller p-value, then a larger score.
    """

    def unusual(flag: FlagView) -> tuple[float, float, str, str, str]:
        unknown = flag.p_value is None or math.isnan(flag.p_value)
        p_value = math.inf if flag.p_value is None or unknown else flag.p_value
        return p_value, -flag.score, flag.location, flag.acquired, flag.tile_id

    sorted_flags = [(one, sorted(one.flags, key=unusual)) for one in places if one.flags]
    sorted_flags.sort(key=lambda one: unusual(one[1][0]))
    rank, found = 0, []
    for one, flags in sorted_flags:
        entries = [RankedFlag(rank + number, flag) for number, flag in enumerate(flags, start=1)]
        rank += len(flags)
        with_pictures = [entry for entry in entries if entry.flag.pictures]
        found.append(RankedPlace(one, with_pictures, [entry for entry in entries if not entry.flag.pictures]))
    return found


def _cut(places: Sequence[RankedPlace]) -> list[RankedPlace]:
    """The same with at most so many flags that are only listed; places that are left with none go."""
    left, found = MAX_ROWS, []
    for one in places:
        listed = one.listed[:left]
        left -= len(listed)
        if one.shown or listed:
            found.append(replace(one, listed=listed))
    return found


def _marked_maps(
    maps: Sequence[MapView], entries: Sequence[RankedFlag], suppressed: Sequence[tuple[int, SuppressedView]]
) -> list[MarkedMap]:
    found, left = [], MAX_TILES
    for view in maps:
        left -= len(view.scores)
        flags = [entry for entry in entries if entry.flag.scene == view.scene and entry.flag.window]
        hidden = [(number, row) for number, row in suppressed if row.scene == view.scene and row.window]
        once = [round(one) for one in view.once_in]
        tiles: dict[str, Sequence[float | None]] = {"scores": view.scores, "onceIn": once}
        tiles |= {"tile": view.tile, "rows": view.rows, "columns": view.columns, "size": view.size}
        found.append(MarkedMap(view, flags, hidden, json.dumps(tiles, separators=(",", ":")) if left >= 0 else ""))
    return found


def template_environment() -> Environment:
    """What renders the templates: everything is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("tasks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        share=share,
        number=number,
        odds=odds,
        curve=curve,
        picture=_picture,
        address=_address,
        place=place,
        degrees=degrees,
        bands=main_bands,
        area=area,
        when=when,
        relative=_relative,
        estimate=estimate_words,
    )
    environment.globals["plural"] = plural
    return environment


def _source(environment: Environment, template: str) -> str:
    """Read a script as it stands: its hash is part of the page's security policy."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, template)[0]


def encodable(page: str) -> str:
    """Replace lone surrogates, which file names can bring along and UTF-8 cannot hold."""
    return page.encode("utf-8", "replace").decode("utf-8")


def _picture(uri: str) -> str:
    if not PICTURE.fullmatch(uri):
        raise ValueError(f"a picture must be a base64 data URI (tasks.pictures.png_data_uri), not {uri[:60]!r}")
    return uri


def _address(link: str) -> str | None:
    """Give back an address that may be followed, else None: no `javascript:`, no `data:`."""
    try:
        scheme = urlsplit(link).scheme.lower()
    except ValueError:
        return None
    return link if link.isprintable() and scheme in ("", "http", "https", "file", "mailto") else None


def _relative(path: str) -> str:
    """A path as an address relative to the page: whatever it says, it is a path."""
    return quote(path, errors="replace") if path.startswith(("./", "../")) else f"./{quote(path, errors='replace')}"


@dataclass(frozen=True)
class SceneChecks:
    """How many checks one scene failed."""

    scene: str
    checks: int
    failed: Mapping[str, int]


def _checks_by_scene(checks: Sequence[CheckView]) -> list[SceneChecks]:
    """Sum up checks by scene, those with the gravest failures first."""
    rows = []
    for scene, group in groupby(sorted(checks, key=attrgetter("scene")), key=attrgetter("scene")):
        own = list(group)
        failed = {severity: sum(not c.passed and c.severity == severity for c in own) for severity in SEVERITIES}
        rows.append(SceneChecks(scene, len(own), failed))
    return sorted(rows, key=lambda row: [-row.failed[severity] for severity in SEVERITIES])

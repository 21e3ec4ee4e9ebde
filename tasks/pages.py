"""The pages people read: what stands out tonight, and how the checks of the scenes went.

A page is one HTML file that needs nothing else: no network, no storage, and no script to be readable. The same view
gives the same bytes. Everything in a view is text from outside and is escaped; a content security policy in the page
keeps it so in the browser as well.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.pictures import heat_ramp
from tasks.views import CheckView, FlagView, NightView, ValidationView

# A night gone wrong can flag every tile: the page stays readable, and the score files have them all.
MAX_ROWS = 1000
MAX_BANDS = 12
SEVERITIES = ("critical", "warning", "info")
PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}")
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class RankedFlag:
    """A flag and its place in the ranking, which also names it on the page."""

    rank: int
    flag: FlagView


@dataclass(frozen=True)
class Curve:
    """A line in a box of 100 by 30 units; `pieces` are runs of points without a gap, `limit` is a height."""

    pieces: tuple[str, ...]
    last: tuple[float, float]
    limit: float


def render_night(view: NightView) -> str:
    """Write the page of a night.

    Raises:
        ValueError: A picture is not a base64 data URI, so the page would need the network.
    """
    ranked = rank_flags(view.flags)
    shown = [entry for entry in ranked if entry.flag.pictures]
    listed = [entry for entry in ranked if not entry.flag.pictures]
    numbers = [number for flag in view.flags for number in (flag.score, flag.threshold) if math.isfinite(number)]
    environment = _environment()
    script = _source(environment, "night.js.j2")
    page = environment.get_template("night.html.j2").render(
        view=view,
        summary=summarise(view),
        shown=shown,
        listed=listed[:MAX_ROWS],
        unlisted=view.flagged - len(shown) - len(listed[:MAX_ROWS]),
        scale=(min([0.0, *numbers]), max([1e-12, *numbers])),
        observed_rate=view.flagged / view.scored if view.observed_rate is None and view.scored else view.observed_rate,
        checks=_checks_by_scene(view.checks),
        heat_ramp=heat_ramp(8),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    return _encodable(page)


def render_validation(view: ValidationView) -> str:
    """Write the page of all checks: failed ones first, the gravest on top."""
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    checks = sorted(
        view.checks,
        key=lambda row: (row.passed, order.get(row.severity, len(order)), row.scene, row.check, row.column),
    )
    failed = {severity: sum(not row.passed and row.severity == severity for row in checks) for severity in SEVERITIES}
    page = (
        _environment()
        .get_template("validation.html.j2")
        .render(
            view=view,
            checks=checks,
            failed=failed,
            scenes=len({row.scene for row in checks}),
            stopped=len({row.scene for row in checks if not row.passed and row.severity == "critical"}),
        )
    )
    return _encodable(page)


def rank_flags(flags: Sequence[FlagView]) -> list[RankedFlag]:
    """Put the most unusual first: smallest p-value, then largest score."""

    def unusual(flag: FlagView) -> tuple[float, float, str, str, str]:
        unknown = flag.p_value is None or math.isnan(flag.p_value)
        p_value = math.inf if flag.p_value is None or unknown else flag.p_value
        return p_value, -flag.score, flag.location, flag.acquired, flag.tile_id

    return [RankedFlag(rank, flag) for rank, flag in enumerate(sorted(flags, key=unusual), start=1)]


def summarise(view: NightView) -> tuple[str, ...]:
    """Say in plain words what the night brought: a headline, then sentences."""
    used = sum(scene.status == "scored" for scene in view.scenes)
    chance = view.nominal_rate * view.scored
    if not view.scenes and not view.scored:
        return "No new scenes tonight.", "Nothing was there to be scored."
    if not view.scored:
        return "Nothing could be scored tonight.", "Every tile was covered by cloud, without data, or set aside."
    place = f" in {plural(used, 'scene')}" if used else ""
    if chance >= 0.95:
        expected = f"about {chance:,.0f} {'is' if round(chance) == 1 else 'are'} expected by chance"
    else:
        expected = "one at most is expected by chance" if chance >= 0.05 else "hardly any is expected by chance"
    expected += f" at a false-alarm rate of {share(view.nominal_rate)}."
    if not view.flagged:
        return (
            "Nothing stands out tonight.",
            f"None of the {plural(view.scored, 'tile')} scored{place} passed its threshold; {expected}",
        )
    headline = f"{plural(view.flagged, 'tile')} {'stands' if view.flagged == 1 else 'stand'} out tonight."
    sentence = f"{view.flagged:,} of the {plural(view.scored, 'tile')} scored{place} passed the threshold; {expected}"
    # Tiles of one night are not independent, so this is a hint how to read the list, and not a test.
    if view.flagged > 2 * chance + 2:
        return headline, sentence, "That is more than chance explains."
    return headline, sentence, "Chance may explain them all: trust the ranking more than the count."


def share(value: float | None) -> str:
    """Write a share of 1 as a percentage with as many digits as tell something."""
    if value is None or math.isnan(value):
        return MISSING
    percent = 100 * value
    if percent == round(percent) or percent >= 10:
        return f"{percent:.0f}\u202f%"
    return f"{percent:.1f}\u202f%" if percent >= 0.1 else f"{percent:.1g}\u202f%"


def number(value: float | None) -> str:
    """Write a number with four significant digits."""
    if value is None or math.isnan(value):
        return MISSING
    if abs(value) >= 1000 and math.isfinite(value):
        return f"{value:,.0f}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def plural(count: int, noun: str) -> str:
    """Write a count and its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def odds(p_value: float | None) -> str:
    """Write a p-value in words: 0.0025 is "1 in 400"."""
    if p_value is None or math.isnan(p_value):
        return "not calibrated"
    if p_value < 1e-6:
        return "under 1 in a million"
    once_in = 1 / p_value
    return f"1 in {float(f'{once_in:.2g}'):,.0f}" if once_in >= 100 else f"1 in {once_in:.0f}"


def curve(history: Sequence[tuple[str, float]], limit: float) -> Curve | None:
    """Draw (date, value) as a line; None when fewer than two values are numbers.

    Dates set the horizontal distance when all of them can be read, else the points are evenly spaced.
    """
    values = [value for _, value in history if math.isfinite(value)]
    if len(values) < 2:
        return None
    low, high = min([limit, 0.0, *values]), max([limit, *values])
    room = (high - low) or 1.0
    try:
        days = [datetime.fromisoformat(day) for day, _ in history]
        times = [(day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp() for day in days]
    except ValueError:
        times = [float(place) for place in range(len(history))]
    span = (max(times) - min(times)) or 1.0

    def height(value: float) -> float:
        return round(28 - 26 * (value - low) / room, 2)

    pieces: list[list[str]] = [[]]
    last = (0.0, 0.0)
    for time, (_, value) in zip(times, history, strict=True):
        if not math.isfinite(value):
            pieces.append([])
            continue
        last = (round(2 + 96 * (time - min(times)) / span, 2), height(value))
        pieces[-1].append(f"{last[0]},{last[1]}")
    return Curve(tuple(" ".join(piece) for piece in pieces if piece), last, height(limit))


def _environment() -> Environment:
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
        place=_place,
        degrees=_degrees,
        bands=_main_bands,
    )
    environment.globals["plural"] = plural
    return environment


def _source(environment: Environment, template: str) -> str:
    """Read a script as it stands: its hash is part of the page's security policy."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, template)[0]


def _encodable(page: str) -> str:
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


def _place(value: float, scale: tuple[float, float]) -> str:
    """Say where a number lies between the ends of a scale, in percent for a style sheet."""
    low, high = scale
    position = (value - low) / (high - low) if math.isfinite(value) and high > low else float(value > 0)
    return f"{100 * min(1.0, max(0.0, position)):.1f}%"


def _degrees(value: float, letters: str) -> str:
    """Write degrees with their hemisphere, `letters` being the positive and the negative one."""
    return f"{abs(value):.4f}°\u202f{letters[0] if value >= 0 else letters[1]}"


def _main_bands(errors: Mapping[str, float]) -> list[tuple[str, float]]:
    """Keep the bands with the largest shares of the error, in their own order."""
    largest = sorted(errors, key=lambda band: (-errors[band], band))[:MAX_BANDS]
    return [(band, errors[band]) for band in errors if band in largest]


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

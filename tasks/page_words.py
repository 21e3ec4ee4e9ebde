"""How the pages write numbers: p-values as odds, shares as percentages, places as degrees, histories as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_BANDS = 12
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Curve:
    """A line in a box of 100 by 30 units; `pieces` are runs of points without a gap, `limit` is a height."""

    pieces: tuple[str, ...]
    last: tuple[float, float]
    limit: float


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


def area(square_metres: float) -> str:
    """Write an area: in hectares up to a square kilometre, beyond in square kilometres."""
    if square_metres < 1e4:
        return f"{square_metres:,.0f}\u202fm²"
    return f"{square_metres / 1e4:.3g}\u202fha" if square_metres < 1e6 else f"{square_metres / 1e6:,.3g}\u202fkm²"


def when(acquired: str) -> str:
    """Write a time as people do: the date alone at midnight, since most archives know no more than the day."""
    try:
        time = datetime.fromisoformat(acquired)
    except ValueError:
        return acquired
    if time.time().isoformat() == "00:00:00":
        return time.date().isoformat()
    return f"{time:%Y-%m-%d %H:%M}" + (" UTC" if time.utcoffset() == timedelta(0) else "")


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


def place(value: float, scale: tuple[float, float]) -> str:
    """Say where a number lies between the ends of a scale, in percent for a style sheet."""
    low, high = scale
    position = (value - low) / (high - low) if math.isfinite(value) and high > low else float(value > 0)
    return f"{100 * min(1.0, max(0.0, position)):.4g}%"


def degrees(value: float, letters: str) -> str:
    """Write degrees with their hemisphere, `letters` being the positive and the negative one."""
    return f"{abs(value):.4f}°\u202f{letters[0] if value >= 0 else letters[1]}"


def main_bands(errors: Mapping[str, float]) -> list[tuple[str, float]]:
    """Keep the bands with the largest shares of the error, in their own order."""
    largest = sorted(errors, key=lambda band: (-errors[band], band))[:MAX_BANDS]
    return [(band, errors[band]) for band in errors if band in largest]

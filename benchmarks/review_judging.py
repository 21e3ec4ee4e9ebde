"""What verdicts did to a month: false alarms at restless tiles and elsewhere, recall, precision, with and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.restless import Happening
from tasks.intervals import REPETITIONS, Interval, draws, percentile_interval
from tasks.review.counting import Precision, precision
from tasks.review.verdicts import Verdict

LEARNED = 10  # nights within which the false alarms must become fewer
JUDGED = 5  # nights after them by which that is judged
KEY = ["location", "night", "tile_id"]
SOON = "false alarms at restless tiles, the five nights after"
EVENLY = "recall of events, were they spread evenly"


@dataclass(frozen=True, eq=False)
class Month:
    """A month of nights, judged in one way.

    Attributes:
        name: The way.
        tiles: A row a scored tile and night: `location`, `night`, `tile_id`, `flagged`, `suppressed` (why, else null),
            `alike`.
        verdicts: What was said in the end.
    """

    name: str
    tiles: pd.DataFrame
    verdicts: Sequence[Verdict]


def told(tiles: pd.DataFrame, happened: Sequence[Happening]) -> pd.DataFrame:
    """The tiles with what they show: `restless`, `event`, `group`."""
    rows = [(one.location, one.night, one.tile_id, one.restless, one.event, one.group) for one in happened]
    known = pd.DataFrame(rows, columns=[*KEY, "restless", "event", "group"])
    joined = tiles.merge(known, how="left", on=KEY, validate="one_to_one")
    return joined.fillna({"restless": "", "event": "", "group": ""})


def compared(month: Month, without: Month, happened: Sequence[Happening], seed: int) -> list[dict[str, Any]]:
    """What a way to judge changes, each row with its intervals; blocks of place and night are drawn.

    Args:
        month: With verdicts.
        without: The same nights without any.
        happened: What the tiles show.
        seed: Of the draws.
    """
    pairs = told(without.tiles, happened).merge(month.tiles[[*KEY, "flagged"]], on=KEY, suffixes=("_before", ""))
    first = pairs["night"].min()
    number = pd.Series([(night - first).days + 1 for night in pairs["night"]], pairs.index)
    event, restless, later = pairs["event"] != "", pairs["restless"] != "", number > LEARNED
    rows = {
        "false alarms at restless tiles, first ten nights": restless & ~event & ~later,
        SOON: restless & ~event & later & (number <= LEARNED + JUDGED),
        "false alarms at restless tiles, later nights": restless & ~event & later,
        "false alarms elsewhere": ~restless & ~event,
        "recall of events": event,
    }
    rows |= {
        f"recall of events {name}": event & (pairs["group"] == name) for name in sorted(set(pairs.loc[event, "group"]))
    }
    found = [_row(month.name, what, pairs[where].assign(weight=1.0), seed) for what, where in rows.items()]
    return [*found, _row(month.name, EVENLY, pairs[event].assign(weight=_as_if_even(pairs)), seed)]


def _as_if_even(pairs: pd.DataFrame) -> pd.Series:
    """Weights by which the events on restless tiles count no more than their share of the ground.

    More events are put there than chance would, since else hardly anything were known of them.
    """
    event, restless = pairs["event"] != "", pairs["restless"] != ""
    ground, given = restless.mean(), restless[event].mean()
    on, off = (ground / given, (1 - ground) / (1 - given)) if 0 < given < 1 else (1.0, 1.0)
    return pd.Series(np.where(restless, on, off), pairs.index)


def _row(name: str, what: str, pairs: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Rates with and without verdicts, their difference and ratio."""
    weighed = pairs.assign(
        now=pairs["flagged"] * pairs["weight"], before=pairs["flagged_before"] * pairs["weight"], tiles=pairs["weight"]
    )
    blocks = weighed.groupby(["location", "night"], sort=True)[["now", "before", "tiles"]].sum()
    now, before, tiles = (blocks[name].to_numpy(float) for name in blocks)

    def rates(times: np.ndarray) -> tuple[float, float]:
        count = float(times @ tiles)
        return (float(times @ now) / count, float(times @ before) / count) if count else (np.nan, np.nan)

    whole = rates(np.ones(len(tiles)))
    drawn = [rates(times) for times in draws(len(tiles), REPETITIONS, seed)]

    def interval(value: float, found: Sequence[float]) -> dict[str, float | None]:
        return _rounded(percentile_interval(value, found, len(tiles)))

    return {
        "way": name,
        "what": what,
        "tiles": len(pairs),
        "flags": int(pairs["flagged"].sum()),
        "flags_without": int(pairs["flagged_before"].sum()),
        "rate": interval(whole[0], [one for one, _ in drawn]),
        "rate_without": interval(whole[1], [other for _, other in drawn]),
        "difference": interval(whole[0] - whole[1], [one - other for one, other in drawn]),
        "ratio": interval(_ratio(*whole), [_ratio(*one) for one in drawn]),
    }


def _ratio(one: float, other: float) -> float:
    return one / other if other else np.nan


def _rounded(found: Interval) -> dict[str, float | None]:
    numbers = {"value": found.value, "low": found.low, "high": found.high}
    return {name: round(number, 4) if np.isfinite(number) else None for name, number in numbers.items()}


def goals(rows: Sequence[Mapping[str, Any]], way: str) -> dict[str, dict[str, Any]]:
    """Whether a way to judge meets what is asked of it; `sure`: the whole interval does.

    Recall is told twice: of events anywhere, and as they were put, more often on restless tiles than chance would.
    """
    of = {row["what"]: row for row in rows if row["way"] == way}
    ratio = of[SOON]["ratio"]
    losses = {"were they spread evenly": of[EVENLY], "as they were put": of["recall of events"]}
    most, least = 0.5, -0.02

    def holds(number: float | None, goal: float, sign: int) -> bool:
        return number is not None and sign * number <= sign * goal

    return {
        "false alarms at restless tiles after ten nights, of those without": {
            **ratio, "goal": most, "met": holds(ratio["value"], most, 1), "sure": holds(ratio["high"], most, 1),
        },
        **{
            f"change of recall of events, {how}": {
                **row["difference"], "goal": least, "met": holds(row["difference"]["value"], least, -1),
                "sure": holds(row["difference"]["low"], least, -1),
            }
            for how, row in losses.items()
        },
    }  # fmt: skip


def precisions(verdicts: Sequence[Verdict], first: date) -> dict[str, dict[str, Any]]:
    """Precision among the reviewed flags, by the reviewer's own words, early and late."""
    early = [one for one in verdicts if (one.night - first).days < LEARNED]
    late = [one for one in verdicts if (one.night - first).days >= LEARNED]
    return {name: _words(precision(some)) for name, some in (("first ten nights", early), ("later nights", late))}


def _words(found: Sequence[Precision]) -> dict[str, Any]:
    if not found:
        return {"reviewed": 0}
    (one,) = found
    return {
        "reviewed": one.anomalies + one.false_alarms + one.clouds,
        "share": round(one.share, 4), "low": round(one.low, 4), "high": round(one.high, 4),
    }  # fmt: skip


def said(month: Month) -> dict[str, int]:
    """How many verdicts of which sort."""
    asked = pd.Series([one.asked for one in month.verdicts]).value_counts().sort_index()
    verdicts = pd.Series([one.verdict for one in month.verdicts if one.asked == "flag"]).value_counts().sort_index()
    return {f"of {name}": int(count) for name, count in asked.items()} | {
        f"flags: {name}": int(count) for name, count in verdicts.items()
    }


def suppressed(month: Month, happened: Sequence[Happening]) -> dict[str, int]:
    """How many flags were suppressed by what, and how many of them were events."""
    events = {(one.location, one.night, one.tile_id) for one in happened if one.event}
    held_back = month.tiles[month.tiles["suppressed"].notna()]
    event = pd.Series(
        [row in events for row in held_back[KEY].itertuples(index=False, name=None)], held_back.index, bool
    )
    alike = held_back["alike"].notna()
    return {
        "by bars": int((~alike).sum()),
        "by bars, events": int((~alike & event).sum()),
        "as look-alikes": int(alike.sum()),
        "as look-alikes, events": int((alike & event).sum()),
    }


def by_night(month: Month, happened: Sequence[Happening]) -> pd.DataFrame:
    """Of each night the share of restless tiles without an event that were flagged, and of events that were found."""
    tiles = told(month.tiles, happened)
    quiet = tiles[(tiles["restless"] != "") & (tiles["event"] == "")].groupby("night")["flagged"].mean()
    found = tiles[tiles["event"] != ""].groupby("night")["flagged"].mean()
    return pd.DataFrame({"restless": quiet, "recall": found}).sort_index()

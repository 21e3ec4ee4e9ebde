"""The smoke alarm: what a detector finds of anomalies that are put into normal tiles, and what it would miss.

There are no labels, so nothing else says before the first real flood that floods would go unseen. Tuning and the gate
of a new champion use the same numbers. They are of made things: they compare detectors, and promise no recall.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Generic, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from configs import SettingsError
from configs.schema import InjectionSettings
from imagery.inject import KINDS, CannotInject, inject
from tasks.metrics import average_precision, bootstrap, recall

REPETITIONS = 200  # of the bootstrap: enough to see how wide an interval is, and a smoke alarm must be cheap
POOL = 4  # times the tiles of a kind are kept: to find water for slicks, and to compare with

Context = TypeVar("Context")


class NothingToInject(ValueError):
    """There is no normal tile to put an anomaly into."""


@dataclass(frozen=True, eq=False)
class HeldOut(Generic[Context]):
    """A tile that is normal, and was not learned from.

    Attributes:
        key: Its own: tile id and date.
        place: Tile id; what is pasted comes from another place.
        group: What is drawn as a whole for the intervals: the location, or with one location the date.
        values: (C, S, S) float32, physical units.
        valid: (S, S) bool.
        context: Whatever else the judge needs, e.g. the reference of the tile.
    """

    key: str
    place: str
    group: str
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    context: Context


@dataclass(frozen=True)
class Judged:
    """What a detector says of N tiles: (N,) scores, NaN without one, and (N,) bool flags."""

    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]


# (N, C, S, S) values, (N, S, S) masks, and the N tiles that they were, changed or not.
Judge = Callable[[NDArray[np.float32], NDArray[np.bool_], Sequence[HeldOut[Context]]], Judged]


@dataclass(frozen=True)
class SmokeAlarm:
    """What came of it.

    Attributes:
        table: One row a kind. `kind`; `event`, else weather or a fault of the data; `strength`; `tiles` that were
            injected and scored; `recall`, the share of them that is flagged at the threshold in force, with
            `recall_low` and `recall_high`; `ap`, average precision against the untouched tiles, with `ap_low`,
            `ap_high`; `chance`, the average precision of a random order; `note`, why fewer tiles than asked.
        untouched: How many untouched tiles were scored.
        false_alarms: Share of them that is flagged.
        warnings: What the detector would miss, in words.
    """

    table: pd.DataFrame
    untouched: int
    false_alarms: float
    warnings: list[str]

    @property
    def mean_ap(self) -> float:
        """Average precision, as the mean of all kinds of events that could be injected: the number to choose by."""
        return float(self.table.loc[self.table["event"], "ap"].mean())


def smoke_alarm(
    tiles: Iterable[HeldOut[Context]],
    judge: Judge[Context],
    bands: Sequence[str],
    settings: InjectionSettings,
    seed: int = 0,
) -> SmokeAlarm:
    """Inject every kind into held-out tiles, and see what is flagged.

    Every kind goes into the same tiles, as far as they can take it, so that kinds and detectors can be compared. Which
    tiles are taken depends on their keys and the seed, not on their order.

    Args:
        tiles: Normal tiles that were not learned from. They are read once, and a few kept.
        judge: The detector with its threshold; called once for the untouched tiles, and once a kind.
        bands: Names of the bands.
        settings: Which kinds, how strong, how many tiles.
        seed: Of tiles and shapes.

    Raises:
        SettingsError: A kind that does not exist.
        NothingToInject: No tiles.
    """
    names = kinds_of(settings)
    pool = nsmallest(POOL * settings.tiles, tiles, key=lambda tile: _lot(seed, tile.key))
    if not pool:
        raise NothingToInject("there is no held-out tile to inject anything into")
    normal = judge(np.stack([tile.values for tile in pool]), np.stack([tile.valid for tile in pool]), pool)
    rows = [_row(name, pool, normal, judge, bands, settings, seed) for name in names]
    scored = np.isfinite(normal.score)
    table = pd.DataFrame(rows)
    return SmokeAlarm(
        table,
        int(scored.sum()),
        float(normal.flagged[scored].mean()) if scored.any() else float("nan"),
        _warnings(table, settings.warn_below),
    )


def recall_figure(alarm: SmokeAlarm) -> Figure:
    """What share of each kind is flagged, with its interval; a dot is the average precision."""
    table = alarm.table[alarm.table["tiles"] > 0].iloc[::-1]
    figure = Figure(figsize=(8, 0.34 * len(table) + 1.8), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(table))
    colours = ["tab:blue" if event else "0.65" for event in table["event"]]
    axis.barh(places, table["recall"], color=colours, alpha=0.8)
    axis.hlines(places, table["recall_low"], table["recall_high"], color="0.2", linewidth=1.2)
    axis.plot(table["ap"], places, "o", color="tab:orange", label="average precision")
    axis.set_yticks(places, [f"{row.kind}, strength {row.strength:g}, {row.tiles} tiles" for row in table.itertuples()])
    axis.axvline(alarm.false_alarms, color="tab:red", linestyle=":", label="flagged of the untouched tiles")
    axis.set(xlim=(0, 1.02), xlabel="share flagged", title="Injected anomalies: events blue, weather and faults grey")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def kinds_of(settings: InjectionSettings) -> list[str]:
    """Names of the kinds that are injected.

    Raises:
        SettingsError: A kind that does not exist.
    """
    names = list(KINDS) if settings.kinds is None else list(settings.kinds)
    unknown = sorted({*names, *settings.strengths} - set(KINDS))
    if unknown:
        raise SettingsError(f"injections: unknown kind(s) {', '.join(unknown)}: there are {', '.join(KINDS)}")
    return names


def _lot(seed: int, *names: str) -> bytes:
    """A draw that depends on names alone."""
    return hashlib.blake2b("\0".join([str(seed), *names]).encode(), digest_size=16).digest()


def _row(
    name: str,
    pool: Sequence[HeldOut[Context]],
    normal: Judged,
    judge: Judge[Context],
    bands: Sequence[str],
    settings: InjectionSettings,
    seed: int,
) -> dict[str, object]:
    strength = settings.strengths.get(name, KINDS[name].strength)
    changed, hosts, reason = _injected(name, strength, pool, bands, settings.tiles, seed)
    row: dict[str, object] = {"kind": name, "event": KINDS[name].event, "strength": strength}
    judged = Judged(np.empty(0), np.empty(0, bool))
    if hosts:
        judged = judge(np.stack(changed), np.stack([tile.valid for tile in hosts]), hosts)
    scored = np.isfinite(judged.score)
    count, untouched = int(scored.sum()), int(np.isfinite(normal.score).sum())
    groups = np.array([tile.group for tile in hosts], dtype=str)
    found = bootstrap(recall, np.where(scored, judged.flagged, np.nan), np.ones(len(hosts)), groups, REPETITIONS, seed)
    ranked = bootstrap(
        average_precision,
        np.concatenate([judged.score, normal.score]),
        np.repeat([1, 0], [len(hosts), len(pool)]),
        np.concatenate([groups, np.array([tile.group for tile in pool], dtype=str)]),
        REPETITIONS,
        seed,
    )
    return row | {
        "tiles": count,
        "recall": found.value,
        "recall_low": found.low,
        "recall_high": found.high,
        "ap": ranked.value,
        "ap_low": ranked.low,
        "ap_high": ranked.high,
        "chance": count / (count + untouched) if count else float("nan"),
        "note": reason if len(hosts) < settings.tiles else "",
    }


def _injected(
    name: str, strength: float, pool: Sequence[HeldOut[Context]], bands: Sequence[str], most: int, seed: int
) -> tuple[list[NDArray[np.float32]], list[HeldOut[Context]], str]:
    """The changed tiles, what they were, and why the last one that could not be changed could not."""
    changed: list[NDArray[np.float32]] = []
    hosts: list[HeldOut[Context]] = []
    reason = f"there are only {len(pool)} held-out tiles"
    for tile in pool:
        if len(hosts) == most:
            break
        try:
            donor = _donor(tile, pool, seed)
            found = inject(tile.values, tile.valid, bands, name, seed, key=tile.key, strength=strength, donor=donor)
        except CannotInject as error:
            reason = str(error)
            continue
        changed.append(found.values)
        hosts.append(tile)
    return changed, hosts, reason


def _donor(tile: HeldOut[Context], pool: Sequence[HeldOut[Context]], seed: int) -> NDArray[np.float32] | None:
    """The values of a tile of another place, NaN where it has none; None where there is no other place."""
    others = [other for other in pool if other.place != tile.place and other.values.shape == tile.values.shape]
    if not others:
        return None
    donor = min(others, key=lambda other: _lot(seed, tile.key, other.key))
    return np.where(donor.valid, donor.values, np.float32(np.nan))


def _warnings(table: pd.DataFrame, least: float) -> list[str]:
    """Events of which less than a share is flagged, in words, the most missed first."""
    events = table[table["event"] & (table["tiles"] > 0)]
    missed = events[events["recall"] < least].sort_values(["recall", "kind"])
    return [
        f"this detector would miss {KINDS[row.kind].what}: {row.recall:.0%} of {row.tiles} injected are flagged"
        for row in missed.itertuples()
    ]

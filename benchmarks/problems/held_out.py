"""Real tiles to fit networks to, and others to judge them by: of other cities, or of later years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks import ours
from benchmarks.problems import oscd, romania
from benchmarks.problems.common import TILE, Floats, Pair
from benchmarks.series_product import normalisation_of, past_of
from imagery.expected import Past
from imagery.robust import evenly
from tasks.conditions import season_of
from vae.conditions import Conditions
from vae.normalisation import Normalisation
from vae.tiles import TileArrays

HELD_OUT = ("beihai", "cupertino", "paris", "rennes")
QUICK = ("bordeaux", "rennes")
FEW_DATES = 8, 4  # of the quick run, to learn from and to judge by


@dataclass(frozen=True)
class Problem:
    """Tiles in physical units with what may be told of them, and the product's default normalisation by the first.

    Attributes:
        name: Of the data.
        train: To learn from.
        held_out: To judge by, of other places or later years.
        normalisation: By the training tiles.
        condition: What is known of the tiles.
    """

    name: str
    train: TileArrays
    held_out: TileArrays
    normalisation: Normalisation
    condition: tuple[str, ...]


def cities(most: int, quick: bool = False) -> Problem:
    """The later dates of OSCD's cities, four of them held out; the earlier date is what may be told.

    Args:
        most: Tiles of either part.
        quick: Two cities only.
    """
    pairs = oscd.cities(QUICK if quick else None)
    train, held_out = ([pair for pair in pairs if (pair.name in HELD_OUT) == held] for held in (False, True))
    tiles = [_of_pairs(some, most) for some in (train, held_out)]
    return Problem("oscd", tiles[0], tiles[1], ours.normalisation_of(train), ("reference",))


def series(most: int, quick: bool = False) -> Problem:
    """Clear tiles of the Romanian series, the years from 2019 on held out; season and past may be told.

    Args:
        most: Tiles of either part.
        quick: A few dates only.
    """
    found = romania.read_series()
    before, after = (found.looked_at[found.tested[found.looked_at] == late] for late in (False, True))
    if quick:
        before, after = (dates[evenly(len(dates), few)] for dates, few in zip((before, after), FEW_DATES, strict=True))
    train, held_out = (_of_series(found, dates, most) for dates in (before, after))
    return Problem("romania", train, held_out, normalisation_of(found, before), ("season", "reference"))


def _of_pairs(pairs: Sequence[Pair], most: int) -> TileArrays:
    parts = []
    for pair in pairs:
        some = replace(pair, tiles=pair.tiles[(pair.tiles % TILE == 0).all(axis=1)])
        past = ours.past_of(pair)
        told = None if past is None else Past(some.crops(past.values), ours.masks(some, past.valid))
        values = some.crops(some.after)
        parts.append(TileArrays(values, ours.masks(some, some.valid), _told(values, told)))
    return _thinned(parts, most)


def _of_series(found: romania.Series, dates: Sequence[int], most: int) -> TileArrays:
    parts = []
    for date in map(int, dates):
        side = int(np.sqrt(found.clear.shape[1]))
        apart = np.arange(side * side).reshape(side, side)[:: TILE // romania.STRIDE, :: TILE // romania.STRIDE].ravel()
        rows = apart[found.clear[date, apart]]
        past = past_of(found, date)
        told = None if past is None else Past(_cut(past.values, rows), _cut(past.valid, rows))
        season = season_of(found.days[date].astype(object))
        values, valid = _cut(found.values[date], rows), _cut(found.valid[date], rows)
        parts.append(TileArrays(values, valid, _told(values, told, season)))
    return _thinned(parts, most)


def _cut(image: NDArray[np.generic], rows: NDArray[np.intp]) -> NDArray[np.generic]:
    """(n, …, TILE, TILE) some tiles of an (…, H, W) image."""
    return np.ascontiguousarray(np.moveaxis(romania.windows(image), -3, 0)[rows])


def _told(values: Floats, past: Past | None, season: float | None = None) -> Conditions:
    """What is known of tiles (N, C, TILE, TILE) of one date; without a past, that none of it is valid."""
    given = (
        (np.zeros_like(values), np.zeros((len(values), TILE, TILE), bool))
        if past is None
        else (past.values, past.valid)
    )
    days = None if season is None else np.full(len(values), season, np.float32)
    return Conditions(season=days, reference=given[0], reference_valid=given[1])


def _thinned(parts: Sequence[TileArrays], most: int) -> TileArrays:
    """All of them together, evenly thinned to so many."""
    conditions = [part.conditions for part in parts if part.conditions is not None]
    together = TileArrays(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.valid for part in parts]),
        Conditions.joined(conditions),
    )
    return together.rows(evenly(len(together), most))

"""The product on a series: each date as tonight, with the scenes before it that the product would choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date as Day

import numpy as np

from benchmarks.expecting import expected
from benchmarks.ours import VISIBLE
from benchmarks.problems.common import TILE
from benchmarks.problems.romania import Altered, Scores, Series, windows
from benchmarks.series_methods import Method
from configs.schema import ModelSettings, NormaliseSettings, ReferenceSettings, ScoreSettings
from imagery.expected import Past
from imagery.expected.expectation import split_witness
from imagery.reference import choose_members
from tasks.train import LEARNED_SCENES
from vae.detector import Detector, NormalTiles
from vae.normalisation import Normalisation

DEFAULT = "change, the default"
SHOWN = {"change": DEFAULT, "aligned_difference": "aligned_difference, no network", "texture_difference": "texture"}
ALONE = "change, without witness"


@dataclass(frozen=True)
class Dated:
    """A date, as `imagery.reference.choose_members` knows scenes of the catalog."""

    number: int
    day: Day
    valid_fraction: float

    @property
    def acquired(self) -> Day:
        """When."""
        return self.day

    @property
    def scene_id(self) -> str:
        """Its number."""
        return str(self.number)


class Product(Method):
    """The scores of change that need no training; they learn what is usual on the dates before the tests."""

    name, family = "product", "ours"

    def learn(self, series: Series) -> Mapping[str, Scores]:
        before = [int(date) for date in series.looked_at if not series.tested[date]]
        self._detector = _untaught(series, before)
        spread = [
            before[index] for index in np.linspace(0, len(before) - 1, min(LEARNED_SCENES, len(before))).astype(int)
        ]
        self._detector = self._detector.with_constants(lambda: _normal_tiles(series, spread))
        self._scores = self._scored(series, [int(date) for date in series.looked_at])
        return self._scores

    def scores(self, altered: Altered) -> Mapping[str, Scores]:
        """Of the dates that the events ask about; they need no other, since nothing is remembered between dates."""
        asked = sorted({int(date) for event in altered.events for date in event.dates})
        found = self._scored(altered.series, asked)
        for name, scores in found.items():
            scores[: altered.since] = self._scores[name][: altered.since]
        return found

    def _scored(self, series: Series, dates: Sequence[int]) -> dict[str, Scores]:
        found = {name: np.full(series.clear.shape, np.nan) for name in (*SHOWN.values(), ALONE)}
        for date in dates:
            past = past_of(series, date)
            if past is None:
                continue
            values, valid = _tiles(series, date)
            given = past.each(_cut)
            scored = self._detector.score(values, valid, past=given)
            for name, shown in SHOWN.items():
                found[shown][date] = scored.components[name]
            alone = replace(given, witness=None, witness_expected=None, witness_valid=None)
            found[ALONE][date] = self._detector.score(values, valid, past=alone).components["change"]
        return found


def past_of(series: Series, date: int) -> Past | None:
    """What the dates before one let expect of it; None when they do not say enough."""
    share = series.valid.mean(axis=(1, 2))
    dated = [Dated(one, series.days[one].astype(object), float(share[one])) for one in range(date + 1)]
    members = choose_members(dated, dated[date].day, ReferenceSettings())
    if not members:
        return None
    regressors, witness = split_witness(members)
    rows = [one.number for one in regressors]
    newest = None if witness is None else witness.number
    return expected(
        series.values[date],
        series.valid[date],
        series.values[rows],
        series.valid[rows],
        series.bands,
        None if newest is None else (series.values[newest], series.valid[newest]),
    )


def _untaught(series: Series, before: Sequence[int]) -> Detector:
    """A detector without a network, its normalisation by the dates before the tests."""
    visible = tuple(series.bands.index(band) for band in VISIBLE)
    first, *others = SHOWN
    scores = ScoreSettings(name=first, without_past="rx", also=tuple(others))
    normalisation = normalisation_of(series, before)
    return Detector((), normalisation, ModelSettings(members=0), scores, TILE, visible=visible)


def normalisation_of(series: Series, dates: Sequence[int]) -> Normalisation:
    """The product's default, by the pixels of some dates."""
    settings = NormaliseSettings()
    pixels = np.concatenate([series.values[date][:, series.valid[date]] for date in dates], axis=1)
    low, high = np.percentile(pixels, settings.percentiles, axis=1)
    limits = {band: (float(low[index]), float(high[index])) for index, band in enumerate(series.bands)}
    return Normalisation.from_limits(limits, log=settings.log, clip=settings.clip, log_offset=settings.log_offset)


def _normal_tiles(series: Series, dates: Sequence[int]) -> Iterator[NormalTiles]:
    for date in dates:
        past = past_of(series, date)
        yield NormalTiles(*_tiles(series, date), None if past is None else past.each(_cut))


def _tiles(series: Series, date: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, C, TILE, TILE) tiles of a date and (N, TILE, TILE) their masks."""
    return _cut(series.values[date]), _cut(series.valid[date])


def _cut(image: np.ndarray) -> np.ndarray:
    """(N, …, TILE, TILE) the tiles of an (…, H, W) image."""
    return np.ascontiguousarray(np.moveaxis(windows(image), -3, 0))

"""How often nights without a drift alarm, and how soon one with a drift does: simulated seasons of many nights."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pytest
from scipy.stats import kstwobign, norm

from configs.schema import DriftSettings
from vae.drift import lasting, null_by_dates, statistics, verdict, window_length, window_statistics
from vae.drift_profile import (
    BAND_BINS,
    LATENT_BINS,
    LATENT_RANGE,
    SCORE_BINS,
    SCORE_DECADES,
    Histograms,
    Profile,
)

BANDS, CLIP, PIXELS = ("B02", "B03", "B04", "B08"), 3.0, 64
GROUND, WITHIN = 0.6, 0.2  # how far tiles, and pixels of a tile, lie apart; normalised units
HAZE, TINT = 0.03, 0.01  # how far nights lie apart: in all bands, and in each; log units
LOG_UNIT = 1.2  # of a normalised unit
SETTINGS = DriftSettings()
DATES, LOCATIONS = 48, 3


@dataclass
class Sky:
    """Nights as histograms: drawn from what they would be, so that a hundred times the tiles take no more time."""

    seed: int
    tiles: int = 36

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)
        self.means = self.draw.normal(0, 0.3, (LOCATIONS, len(BANDS)))

    def night(self, day: date, gain: float = 1.0) -> Profile:
        season = 0.2 * np.cos(2 * np.pi * day.timetuple().tm_yday / 365.25) * np.array([0.3, 0.5, 0.6, -1.0])
        found = {}
        for number in range(LOCATIONS):
            light = np.log(gain) + self.draw.normal(0, HAZE) + self.draw.normal(0, TINT, len(BANDS))
            seen = int(self.draw.integers(self.tiles // 2, self.tiles + 1))  # the rest is under cloud
            left_out = GROUND * np.sqrt(1 / seen - 1 / self.tiles)  # by chance, clouds hide the bright or the dark
            centres = self.means[number] + season + light / LOG_UNIT + self.draw.normal(0, left_out, len(BANDS))
            values = [self._count(seen * PIXELS, BAND_BINS, CLIP, at, np.hypot(GROUND, WITHIN)) for at in centres]
            latent = [self._count(seen, LATENT_BINS, LATENT_RANGE, 0.5 * at, 0.4) for at in centres[:2]]
            level = -2 + 0.05 * abs(centres.mean()) + self.draw.normal(0, 0.02)
            scores = self._count(seen, SCORE_BINS, SCORE_DECADES[1], level, 0.3)
            found[f"place {number}", day] = Histograms(BANDS, CLIP, np.array(values), np.array(latent), scores, seen)
        return Profile(found)

    def _count(self, total: int, bins: int, reach: float, centre: float, spread: float) -> np.ndarray:
        edges = norm.cdf(np.linspace(-reach, reach, bins + 1)[1:-1], centre, spread)
        return self.draw.multinomial(total, np.diff(edges, prepend=0.0, append=1.0))


@dataclass(frozen=True)
class Season:
    """Whether each night alarmed, and on which nights a drift was declared."""

    alarms: list[bool]
    declared: list[bool]
    told_by_tiles: list[bool]  # by a test that takes pixels for independent

    @property
    def delay(self) -> int | None:
        """Nights from the first to the one that declares the drift, both counted."""
        return self.declared.index(True) + 1 if any(self.declared) else None


def season(seed: int, nights: int, tiles: int = 36, gain: float = 1.0, dates: int = DATES) -> Season:
    """A year of training, and nights every six days after it; the drift, if any, starts with the first of them."""
    sky, training = Sky(seed, tiles), Profile()
    for number in range(dates):
        training = training.merge(sky.night(date(2023, 1, 3) + timedelta(days=int(number * 365 / dates))))
    null, length = null_by_dates(training, SETTINGS), window_length(training, SETTINGS)
    before = [date(2024, 1, 3) + timedelta(days=6 * number) for number in range(length)]  # as they were
    recent = [sky.night(day) for day in before]
    alarms, declared, told = [], [], []
    for number in range(nights):
        day = before[-1] + timedelta(days=6 * (number + 1))
        tonight = sky.night(day, gain)
        recent = [*recent, tonight][-length:]
        window = Profile()
        for one in recent:
            window = window.merge(one)
        found = window_statistics(window.pooled(window.dates), training, day, SETTINGS)
        assert found is not None
        alarms.append(bool(verdict(found, null, SETTINGS)))
        declared.append(lasting(alarms, SETTINGS.patience) is not None)
        told.append(differs(tonight.pooled([day])["place 0"], training.pooled(training.dates)["place 0"]))
    return Season(alarms, declared, told)


def differs(tonight: Histograms, before: Histograms) -> bool:
    """What a Kolmogorov-Smirnov test over pixels says at the five per cent level."""
    n, m = tonight.values[0].sum(), before.values[0].sum()
    return bool(statistics(tonight, before)["ks_B02"] > kstwobign.isf(0.05) * np.sqrt((n + m) / (n * m)))


def share(lists: list[list[bool]]) -> float:
    return float(np.mean(np.concatenate(lists)))


@pytest.mark.slow
def test_a_hundred_times_the_tiles_alarm_no_oftener_where_a_test_over_pixels_would_nearly_every_night() -> None:
    few, many = ([season(seed, 25, tiles) for seed in range(8)] for tiles in (36, 3600))

    rates = [share([one.alarms for one in seasons]) for seasons in (few, many)]
    declared = [share([one.declared for one in seasons]) for seasons in (few, many)]
    assert max(rates) <= 0.05
    assert rates[1] <= rates[0] + 0.02
    assert max(declared) <= 0.03
    assert share([one.told_by_tiles for one in many]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [36, 3600])
def test_a_gain_of_a_fifth_is_declared_within_a_few_nights(tiles: int) -> None:
    delays = [season(seed, 8, tiles, gain=1.2).delay for seed in range(8)]

    assert None not in delays
    assert np.median([delay for delay in delays if delay]) <= 4


if __name__ == "__main__":  # the figures of docs/models.md
    for tiles in (36, 360, 3600):
        calm = [season(seed, 50, tiles) for seed in range(40)]
        print(tiles, "tiles: of 1000 calm nights", end=" ")
        print(*(round(1000 * share([getattr(s, what) for s in calm]), 1) for what in ("alarms", "declared")), end=" ")
        print("by pixels", round(1000 * share([one.told_by_tiles for one in calm])))
        for gain in (1.05, 1.1, 1.2):
            delays = [season(seed, 12, tiles, gain).delay for seed in range(40)]
            known = sorted(delay for delay in delays if delay)
            print(f"  gain {gain}: {len(known)} of 40 in 12 nights, median", known[len(known) // 2] if known else None)

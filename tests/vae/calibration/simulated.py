"""Simulated nights: places that differ, nights that differ, and noise that neighbours share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.schema import CalibrationSettings
from vae.calibration import Calibration, PlaceLevels, fit_calibration, fit_place_levels

HERE = {"backend": "torch-eager", "device": "cpu", "dtype": "float32", "torch": "2.13"}


@dataclass(frozen=True)
class Nights:
    """Raw scores with the date, scene and place of each."""

    scores: np.ndarray
    dates: list[str]
    places: list[str]


def nights(
    dates: int,
    tiles: int = 25,
    seed: int = 0,
    *,
    level: float = 0.5,
    within: float = 0.4,
    shared: float = 0.0,
    spreads: float = 0.0,
    place: float = 0.0,
    drift: float = 0.0,
    least: float = 0.0,
) -> Nights:
    """Log-normal scores: standard deviations of the night's level, of its tiles, of the spread's logarithm, of places.

    Args:
        shared: Share of the variance within a night that one half of its tiles has in common: dependence.
        drift: Added to the log scores from the first to the last date.
    """
    draw = np.random.default_rng(seed)
    usual = np.random.default_rng(99).normal(size=tiles) * place
    logs = []
    for number in range(dates):
        halves = np.where(draw.permutation(tiles) < tiles // 2, draw.normal(), draw.normal())
        noise = np.sqrt(shared) * halves + np.sqrt(1 - shared) * draw.normal(size=tiles)
        spread = within * np.exp(spreads * draw.normal())
        logs.append(usual + level * draw.normal() + spread * noise + drift * number / dates)
    days = [str(np.datetime64("2020-01-01") + number) for number in range(dates) for _ in range(tiles)]
    return Nights(least + np.exp(np.concatenate(logs)), days, [f"p{number}" for number in range(tiles)] * dates)


def calibrate(made: Nights, *, levels: PlaceLevels | None = None, least: float = 0.0, **settings) -> Calibration:
    """A calibration on simulated nights; arguments of the settings, and `most_stored`."""
    arguments = {"most_stored": settings.pop("most_stored")} if "most_stored" in settings else {}
    return fit_calibration(
        made.scores,
        made.dates,
        [f"here/{day}" for day in made.dates],
        made.places,
        CalibrationSettings(**{"false_alarm_rate": 0.05, "min_tiles": 10, "min_dates": 1} | settings),
        score="difference",
        pool="p90",
        least=least,
        basis="held_out",
        runtime=HERE,
        bands=("B04", "B08"),
        detector="abc",
        levels=levels,
        **arguments,
    )


def levels_of(made: Nights, prior: float | None = None, least: float = 0.0) -> PlaceLevels:
    """What is usual at each place."""
    return fit_place_levels(made.scores, made.dates, made.places, least=least, prior=prior)

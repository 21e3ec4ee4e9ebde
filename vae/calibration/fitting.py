"""Making a calibration from the raw scores of normal scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np

from configs.schema import CalibrationSettings
from vae.calibration.calibration import Basis, Calibration
from vae.calibration.judged import relative_scores
from vae.calibration.nights import fit_nights
from vae.calibration.null import Null, fewest, fit_null
from vae.calibration.places import PlaceLevels
from vae.calibration.robust import Floats, groups, log_scores
from vae.calibration.tail import excesses_for, fit_tail
from vae.errors import CalibrationError

MOST_STORED = 100_000  # scores; half of them are the highest, without a gap


def fit_calibration(
    scores: np.ndarray,
    dates: Sequence[str | date],
    scenes: Sequence[str],
    places: Sequence[str] | None,
    settings: CalibrationSettings,
    *,
    score: str,
    pool: str,
    least: float,
    basis: Basis,
    runtime: Mapping[str, str],
    bands: Sequence[str],
    detector: str,
    levels: PlaceLevels | None,
    most_stored: int = MOST_STORED,
) -> Calibration:
    """Calibrate on the raw scores of normal tiles.

    Each calibration scene is centred by its own tiles, exactly as a scene of tonight will be.

    Args:
        scores: (N,) raw scores; NaN (tiles without a score) are left out.
        dates: (N,) acquisition date of each.
        scenes: (N,) scene of each.
        places: (N,) tile of each; None when places are not told apart.
        settings: The rates, and how they are reached.
        score: Name of the score.
        pool: How pixels became one number.
        least: Smallest value the score can take.
        basis: Where the dates come from.
        runtime: Of the detector that gave the scores.
        bands: Names of the bands, in order.
        detector: Digest of what gave the scores.
        levels: What is usual at each place, from other dates; None takes all places to be alike.
        most_stored: More scores are thinned evenly by rank.

    Raises:
        CalibrationError: Too few scores or dates for the settings, or infinite scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores) == len(dates) == len(scenes):
        raise CalibrationError(
            f"{len(scores)} scores, {len(dates)} dates and {len(scenes)} scenes: give a date and a scene for each score"
        )
    if levels is not None and places is None:
        raise CalibrationError("levels of places were given, but no place of a score: give the places too")
    known = ~np.isnan(scores)
    if np.isinf(scores).any():
        raise CalibrationError(
            f"{int(np.isinf(scores).sum())} of {int(known.sum())} calibration scores are infinite: "
            "the detector does not fit these scenes, so check their units and train again"
        )
    days = np.array([_iso(day) for day in dates], dtype=str)[known]
    _enough(len(days), len(np.unique(days)), settings)
    values = log_scores(scores[known], least)
    if levels is None:
        levels = PlaceLevels((), np.empty(0), np.empty(0, dtype=np.int64), float(np.median(values)), float("inf"))
    expected = levels.of(places, len(scores))[known]
    values = values - expected
    by_scene = groups(np.unique(np.array(list(scenes), dtype=str)[known], return_inverse=True)[1])
    nights = fit_nights([values[rows] for rows in by_scene], settings.night)
    found_levels = np.array([nights.level(values[rows]) for rows in by_scene])
    found_spreads = np.array([nights.spread(values[rows]) for rows in by_scene])
    relative = np.empty(len(values))
    for rows, level, spread in zip(by_scene, found_levels, found_spreads, strict=True):
        less, power = nights.taken_out(float(level), float(spread))
        relative[rows] = relative_scores(scores[known][rows], least, np.exp(expected[rows] + less), power)
    return Calibration(
        score=score,
        pool=pool,
        least=float(least),
        settings=settings,
        basis=basis,
        bands=tuple(bands),
        detector=detector,
        runtime=dict(sorted(runtime.items())),
        dates=tuple(np.unique(days).tolist()),
        tiles=len(values),
        levels=levels,
        nights=nights,
        null=_null(relative, days, settings, most_stored),
        night_levels=np.sort(found_levels),
        night_spreads=np.sort(found_spreads),
    )


def _iso(day: str | date) -> str:
    return day.isoformat() if isinstance(day, date) else str(day)


def _enough(tiles: int, dates: int, settings: CalibrationSettings) -> None:
    """Refuse what is too little to calibrate on."""
    rate = settings.false_alarm_rate
    if tiles < settings.min_tiles:
        raise CalibrationError(
            f"{tiles} tiles have a score, calibration.min_tiles asks for {settings.min_tiles}: "
            "add calibration dates, or lower calibration.min_tiles"
        )
    if dates < settings.min_dates:
        raise CalibrationError(
            f"scores are of {dates} dates, calibration.min_dates asks for {settings.min_dates}: "
            "add calibration dates, or lower calibration.min_dates"
        )
    needed = fewest(rate)
    if settings.blocks == "date" and dates < needed:
        raise CalibrationError(
            f"with blocks by date, a false-alarm rate of {rate:g} cannot be reached with {dates} calibration dates, "
            f"{needed} are needed: add calibration dates, raise calibration.false_alarm_rate, "
            "or set calibration.blocks to tile"
        )
    if settings.tail == "empirical" and tiles < needed:
        raise CalibrationError(
            f"a false-alarm rate of {rate:g} cannot be reached with {tiles} calibration tiles, {needed} are "
            "needed: add calibration dates, raise calibration.false_alarm_rate, or set calibration.tail to pareto"
        )


def _null(relative: Floats, days: np.ndarray, settings: CalibrationSettings, most_stored: int) -> Null:
    """Normal scores counted, and their tail fitted where it is asked for."""
    blocks = np.unique(days, return_inverse=True)[1] if settings.blocks == "date" else None
    null = fit_null(relative, blocks, settings.false_alarm_rate, most_stored)
    if settings.tail == "empirical":
        return null
    highest = np.sort(relative)[-excesses_for(len(relative), settings.false_alarm_rate) - 1 :]
    start = float(highest[0])
    share = float(null.p_values(highest[:1])[0])
    return replace(null, tail=fit_tail(highest[1:], start, share))

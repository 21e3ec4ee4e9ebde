"""Is a scene as a whole unusual? What was taken out of its tiles is judged here, so that nothing is hidden by it."""

from __future__ import annotations

import math

import numpy as np

from vae.calibration.robust import Floats, spread

MANY = 5.0  # times the false-alarm rate: so many flags are no false alarms of single tiles
LEAST_FLAGS = 2  # a single flag is one of a tile
LEAST_SPREAD = 1e-3


def beyond(value: float, usual: Floats, rate: float) -> tuple[float, bool]:
    """Conformal p-value of a scene's statistic among those of calibration scenes, and whether it is too high.

    With too few scenes for a p-value as small as `rate` the limit is that of a prediction interval: median plus
    Student's quantile times the robust spread. It assumes a normal distribution, as nothing else is left to assume.

    Args:
        value: Of tonight, a logarithm.
        usual: (K,) of calibration scenes.
        rate: Share of normal scenes that may alarm.
    """
    count = len(usual)
    p_value = (1 + int(np.count_nonzero(usual >= value))) / (count + 1)
    if 1 / (count + 1) <= rate:
        return p_value, p_value <= rate
    if count < 2:
        return p_value, False
    from scipy.stats import t as student  # when it is asked for: training does without scipy

    width = max(spread(usual), LEAST_SPREAD) * math.sqrt(1 + 1 / count)
    return p_value, bool(value > np.median(usual) + student.isf(rate, count - 1) * width)


def alarm_in_words(
    level: tuple[float, float, bool], spreads: tuple[float, float, bool], flags: int, scored: int, rate: float
) -> str | None:
    """Why a scene as a whole is unusual, or None.

    Args:
        level: Multiple of the usual, p-value, and whether it is too high.
        spreads: The same of the spread.
        flags: How many tiles are flagged.
        scored: Of how many.
        rate: False-alarm rate of tiles.
    """
    reasons = []
    if level[2]:
        reasons.append(
            f"all of the scene scores {level[0]:.2g} times the usual (p = {level[1]:.2g} among calibration scenes): "
            "haze, snow, an unusual season, or an event that covers most of it"
        )
    if spreads[2]:
        reasons.append(
            f"its tiles differ {spreads[0]:.2g} times as much as usual (p = {spreads[1]:.2g}): clouds that were not "
            "masked, or an event that covers much of it"
        )
    if flags >= LEAST_FLAGS and flags > MANY * rate * scored:
        reasons.append(f"{flags} of {scored} tiles are flagged, more than {MANY:g} times the {rate:.2g} expected")
    return "; ".join(reasons) or None

"""Without any history: a scene's own tiles say what is usual. Not calibrated, and marked so."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from vae.calibration.judged import Judged, NightLevel, relative_scores
from vae.calibration.robust import log_scores
from vae.errors import CalibrationError

QUARTILES_TO_STD = 1 / (2 * NormalDist().inv_cdf(0.75))  # of a normal distribution
FEWEST_TILES = 8  # with fewer, quartiles say nothing
LEAST_SPREAD = 1e-3
NOTE = "judged by its own tiles, without any history: p-values are not calibrated"


def judge_in_scene(scores: np.ndarray, *, least: float, rate: float) -> Judged:
    """Judge a scene by a log-normal distribution with the median and interquartile range of its own tiles.

    An event that covers less than a quarter of the tiles moves neither much; a greater one hides itself. With fewer
    than `FEWEST_TILES` scored tiles nothing is flagged, p-values are NaN, and the night's note says so.

    Args:
        scores: (N,) raw scores of one scene, NaN without one.
        least: Smallest value the score can take.
        rate: Nominal share of normal tiles that are flagged; about twice as many were, in tests.

    Raises:
        CalibrationError: Infinite scores.
    """
    from scipy.stats import norm  # when it is asked for: training does without scipy

    scores = np.asarray(scores, dtype=np.float64)
    if np.isinf(scores).any():
        raise CalibrationError(
            f"{int(np.isinf(scores).sum())} scores are infinite: the detector does not fit the scene"
        )
    values = log_scores(scores, least)
    known = values[np.isfinite(values)]
    if len(known) < FEWEST_TILES:
        return _not_judged(scores, values, least, len(known))
    median, low, high = np.quantile(known, (0.5, 0.25, 0.75))
    spread = max(float(high - low) * QUARTILES_TO_STD, LEAST_SPREAD)
    usual = np.full(len(scores), np.exp(median))
    relative = relative_scores(scores, least, usual, 1.0)
    threshold = float(np.exp(spread * norm.isf(rate)))
    flagged = relative > threshold
    share = float(flagged.sum() / len(known))
    night = NightLevel(1.0, 1.0, np.nan, np.nan, share, None, NOTE)
    p_value = norm.sf((values - median) / spread)
    return Judged(relative, p_value, flagged, threshold, night, "in_scene", least, usual, 1.0)


def _not_judged(scores: np.ndarray, values: np.ndarray, least: float, known: int) -> Judged:
    """Relative to the median, without a verdict."""
    median = float(np.nanmedian(values)) if known else 0.0
    usual = np.full(len(scores), np.exp(median))
    why = f"{known} tiles have a score, {FEWEST_TILES} are needed to judge a scene by itself: nothing is flagged"
    night = NightLevel(1.0 if known else np.nan, np.nan, np.nan, np.nan, 0.0, None, why)
    nothing = np.zeros(len(scores), dtype=bool)
    relative = relative_scores(scores, least, usual, 1.0)
    p_values = np.full(len(scores), np.nan)
    return Judged(relative, p_values, nothing, float("inf"), night, "in_scene", least, usual, 1.0)

"""Places that raise false alarms again and again: there, and nowhere else, a score must pass a higher bar.

A weighted conformal p-value (Tibshirani, Foygel Barber, Candès & Ramdas 2019, Conformal prediction under covariate
shift, NeurIPS 32; Barber, Candès, Ramdas & Tibshirani 2023, Conformal prediction beyond exchangeability, Annals of
Statistics 51): the calibration weighs 1, and each false alarm at the place weighs κ, less when it is old. With p the
p-value by the calibration alone, and S the summed share of the false alarms that scored as high as tonight or higher,

    p_reviewed = (p + κ S) / (1 + κ S),    κ = α / (r (1 − α)),

is above α exactly where S > r (1 − p / α). So r fresh false alarms stop every score that is no higher than theirs,
fewer stop those that pass the threshold by little, and a higher score than any of theirs is judged as ever. Since it
takes r of them to stop a high score, one that was said by mistake does not lose the event on the following nights.

False alarms below tonight's score are left out of the denominator, where the papers have them. They would make p-values
smaller, so leaving them out keeps a valid p-value valid; and with them a place with many false alarms would need more
than r of them to stop a score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vae.calibration.robust import Floats


def raised_bar(
    alarms: np.ndarray, weights: np.ndarray, repeats: int, rate: float, score_of: Callable[[float], float]
) -> float:
    """The score that must be passed at a place.

    Args:
        alarms: (K,) scores of its false alarms; a higher score is not stopped by them.
        weights: (K,) what each counts: 1 when it is fresh.
        repeats: r, so many fresh ones stop a score that is no higher.
        rate: α, the p-value that a flag must reach.
        score_of: The score beyond which p-values are at most the given one; of α, the threshold.

    Returns:
        The bar; never below the threshold, and never above the highest of threshold and alarms.

    Example:
        >>> raised_bar(np.array([5.0, 7.0, 9.0]), np.ones(3), 2, 0.01, lambda p: 0.03 / p)
        7.0
    """
    order = np.argsort(-np.asarray(alarms, dtype=np.float64), kind="stable")
    scores = np.append(np.asarray(alarms, dtype=np.float64)[order], -np.inf)
    stopped_by = np.append(0.0, np.cumsum(np.asarray(weights, dtype=np.float64)[order]))
    # Between one false alarm and the next higher one, S is the same, and so is the p-value that must be reached.
    return float(
        min(
            max(score, _needed(weight, repeats, rate, score_of))
            for score, weight in zip(scores, stopped_by, strict=True)
        )
    )


def _needed(weight: float, repeats: int, rate: float, score_of: Callable[[float], float]) -> float:
    """The score that must be passed while false alarms of this weight are no lower."""
    left = rate * (1 - weight / repeats)
    return score_of(left) if left > 0 else np.inf


def reviewed_p_values(
    p_values: np.ndarray, scores: np.ndarray, alarms: np.ndarray, weights: np.ndarray, repeats: int, rate: float
) -> Floats:
    """P-values at a place in the light of its false alarms.

    Args:
        p_values: (N,) by the calibration alone, NaN without one.
        scores: (N,) they are of.
        alarms: (K,) scores of its false alarms.
        weights: (K,) what each counts: 1 when it is fresh.
        repeats: r.
        rate: α.

    Returns:
        (N,) never below what is given.
    """
    at_least = np.asarray(alarms)[None, :] >= np.asarray(scores)[:, None]
    stopping = rate / (repeats * (1 - rate)) * (at_least * np.asarray(weights)[None, :]).sum(axis=1)
    reviewed: Floats = (np.asarray(p_values, dtype=np.float64) + stopping) / (1 + stopping)
    return np.where(stopping > 0, reviewed, p_values)


def age_weights(days: np.ndarray, half_life: float) -> Floats:
    """(K,) what false alarms count that are so many days old: 1 until `half_life` days, then a half, then a quarter.

    It falls in steps: if it fell from the first day on, r false alarms would never quite count r, and never quite stop
    a score with a small p-value.
    """
    weights: Floats = 0.5 ** np.floor(np.asarray(days, dtype=np.float64) / half_life)
    return weights

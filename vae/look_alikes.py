"""Look-alikes: changes that resemble one that people have called a false alarm, at any place.

The latent of a tile describes its ground, so what is compared is its change: tonight's latent less the median of the
same tile's on the scenes before. What all tiles of a scene have in common, such as another light, is taken out of it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from vae.calibration.robust import MAD_TO_STD, Floats

STRONGEST = 0.25  # share of a tile's cells that a change is described by
LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Match:
    """The false alarm that a change is like.

    Attributes:
        index: Which one.
        distance: From it, as a share of the change's own size.
    """

    index: int
    distance: float


def latent_changes(now: np.ndarray, past: np.ndarray) -> Floats:
    """How the latents of a scene's tiles have changed.

    Args:
        now: (N, L, h, w) posterior means, NaN for tiles without any.
        past: (K, N, L, h, w) of the same tiles on scenes before.

    Returns:
        (N, L, h, w); NaN for tiles of which nothing is known now, or nothing before.
    """
    if not len(past) or not len(now):
        return np.full(now.shape, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # tiles that were never seen
        changed: Floats = now.astype(np.float64) - np.nanmedian(past, axis=0)
        common = np.nanmedian(changed, axis=(0, 2, 3))
    return changed - np.where(np.isfinite(common), common, 0.0)[:, None, None]


def signatures(changes: np.ndarray) -> Floats:
    """(N, L) what a change is like, wherever in its tile it lies: the mean of the cells that have changed most.

    Args:
        changes: (N, L, h, w).
    """
    count, channels, height, width = changes.shape
    cells = changes.reshape(count, channels, height * width)
    length = np.nan_to_num(np.square(cells).sum(axis=1), nan=-1.0)
    some = max(1, round(STRONGEST * height * width))
    strongest = np.argsort(-length, axis=1, kind="stable")[:, :some]
    found: Floats = np.take_along_axis(cells, strongest[:, None, :], axis=2).mean(axis=2)
    return found


def spread_of(normal: np.ndarray) -> Floats:
    """(L,) how much each channel of normal changes varies, by the median absolute deviation about 0.

    Args:
        normal: (N, L) signatures; rows with NaN are left out.
    """
    known = normal[np.isfinite(normal).all(axis=1)]
    if not len(known):
        return np.ones(normal.shape[1])
    found: Floats = np.maximum(MAD_TO_STD * np.median(np.abs(known), axis=0), LEAST_SPREAD)
    return found


def find_alike(change: np.ndarray, alarms: np.ndarray, anomalies: np.ndarray, limit: float) -> Match | None:
    """The false alarm that a change is like, if there is one and no confirmed anomaly is as near.

    Args:
        change: (L,) signature.
        alarms: (A, L) of false alarms; rows with NaN are like nothing.
        anomalies: (B, L) of confirmed anomalies.
        limit: How near it must be, as a share of the change's own size.

    Returns:
        The nearest one, of several the first; None when there is none.
    """
    size = float(np.linalg.norm(change))
    if not np.isfinite(size) or size == 0 or not len(alarms):
        return None
    apart = np.linalg.norm(alarms - change, axis=1)
    if not np.isfinite(apart).any():
        return None
    index = int(np.nanargmin(apart))
    other = np.linalg.norm(anomalies - change, axis=1) if len(anomalies) else np.array([np.inf])
    beside = float(np.nanmin(other)) if np.isfinite(other).any() else np.inf
    distance = float(apart[index])
    return Match(index, distance / size) if distance <= limit * size and distance < beside else None

"""What scoring takes and gives, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class PastTiles(Protocol):
    """What the past of N tiles lets expect, physical units; NaN or anything where not valid.

    The three of the witness are None together.
    """

    @property
    def values(self) -> np.ndarray:
        """(N, C, H, W) what is expected tonight."""
        ...

    @property
    def valid(self) -> np.ndarray:
        """(N, H, W) where it is known."""
        ...

    @property
    def witness(self) -> np.ndarray | None:
        """(N, C, H, W) the last clear scene before tonight's."""
        ...

    @property
    def witness_expected(self) -> np.ndarray | None:
        """(N, C, H, W) what was to be expected then."""
        ...

    @property
    def witness_valid(self) -> np.ndarray | None:
        """(N, H, W) where both are known."""
        ...


@dataclass(frozen=True)
class TileScores:
    """What scoring gives for N tiles, before the scene as a whole is judged.

    A tile without a score has NaN throughout, and a reason.

    Attributes:
        kind: (N,) name of the score that the tile is judged by, '' without one.
        score: (N,) float64, that score, raw.
        components: Every score that was worked out, raw, (N,) each, by name.
        parts: Share of each part of the tile's score where it is highest, (N,) each, by name; NaN of another score's
            part. They sum to 1, or are all 0 where the score is.
        bands: (N, C) share of each band of what is not as expected there; likewise.
        heatmap: (N, H, W) float32, the score pixel by pixel, NaN where masked, or where the past that it is compared
            with is not known.
        latent: (N, L·h·w) float32 posterior means.
        valid_fraction: (N,) share of usable pixels.
        reason: Why a tile has no score, else None.
    """

    kind: np.ndarray
    score: np.ndarray
    components: dict[str, np.ndarray]
    parts: dict[str, np.ndarray]
    bands: np.ndarray
    heatmap: np.ndarray
    latent: np.ndarray
    valid_fraction: np.ndarray
    reason: list[str | None]

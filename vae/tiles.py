"""Tiles to learn from, in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vae.errors import ShapeError


@dataclass(frozen=True)
class TileArrays:
    """Tiles to learn from; arrays or memory maps, of which one batch at a time is read.

    values: (N, C, H, W) float32, physical units. valid: (N, H, W) bool or uint8; what is not valid may hold anything.
    """

    values: np.ndarray
    valid: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.valid.shape != (self.values.shape[0], *self.values.shape[2:]):
            raise ShapeError(
                f"tiles must be values (N, C, H, W) with valid (N, H, W), got {self.values.shape} "
                f"and {self.valid.shape}"
            )

    def __len__(self) -> int:
        return len(self.values)

"""What a network is told beside the tile itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from vae.errors import ShapeError

UNKNOWN = -1  # place or sensor that was not there in training

Make = Callable[[str, tuple[int, ...], type[np.generic]], np.ndarray]  # name, shape, type: an array of zeros


def _in_memory(name: str, shape: tuple[int, ...], kind: type[np.generic]) -> np.ndarray:
    return np.zeros(shape, kind)


@dataclass(frozen=True)
class Conditions:
    """Of N tiles. What the settings do not ask for (`model.condition`) is None.

    Attributes:
        season: (N,) float32 day of the year as a share of the year, [0, 1); NaN where not known.
        place: (N,) int64 index among the places of the detector, `UNKNOWN` for others.
        sun: (N, 2) float32 elevation and azimuth of the sun, degrees; NaN where not known.
        sensor: (N,) int64 index among the sensors of the detector, `UNKNOWN` for others.
        reference: (N, C, H, W) float32 what the past of the place lets expect, physical units; anything where not
            valid.
        reference_valid: (N, H, W) bool.
    """

    season: np.ndarray | None = None
    place: np.ndarray | None = None
    sun: np.ndarray | None = None
    sensor: np.ndarray | None = None
    reference: np.ndarray | None = None
    reference_valid: np.ndarray | None = None

    @classmethod
    def unknown(
        cls, count: int, condition: Collection[str], bands: int, side: int, make: Make = _in_memory
    ) -> Conditions:
        """Conditions of tiles of which nothing is known, to be filled in.

        Args:
            count: How many tiles.
            condition: What a network is told: `model.condition`.
            bands: Of the reference.
            side: Of a tile, pixels.
            make: Makes the arrays, for example in files that are mapped into memory.
        """
        asked: dict[str, tuple[tuple[int, ...], type[np.generic], Any]] = {
            "season": ((count,), np.float32, np.nan),
            "place": ((count,), np.int64, UNKNOWN),
            "sun": ((count, 2), np.float32, np.nan),
            "sensor": ((count,), np.int64, UNKNOWN),
            "reference": ((count, bands, side, side), np.float32, None),
            "reference_valid": ((count, side, side), np.bool_, None),
        }
        made: dict[str, np.ndarray] = {}
        for name, (shape, kind, nothing) in asked.items():
            if name.removesuffix("_valid") in condition:
                made[name] = make(name, shape, kind)
                if nothing is not None:  # zeros are left alone: in a mapped file they take no room
                    made[name][:] = nothing
        return cls(**made)

    @classmethod
    def joined(cls, parts: Sequence[Conditions]) -> Conditions:
        """Those of several groups of tiles, told of alike, one group after the other."""
        groups = zip(*(part._arrays for part in parts), strict=True)
        return cls(*(None if group[0] is None else np.concatenate(group) for group in groups))

    def rows(self, rows: np.ndarray | slice) -> Conditions:
        """Those of some tiles."""
        return Conditions(*(None if part is None else part[rows] for part in self._arrays))

    def put(self, rows: np.ndarray | Sequence[int] | slice, other: Conditions) -> None:
        """Write into these, where some tiles stand, what is known of them; of what is not asked for here, nothing."""
        for mine, theirs in zip(self._arrays, other._arrays, strict=True):
            if mine is not None and theirs is not None:
                mine[rows] = theirs

    def check(self, count: int, bands: int, side: int) -> None:
        """Refuse conditions that do not fit tiles.

        Raises:
            ShapeError: Which does not, and what it should be.
        """
        shapes = {
            "season": (count,),
            "place": (count,),
            "sun": (count, 2),
            "sensor": (count,),
            "reference": (count, bands, side, side),
            "reference_valid": (count, side, side),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ShapeError(f"what the network is told of these tiles must have {name} {shape}, got {array.shape}")
        if (self.reference is None) != (self.reference_valid is None):
            raise ShapeError("reference and reference_valid go together: give both, or neither")

    @property
    def _arrays(self) -> list[np.ndarray | None]:
        return [getattr(self, field.name) for field in fields(self)]

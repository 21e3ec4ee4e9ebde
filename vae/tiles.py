"""Tiles to learn from, in memory or on disk."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, fields

import numpy as np

from vae.conditions import Conditions
from vae.errors import ShapeError

AT_ONCE = 4  # rows of a file that are touched before its pages are given back


@dataclass(frozen=True)
class TileArrays:
    """Tiles to learn from; arrays or memory maps, of which one batch at a time is read.

    values: (N, C, H, W) float32, physical units; or raw integers, with a scaling.
    valid: (N, H, W) bool or uint8; what is not valid may hold anything.
    conditions: What the network is told beside them; None when it is told nothing.
    scaling: (N, C, 2) float64 scale and offset, stored number × scale + offset = physical value. None: no integers.
    """

    values: np.ndarray
    valid: np.ndarray
    conditions: Conditions | None = None
    scaling: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.valid.shape != (self.values.shape[0], *self.values.shape[2:]):
            raise ShapeError(
                f"tiles must be values (N, C, H, W) with valid (N, H, W), got {self.values.shape} "
                f"and {self.valid.shape}"
            )
        if (self.scaling is not None) != np.issubdtype(self.values.dtype, np.integer):
            raise ShapeError(f"tiles of {self.values.dtype} need {'no ' if self.scaling is not None else 'a '}scaling")
        if self.scaling is not None and self.scaling.shape != (*self.values.shape[:2], 2):
            raise ShapeError(
                f"tiles {self.values.shape} need a scaling {(*self.values.shape[:2], 2)}, got {self.scaling.shape}"
            )
        for name, part in self.told().items():
            if len(part) != len(self.values):
                raise ShapeError(f"{len(self.values)} tiles come with {name} of {len(part)}")

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, rows: np.ndarray) -> TileArrays:
        """Some tiles, in memory of their own; what is stored stays as it is stored, `valid` is bool.

        Pages of files that were read are given back at once: they stay in the system's cache, but would count as
        memory of this process, which is to hold no more than a batch.
        """
        conditions = None if self.conditions is None else self.conditions.rows(rows)
        found = TileArrays(
            _taken(self.values, rows),
            _taken(self.valid, rows).astype(bool, copy=False),
            conditions,
            None if self.scaling is None else self.scaling[rows],
        )
        for part in self.told().values():
            _give_back(part)
        return found

    def physical(self, rows: np.ndarray) -> np.ndarray:
        """(n, C, H, W) float32 values of some tiles in physical units."""
        found = self.rows(rows)
        if found.scaling is None:
            return found.values.astype(np.float32, copy=False)
        scale, offset = np.moveaxis(found.scaling, -1, 0)[..., None, None]
        return (found.values * scale + offset).astype(np.float32)

    def any_valid(self) -> bool:
        """Whether a single pixel is valid."""
        for start in range(0, len(self), 64):
            found = bool(np.any(self.valid[start : start + 64]))
            _give_back(self.valid)
            if found:
                return True
        return False

    def told(self) -> dict[str, np.ndarray]:
        """The conditions that there are, by name."""
        if self.conditions is None:
            return {}
        parts = {field.name: getattr(self.conditions, field.name) for field in fields(self.conditions)}
        return {name: part for name, part in parts.items() if part is not None}


def _taken(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, copied a few at a time: the system maps up to megabytes around each row that is touched."""
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        found[some] = array[rows[some]]
        _give_back(array)
    return found


def _give_back(array: np.ndarray) -> None:
    """Let go of the pages of a file that is mapped into memory, unless they hold changes of our own."""
    if not isinstance(array, np.memmap) or array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)

"""Tiles in files that are mapped into memory: raw integers where the scenes hold such, else float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vae.conditions import Conditions
from vae.tiles import TileArrays

RAW = np.uint16  # half as much to read as float32
AT_ONCE = 256  # tiles that are converted at once


class TileCache:
    """Tiles that are written one group after another, and then learned from.

    As long as each valid value is a whole number times a scale plus an offset, as scenes are mostly stored, the numbers
    are kept, and become the very same values on the device. With the first that is none, such as one that was
    interpolated onto the grid, all are kept as float32.

    Args:
        folder: Where the files are made.
        shape: (N, C, H, W).
        condition: What the network is told beside them, `model.condition`.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int], condition: Sequence[str]) -> None:
        self._folder, self._shape = folder, shape
        tiles, bands, height, side = shape
        self._values: np.ndarray = self._make("numbers", shape, RAW)
        self._valid = self._make("valid", (tiles, height, side), np.bool_)
        self._scaling: np.ndarray | None = self._make("scaling", (tiles, bands, 2), np.float64)
        self.conditions = Conditions.unknown(tiles, condition, bands, side, self._make) if condition else None

    def put(
        self, rows: Sequence[int], values: NDArray[np.float32], valid: NDArray[np.bool_], scaling: np.ndarray
    ) -> None:
        """Write some tiles.

        Args:
            rows: Where they belong.
            values: (n, C, H, W) physical units; anything where not valid.
            valid: (n, H, W) which pixels count.
            scaling: (C, 2) scale and offset of the scene's bands.
        """
        self._valid[rows] = valid
        if self._scaling is not None:
            numbers = whole_numbers(values, valid, scaling)
            if numbers is not None:
                self._values[rows], self._scaling[rows] = numbers, scaling
                return
            self._become_floats()
        self._values[rows] = values

    def tiles(self) -> TileArrays:
        """All of them."""
        return TileArrays(self._values, self._valid, self.conditions, self._scaling)

    def _become_floats(self) -> None:
        raw = self.tiles()
        self._values = self._make("values", self._shape, np.float32)
        for start in range(0, len(raw), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(raw)))
            self._values[rows] = raw.physical(rows)
        self._scaling = None
        for name in ("numbers", "scaling"):
            (self._folder / f"{name}.npy").unlink()

    def _make(self, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> np.ndarray:
        return np.lib.format.open_memmap(self._folder / f"{name}.npy", "w+", kind, shape)


def whole_numbers(
    values: NDArray[np.float32], valid: NDArray[np.bool_], scaling: np.ndarray
) -> NDArray[np.uint16] | None:
    """(n, C, H, W) the stored numbers that the valid values were made of, 0 elsewhere; None when they are none such.

    Args:
        values: (n, C, H, W) physical units.
        valid: (n, H, W) which of them count.
        scaling: (C, 2) scale and offset: number × scale + offset = value.
    """
    scale, offset = scaling.T[:, :, None, None]
    numbers = np.rint((np.where(valid[:, None], values, offset) - offset) / scale)
    limits = np.iinfo(RAW)
    if not ((numbers >= limits.min) & (numbers <= limits.max)).all():  # NaN is neither
        return None
    made = (numbers * scale + offset).astype(np.float32)
    return numbers.astype(RAW) if np.all((made == values) | ~valid[:, None]) else None

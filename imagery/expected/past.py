"""What was to be expected of a window: expected image of tonight, and the newest earlier scene beside its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from imagery.alignment import Alignment
from imagery.composite import MemberUnreadable, OpenMember
from imagery.expected.expectation import Expectation
from imagery.expected.features import HALO, Mask, Values, mapped
from imagery.expected.scenes import PastScenes, Seen
from imagery.grid import Grid
from imagery.records import SceneRecord

PIECE = 1 << 26  # bytes of predictors that are in memory at a time
AHEAD = 1 << 27  # bytes of rows that are kept for the next window

Array = NDArray[Any]


@dataclass(frozen=True)
class Past:
    """What was to be expected of a window, or of (N, …) tiles. The witness's part is None when there is none.

    Attributes:
        values: (C, H, W) float32 expected image of tonight, physical units; NaN where not valid.
        valid: (H, W) True where it is known.
        witness: (C, H, W) float32 newest earlier scene, physical units; NaN where not witness_valid.
        witness_expected: (C, H, W) float32 what was to be expected of it; NaN where not witness_valid.
        witness_valid: (H, W) True where its pixel counts and was to be expected.
    """

    values: Values
    valid: Mask
    witness: Values | None = None
    witness_expected: Values | None = None
    witness_valid: Mask | None = None

    def each(self, change: Callable[[Array], Array]) -> Past:
        """The same of changed arrays."""
        arrays: list[Any] = [None if array is None else change(array) for array in self._arrays]
        return Past(*arrays)

    @classmethod
    def joined(cls, parts: Sequence[Past], axis: int) -> Past:
        """Several as one, along an axis of their arrays."""
        groups = zip(*(part._arrays for part in parts), strict=True)
        arrays: list[Any] = [None if group[0] is None else np.concatenate(group, axis) for group in groups]
        return cls(*arrays)

    @property
    def _arrays(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


class PastReader:
    """What was to be expected of a scene, window by window; see `open_past`. Used by the thread that opened it.

    Attributes:
        expectation: What is read by.
    """

    def __init__(self, expectation: Expectation, scenes: PastScenes) -> None:
        self.expectation, self._scenes = expectation, scenes
        self._held: tuple[Window, Past] | None = None

    def read(self, window: Window, until: int | None = None) -> Past:
        """A window of the location's grid. Memory is bounded, however large it is.

        Args:
            window: What is wanted.
            until: The row that ends what will be asked for next, of the same columns: as many rows as fit into `AHEAD`
                are read at once and kept, so that each block of the files is decoded hardly more than once.

        Raises:
            SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
        """
        first, last = int(window.row_off), int(window.row_off + window.height)
        if self._held is None or not _within(window, self._held[0]):
            fit = AHEAD // (3 * 4 * len(self.expectation.bands) * int(window.width))
            end = max(last, min(until or last, first + fit))
            ahead = Window(window.col_off, first, window.width, end - first)
            self._held = ahead, self._read(ahead)
        row = first - int(self._held[0].row_off)
        return self._held[1].each(lambda array: array[..., row : row + last - first, :])

    def _read(self, window: Window) -> Past:
        """A window, some columns at a time."""
        predictors = (len(self.expectation.regressors) + 2) * len(self.expectation.bands)
        columns = max(PIECE // (4 * predictors * (int(window.height) + 2 * HALO)), 1)
        first, last = int(window.col_off), int(window.col_off + window.width)
        return Past.joined(
            [
                self._piece(Window(column, window.row_off, min(columns, last - column), window.height))
                for column in range(first, last, columns)
            ],
            axis=-1,
        )

    def _piece(self, window: Window) -> Past:
        expectation, seen = self.expectation, self._scenes.read(window)
        values, valid = self._expected(expectation.scene, seen)
        if not (expectation.witness_map and expectation.confirms):
            return Past(values, valid)
        witness_expected, known = self._expected(expectation.witness_map, seen)
        if seen.witness is None:  # its block cannot be read
            nothing = np.full_like(values, np.nan)
            return Past(values, valid, nothing, nothing, np.zeros_like(valid))
        known &= seen.witness.valid
        witness = np.where(known, seen.witness.values, np.float32(np.nan))
        return Past(values, valid, witness, np.where(known, witness_expected, np.float32(np.nan)), known)

    def _expected(self, by: Alignment, seen: Seen) -> tuple[Values, Mask]:
        """(C, H, W) what a map makes of the predictors, physical units, and (H, W) where it is known."""
        values = self.expectation.transform.inverse(mapped(by.matrix, by.offset, seen.features))
        known = seen.usable & np.isfinite(values).all(axis=0)
        return np.where(known, values, np.float32(np.nan)), known


def _within(window: Window, held: Window) -> bool:
    return (
        (window.col_off, window.width) == (held.col_off, held.width)
        and held.row_off <= window.row_off
        and window.row_off + window.height <= held.row_off + held.height
    )


@contextmanager
def open_past(
    expectation: Expectation, members: Sequence[SceneRecord], open_member: OpenMember, grid: Grid
) -> Iterator[PastReader]:
    """Open the scenes that an expectation is made of.

    Args:
        expectation: Of a scene; one that is trusted.
        members: The scenes that it was fitted with, from the catalog.
        open_member: Opens one on the location's grid.
        grid: The location's grid.

    Raises:
        MemberUnreadable: A scene that cannot be opened. One that breaks off later is taken for masked, and logged.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """
    known = {record.scene_id: record for record in members}
    missing = [member.scene_id for member in expectation.members if member.scene_id not in known]
    if missing:
        raise MemberUnreadable(missing[0], KeyError("it is not in the catalog any more"))
    regressors = [known[member.scene_id] for member in expectation.regressors]
    witness = known[expectation.witness.scene_id] if expectation.witness and expectation.confirms else None
    channels, transform = len(expectation.bands), expectation.transform
    without = {member.scene_id: member.without for member in expectation.members}
    with PastScenes(regressors, witness, open_member, grid, channels, transform, True, without) as scenes:
        yield PastReader(expectation, scenes)

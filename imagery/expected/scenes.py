"""The earlier scenes of a place, read together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from rasterio.windows import Window

from imagery.composite import Members, MemberUnreadable, OpenMember, Without
from imagery.expected.features import HALO, Mask, Transform, Values, features
from imagery.grid import Grid
from imagery.reading import Pixels
from imagery.records import SceneRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What earlier scenes show in a window.

    Attributes:
        features: (P, H, W) predictors, see `imagery.expected.features`.
        usable: (H, W) True where at least one of the scenes that predict is valid.
        witness: The window of the witness; None when there is none, or it cannot be read here.
    """

    features: Values
    usable: Mask
    witness: Pixels | None


class PastScenes:
    """Some earlier scenes of a place, opened. A context manager; used by the thread that entered it.

    Args:
        regressors: The scenes that predict, at least one.
        witness: The scene that is predicted beside tonight's.
        open_member: Opens a scene on the location's grid.
        grid: The location's grid.
        channels: Number of bands.
        transform: The units that surfaces are compared in.
        lenient: Take a block that cannot be read for a masked one, and say so in the log.
        without: Tiles of these scenes whose pixels do not count.

    Raises:
        MemberUnreadable: A scene that cannot be opened, as it is entered.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """

    def __init__(
        self,
        regressors: Sequence[SceneRecord],
        witness: SceneRecord | None,
        open_member: OpenMember,
        grid: Grid,
        channels: int,
        transform: Transform,
        lenient: bool = False,
        without: Without | None = None,
    ) -> None:
        self._regressors, self._witness = tuple(regressors), witness
        self._members = Members([*regressors, *([witness] if witness else [])], open_member, without)
        self._channels, self._transform, self._lenient = channels, transform, lenient
        self.grid = grid

    def __enter__(self) -> Self:
        self._members.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._members.__exit__(kind, error, trace)

    def read(self, window: Window) -> Seen:
        """A window of the grid; what surrounds it is read with it, so that a strip gives what the whole gives.

        Raises:
            MemberUnreadable: A block that cannot be read, unless `lenient`.
            SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
        """
        outer, inner = grown(window, self.grid)
        shape = (int(outer.height), int(outer.width))
        images = np.zeros((len(self._regressors), self._channels, *shape), np.float32)
        valid = np.zeros((len(self._regressors), *shape), bool)
        for place, record in enumerate(self._regressors):
            pixels = self._pixels(record, outer)
            if pixels is not None:
                images[place], valid[place] = self._transform.forward(pixels.values), pixels.valid
        found, usable = features(images, valid)
        witness = self._pixels(self._witness, window) if self._witness else None
        return Seen(found[:, *inner], usable[inner], witness)

    def _pixels(self, record: SceneRecord, window: Window) -> Pixels | None:
        try:
            return self._members.read_one(record, window)
        except MemberUnreadable as error:
            if not self._lenient:
                raise
            log.warning("%s: taken for masked", error)
            return None


def grown(window: Window, grid: Grid) -> tuple[Window, tuple[slice, slice]]:
    """A window with what surrounds it, as far as the grid reaches, and where the window lies in that."""
    row, col, height, width = (int(size) for size in (window.row_off, window.col_off, window.height, window.width))
    top, left = max(row - HALO, 0), max(col - HALO, 0)
    bottom, right = min(row + height + HALO, grid.height), min(col + width + HALO, grid.width)
    inner = slice(row - top, row - top + height), slice(col - left, col - left + width)
    return Window(left, top, right - left, bottom - top), inner

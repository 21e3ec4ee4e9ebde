"""Clouds by a network from a library.

It looks at fixed blocks of the grid, so that a mask does not depend on the window that is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from imagery.bands import find_common
from imagery.errors import ImageryError
from imagery.grid import Grid
from imagery.masks import Cause, Causes

BLOCK, MARGIN = 1024, 64
KEPT = 3  # rows of blocks: a row of tiles, and what is near it, lies in no more
SMALLEST = 256  # what the network takes: smaller pictures are mirrored at their edges
NEEDED = ("blue", "green", "red", "nir")
BETTER = ("swir16", "swir22")


class CloudModel:
    """ukis-csmask (DLR): cloud and cloud shadow from reflectances.

    Args:
        name: `ukis-csmask-l1c` for top-of-atmosphere, `ukis-csmask-l2a` for surface reflectance.
        bands: Names of the bands, in the order of the values.

    Raises:
        ImageryError: The library is not installed, or a band that it needs is not read.
    """

    def __init__(self, name: str, bands: tuple[str, ...]) -> None:
        common = find_common(bands)
        missing = [band for band in NEEDED if band not in common]
        if missing:
            raise ImageryError(
                f"masks.cloud_model={name} needs a {', a '.join(missing)} band, source.bands are {', '.join(bands)}"
            )
        wanted = [*NEEDED, *(BETTER if all(band in common for band in BETTER) else ())]
        self._library = _library()
        self._level = name.rsplit("-", 1)[1]
        self._order = wanted
        self._channels = [bands.index(common[band]) for band in wanted]
        self._known: OrderedDict[tuple[int, int], Causes] = OrderedDict()

    def causes(self, window: Window, grid: Grid, read: Callable[[Window], NDArray[np.float32]]) -> Causes:
        """Where there is cloud or shadow in a window of the grid.

        Args:
            window: The window.
            grid: The grid.
            read: Gives the (C, H, W) physical values of a window, NaN where there is no number.
        """
        top, left = int(window.row_off), int(window.col_off)
        height, width = int(window.height), int(window.width)
        causes = np.zeros((height, width), np.uint8)
        for row in range(top // BLOCK * BLOCK, top + height, BLOCK):
            for col in range(left // BLOCK * BLOCK, left + width, BLOCK):
                block = self._block(row, col, grid, read)
                rows = slice(max(row, top), min(row + block.shape[0], top + height))
                cols = slice(max(col, left), min(col + block.shape[1], left + width))
                part = block[rows.start - row : rows.stop - row, cols.start - col : cols.stop - col]
                causes[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = part
        return causes

    def _block(self, row: int, col: int, grid: Grid, read: Callable[[Window], NDArray[np.float32]]) -> Causes:
        """Causes of the block at (row, col), from a window with a margin around it."""
        if (row, col) in self._known:
            self._known.move_to_end((row, col))
            return self._known[row, col]
        top, left = max(0, row - MARGIN), max(0, col - MARGIN)
        height = min(grid.height, row + BLOCK + MARGIN) - top
        width = min(grid.width, col + BLOCK + MARGIN) - left
        values = read(Window(left, top, width, height))[self._channels]
        found = self._classify(values)
        block = found[row - top : row - top + BLOCK, col - left : col - left + BLOCK]
        self._known[row, col] = block
        if len(self._known) > KEPT * -(-grid.width // BLOCK):
            self._known.popitem(last=False)
        return block

    def _classify(self, values: NDArray[np.float32]) -> Causes:
        """Causes of a picture (C, H, W), NaN where there is no number: there, none."""
        missing = np.isnan(values).any(axis=0)
        causes = np.zeros(missing.shape, np.uint8)
        if missing.all():
            return causes
        if missing.any():  # the network takes zeros for dark ground: what is nearest misleads it less
            nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
            values = values[:, *nearest]
        pads = [(0, max(0, SMALLEST - length)) for length in missing.shape]
        image = np.pad(values, [(0, 0), *pads], mode="symmetric").transpose(1, 2, 0)
        model = self._library.CSmask(
            np.ascontiguousarray(image), self._order, self._level, intra_op_num_threads=1, inter_op_num_threads=1
        )
        kinds = model.csm[: missing.shape[0], : missing.shape[1], 0]
        causes[~missing] = np.array([Cause.VALID, Cause.CLOUD, Cause.SHADOW], np.uint8)[kinds[~missing]]
        return causes


def _library() -> ModuleType:
    try:
        from ukis_csmask import mask
    except ImportError as error:
        raise ImageryError(f"masks.cloud_model: {error}. Install it with pip install 'tilewatch[clouds]'") from None
    return mask

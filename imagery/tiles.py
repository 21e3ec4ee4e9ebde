"""Tiles as arrays: what the model is given, read some rows of tiles at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagery.expected import Past, PastReader
from imagery.grid import Tile
from imagery.reading import Pixels, SceneReader


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of a scene.

    Attributes:
        tiles: Where they lie.
        values: (N, C, S, S) float32, physical units; NaN where there is no number and beyond a clipped tile's edge.
        valid: (N, S, S) bool, True where the pixel counts.
        area: (N,) number of pixels of each tile's own window.
        past: What was to be expected of them, (N, …) and padded alike; None when it was not asked for.
    """

    tiles: list[Tile]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    area: NDArray[np.int64]
    past: Past | None = None


def read_tiles(
    reader: SceneReader,
    tile_size: int,
    stride: int | None = None,
    only: set[tuple[int, int]] | None = None,
    at_least: int = 1,
    past: PastReader | None = None,
) -> Iterator[TileBatch]:
    """The tiles of a scene, some rows of tiles at a time.

    Args:
        reader: The open scene.
        tile_size: Side of a tile, pixels.
        stride: From one tile to the next, pixels; None is `tile_size`.
        only: (row_off, col_off) of the tiles wanted; None for all. Rows without any are not read.
        at_least: Rows are joined until they hold so many tiles, so that small scenes fill a network's batch.
        past: Read what was to be expected of the tiles too.

    Raises:
        SceneUnreadable: A block that cannot be read.
    """
    held: list[TileBatch] = []
    for strips in _runs(reader.grid.strips(tile_size, stride), only):
        windows = [reader.grid.strip_window(strip) for strip in strips]
        until = int(windows[-1].row_off + windows[-1].height)
        for strip, window in zip(strips, windows, strict=True):
            expected = past.read(window, until) if past else None
            held.append(_cut(reader.read(window), expected, strip, tile_size))
            if sum(len(batch.tiles) for batch in held) >= at_least:
                yield _join(held)
                held = []
    if held:
        yield _join(held)


def _runs(strips: Iterable[list[Tile]], only: set[tuple[int, int]] | None) -> Iterator[list[list[Tile]]]:
    """The tiles wanted of each strip, strips that follow one another together; strips without any are left out."""
    wanted = ([tile for tile in strip if only is None or (tile.row_off, tile.col_off) in only] for strip in strips)
    return (list(run) for some, run in groupby(wanted, key=bool) if some)


def _join(batches: list[TileBatch]) -> TileBatch:
    if len(batches) == 1:
        return batches[0]
    pasts = [batch.past for batch in batches if batch.past]
    return TileBatch(
        [tile for batch in batches for tile in batch.tiles],
        np.concatenate([batch.values for batch in batches]),
        np.concatenate([batch.valid for batch in batches]),
        np.concatenate([batch.area for batch in batches]),
        Past.joined(pasts, axis=0) if pasts else None,
    )


def _cut(pixels: Pixels, past: Past | None, strip: list[Tile], tile_size: int) -> TileBatch:
    area = np.array([tile.height * tile.width for tile in strip])

    def squares(image: NDArray[Any]) -> NDArray[Any]:
        """(N, …, S, S) of (…, H, W)."""
        missing = False if image.dtype == bool else np.nan
        found = np.full((len(strip), *image.shape[:-2], tile_size, tile_size), missing, image.dtype)
        for square, tile in zip(found, strip, strict=True):
            columns = slice(tile.col_off, tile.col_off + tile.width)
            square[..., : tile.height, : tile.width] = image[..., columns]
        return found

    return TileBatch(strip, squares(pixels.values), squares(pixels.valid), area, past.each(squares) if past else None)

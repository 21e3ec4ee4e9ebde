"""Tiles as arrays: what the model is given, read some rows of tiles at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    tiles: list[Tile]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    area: NDArray[np.int64]


def read_tiles(
    reader: SceneReader,
    tile_size: int,
    stride: int | None = None,
    only: set[tuple[int, int]] | None = None,
    at_least: int = 1,
) -> Iterator[TileBatch]:
    """The tiles of a scene, some rows of tiles at a time.

    Args:
        reader: The open scene.
        tile_size: Side of a tile, pixels.
        stride: From one tile to the next, pixels; None is `tile_size`.
        only: (row_off, col_off) of the tiles wanted; None for all. Rows without any are not read.
        at_least: Rows are joined until they hold so many tiles, so that small scenes fill a network's batch.

    Raises:
        SceneUnreadable: A block that cannot be read.
    """
    held: list[TileBatch] = []
    for strip in reader.grid.strips(tile_size, stride):
        wanted = [tile for tile in strip if only is None or (tile.row_off, tile.col_off) in only]
        if wanted:
            held.append(_cut(reader.read(reader.grid.strip_window(strip)), wanted, tile_size))
        if sum(len(batch.tiles) for batch in held) >= at_least:
            yield _join(held)
            held = []
    if held:
        yield _join(held)


def _join(batches: list[TileBatch]) -> TileBatch:
    if len(batches) == 1:
        return batches[0]
    return TileBatch(
        [tile for batch in batches for tile in batch.tiles],
        np.concatenate([batch.values for batch in batches]),
        np.concatenate([batch.valid for batch in batches]),
        np.concatenate([batch.area for batch in batches]),
    )


def _cut(pixels: Pixels, strip: list[Tile], tile_size: int) -> TileBatch:
    channels = pixels.values.shape[0]
    values = np.full((len(strip), channels, tile_size, tile_size), np.nan, np.float32)
    valid = np.zeros((len(strip), tile_size, tile_size), bool)
    counts = pixels.valid
    for index, tile in enumerate(strip):
        columns = slice(tile.col_off, tile.col_off + tile.width)
        values[index, :, : tile.height, : tile.width] = pixels.values[:, :, columns]
        valid[index, : tile.height, : tile.width] = counts[:, columns]
    area = np.array([tile.height * tile.width for tile in strip])
    return TileBatch(strip, values, valid, area)

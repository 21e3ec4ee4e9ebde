"""Overlapping tiles become one picture: no seams, nothing lost, and no more held than a row of tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imagery.grid import Grid, Tile
from imagery.outputs.blending import RowBlender, blend_window
from tests.rasters import NORTH, UTM, WEST

SIDES = st.integers(1, 90)
TILINGS = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))  # size, stride
NUMBERS = st.floats(-(2.0**99), 2.0**99, width=32)


def grid_of(width: int, height: int) -> Grid:
    return Grid(UTM, (10, 0, WEST, 0, -10, NORTH), width, height)


def cut(picture: NDArray[np.float32], tile: Tile, size: int) -> NDArray[np.float32]:
    """A tile of a picture, filled up to its full size with what must not be looked at."""
    values = np.full((size, size), 1e9, np.float32)
    window = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
    values[: tile.height, : tile.width] = picture[window]
    return values


def blended(grid: Grid, size: int, stride: int | None, tiles: list[tuple[Tile, NDArray[np.float32]]]) -> NDArray:
    picture, blender = np.full((grid.height, grid.width), np.nan, np.float32), RowBlender(grid, size, stride)
    rows = [*(blender.add(tile, values) for tile, values in tiles), blender.rest()]
    following = 0
    for top, part in (row for row in rows if row is not None):
        assert top >= following  # rows come once, top to bottom
        following = top + len(part)
        picture[top:following] = part
    return picture


@settings(deadline=None)
@given(width=SIDES, height=SIDES, tiling=TILINGS, constant=NUMBERS)
def test_tiles_of_one_number_give_this_number_everywhere(
    width: int, height: int, tiling: tuple[int, int], constant: float
) -> None:
    grid, number = grid_of(width, height), np.float32(constant)
    tiles = [(tile, np.full((tiling[0],) * 2, number)) for tile in grid.tiles(*tiling)]

    assert (blended(grid, *tiling, tiles) == number).all()


@settings(deadline=None)
@given(width=SIDES, height=SIDES, tiling=TILINGS, seed=st.integers(0, 9))
def test_tiles_that_agree_give_the_picture_they_were_cut_from(
    width: int, height: int, tiling: tuple[int, int], seed: int
) -> None:
    grid, draw = grid_of(width, height), np.random.default_rng(seed)
    picture = draw.normal(size=(height, width)).astype(np.float32)
    picture[draw.random((height, width)) < 0.1] = np.nan
    tiles = [(tile, cut(picture, tile, tiling[0])) for tile in grid.tiles(*tiling)]

    np.testing.assert_array_equal(blended(grid, *tiling, tiles), picture)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, tiling=TILINGS, seed=st.integers(0, 9))
def test_a_pixel_is_the_weighted_mean_of_the_tiles_that_have_a_number_for_it(
    width: int, height: int, tiling: tuple[int, int], seed: int
) -> None:
    grid, draw, (size, stride) = grid_of(width, height), np.random.default_rng(seed), tiling
    tiles = []
    for tile in grid.tiles(*tiling):
        values = draw.normal(size=(size, size)).astype(np.float32)
        values[draw.random((size, size)) < 0.2] = np.nan
        if draw.random() < 0.1:
            values[:] = np.nan  # a tile without a score
        tiles.append((tile, values))
    window = blend_window(size) if stride < size else np.ones((size, size))
    sums, weights = np.zeros((2, height, width))
    for tile, values in tiles:
        for row in range(tile.height):
            for column in range(tile.width):
                if not np.isnan(values[row, column]):
                    sums[tile.row_off + row, tile.col_off + column] += window[row, column] * values[row, column]
                    weights[tile.row_off + row, tile.col_off + column] += window[row, column]
    with np.errstate(invalid="ignore"):
        expected = sums / weights

    np.testing.assert_allclose(blended(grid, size, stride, tiles), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 512])
def test_every_pixel_of_a_tile_has_a_weight_that_grows_towards_the_middle(size: int) -> None:
    window = blend_window(size)

    assert (window > 0).all()
    np.testing.assert_allclose(window, window[::-1, ::-1])
    np.testing.assert_allclose(window, window.T)
    assert (np.diff(window[: (size + 1) // 2], axis=0) > 0).all()


@pytest.mark.parametrize("stride", [16, 24, 32, 48])
def test_where_a_tile_ends_there_is_no_step(stride: int) -> None:
    """Each tile says a number of its own: laid side by side they would differ by up to 1 from pixel to pixel."""
    grid, draw = grid_of(300, 200), np.random.default_rng(1)
    tiles = [(tile, np.full((64, 64), draw.random(), np.float32)) for tile in grid.tiles(64, stride)]

    picture = blended(grid, 64, stride, tiles)

    steps = max(np.abs(np.diff(picture, axis=axis)).max() for axis in (0, 1))
    assert steps < 4 / (64 - stride) * 1.1


def test_no_more_rows_are_held_than_a_tile_has() -> None:
    grid, blender = grid_of(40, 1000), RowBlender(grid_of(40, 1000), 16, 8)

    given = [rows for tile in grid.tiles(16, 8) if (rows := blender.add(tile, np.zeros((16, 16), np.float32)))]

    assert [(top, len(part)) for top, part in given] == [(row, 8) for row in range(0, 984, 8)]
    top, rest = blender.rest()
    assert (top, len(rest)) == (984, 16)


def test_rows_without_any_tile_are_passed_over() -> None:
    grid = grid_of(16, 160)
    tiles = [(tile, np.ones((16, 16), np.float32)) for tile in grid.tiles(16, 8) if tile.row_off in (8, 96)]

    picture = blended(grid, 16, 8, tiles)

    there = np.isfinite(picture).all(axis=1)
    assert np.flatnonzero(there).tolist() == [*range(8, 24), *range(96, 112)]
    assert np.isnan(picture[~there]).all()


def test_tiles_out_of_order_are_refused() -> None:
    grid = grid_of(32, 64)
    blender = RowBlender(grid, 16, 8)
    tiles = grid.tiles(16, 8)
    blender.add(tiles[-1], np.zeros((16, 16), np.float32))

    with pytest.raises(ValueError, match="row by row"):
        blender.add(tiles[0], np.zeros((16, 16), np.float32))

"""Every tile is read once, with what lies beyond the grid marked as nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import MaskSettings
from imagery.tiles import TileBatch, read_tiles
from tests.rasters import BANDS, ground, open_scene, read_scene, source_settings, write_raster

MASKS = MaskSettings(class_band="SCL")


def scene(folder: Path, height: int, width: int, seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    classes, missing = draw.choice([4, 9], (height, width)), draw.random((height, width)) < 0.2
    return write_raster(
        folder / "a.tif", ground(height, width, seed=seed), nodata="declared", missing=missing, classes=classes
    )


def batches(path: Path, tile_size: int, **arguments) -> list[TileBatch]:
    with open_scene(path, source_settings(), MASKS) as reader:
        return list(read_tiles(reader, tile_size, **arguments))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    tile_size=st.sampled_from([8, 12, 16, 32]),
    stride=st.sampled_from([None, 4, 8]),
    at_least=st.sampled_from([1, 5, 1000]),
)
def test_every_tile_comes_once_in_order_and_holds_its_pixels(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    tile_size: int,
    stride: int | None,
    at_least: int,
) -> None:
    path = scene(tmp_path_factory.mktemp("tiles"), height, width)
    pixels = read_scene(path, source_settings(), MASKS)

    found = batches(path, tile_size, stride=stride, at_least=at_least)

    with open_scene(path) as reader:
        assert [tile for batch in found for tile in batch.tiles] == reader.grid.tiles(tile_size, stride)
    for batch in found:
        number = len(batch.tiles)
        assert batch.values.shape == (number, len(BANDS), tile_size, tile_size)
        assert batch.valid.shape == (number, tile_size, tile_size)
        assert batch.area.tolist() == [tile.height * tile.width for tile in batch.tiles]
        for tile, values, valid in zip(batch.tiles, batch.values, batch.valid, strict=True):
            window = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
            np.testing.assert_array_equal(values[:, : tile.height, : tile.width], pixels.values[:, *window])
            np.testing.assert_array_equal(valid[: tile.height, : tile.width], pixels.valid[window])
            beyond = np.ones((tile_size, tile_size), bool)
            beyond[: tile.height, : tile.width] = False
            assert not valid[beyond].any()
            assert np.isnan(values[:, beyond]).all()


def test_overlapping_tiles_are_read_a_strip_at_a_time(tmp_path: Path) -> None:
    path, heights = scene(tmp_path, 60, 40), []
    with open_scene(path, source_settings(), MASKS) as reader:
        read = reader.read
        reader.read = lambda window: (heights.append(window.height), read(window))[1]
        found = list(read_tiles(reader, 16, 4))

    assert sum(len(batch.tiles) for batch in found) == 12 * 7
    assert max(heights) == 16
    assert len(heights) == 12


@pytest.mark.parametrize(("at_least", "expected"), [(1, [3, 3, 3]), (4, [6, 3]), (6, [6, 3]), (7, [9]), (100, [9])])
def test_rows_of_tiles_are_joined_until_there_are_enough(tmp_path: Path, at_least: int, expected: list[int]) -> None:
    found = batches(scene(tmp_path, 40, 48), 16, at_least=at_least)

    assert [len(batch.tiles) for batch in found] == expected


def test_only_the_tiles_that_are_wanted_are_read(tmp_path: Path) -> None:
    path = scene(tmp_path, 48, 48)
    every = {(tile.row_off, tile.col_off): batch for batch in batches(path, 16) for tile in batch.tiles}

    found = batches(path, 16, only={(0, 32), (32, 0), (32, 16)})

    tiles = [(tile.row_off, tile.col_off) for batch in found for tile in batch.tiles]
    assert tiles == [(0, 32), (32, 0), (32, 16)]
    for batch in found:
        for index, tile in enumerate(batch.tiles):
            whole = every[tile.row_off, tile.col_off]
            np.testing.assert_array_equal(batch.values[index], whole.values[whole.tiles.index(tile)])
    assert batches(path, 16, only=set()) == []


def test_rows_without_a_wanted_tile_are_not_read(tmp_path: Path) -> None:
    """The lower half of this file is cut off: whoever touches it fails."""
    path = write_raster(tmp_path / "a.tif", ground(64, 32, ("B02",)), described=False, blockysize=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_scene(path, source_settings(("B02",), band_names=("B02",))) as reader:
        (batch,) = read_tiles(reader, 16, only={(0, 0), (0, 16)})
        assert batch.valid.all()
        with pytest.raises(ValueError, match=r"a\.tif"):
            list(read_tiles(reader, 16))

"""Sizes that no instrument's scene has are refused in words, at once, and before memory is asked for."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import Workspace
from configs.schema import GridSettings
from imagery.catalog import Catalog
from imagery.errors import ImageryError, SceneMismatch, SceneUnreadable
from imagery.grid import Grid
from imagery.guards import MOST_TILES, check_grid
from tasks.ingest import ingest_scene, settle_grids
from tests.rasters import (
    NORTH,
    UTM,
    WEST,
    ground,
    open_scene,
    read_scene,
    scene_of,
    source_settings,
    watch_settings,
    write_raster,
    write_sparse,
)

B1 = source_settings(("B1",))
GB = 1 << 30


@pytest.fixture
def memory() -> Iterator[None]:
    """Little more than what the process holds already."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + GB // 2, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


HUGE: dict[str, tuple[dict[str, Any], str]] = {
    "a plain of a million by a million": (
        {"width": 1_000_000, "height": 1_000_000, "tiled": True, "blockxsize": 16384, "blockysize": 16384},
        r"here/2020-06-01 is to be read as 1000000 x 1000000 pixels, .* tiles of 64: more than 500000 tiles.*tile_size",
    ),
    "a line of two thousand million": (
        {"width": 1, "height": 2_000_000_000, "blockysize": 1_000_000, "compress": "deflate"},
        r"1 x 2000000000 pixels, 31250000 tiles",
    ),
    "rows that are too long": (
        {"width": 5_000_000, "height": 64, "blockysize": 16},
        r"rows of more than 3125000 pixels",
    ),
    "one block of all pixels": (
        {"width": 30_000, "height": 30_000, "blockysize": 30_000, "compress": "deflate"},
        r"a\.tif is stored in blocks of 30000 x 30000 pixels, 1\.7 GB each: write it anew",
    ),
    "one block of all bands": (
        {"width": 2_000, "height": 2_000, "count": 200, "interleave": "pixel", "blockysize": 2000, "compress": "lzw"},
        r"blocks of 2000 x 2000 pixels, 1\.5 GB each",
    ),
}


@pytest.mark.parametrize("size", HUGE)
def test_an_absurd_size_is_refused_in_words_and_settles_no_grid(tmp_path: Path, memory: None, size: str) -> None:
    declared, words = HUGE[size]
    scene = scene_of({"B1": write_sparse(tmp_path / "a.tif", **declared)})
    settings, workspace = (
        watch_settings(tmp_path, source={"bands": ("B1",)}, grid={"tile_size": 64}),
        Workspace(tmp_path),
    )

    with pytest.raises(ImageryError, match=words):
        open_scene(scene, B1)
    settle_grids([scene], settings, workspace)
    done = ingest_scene(scene, settings, workspace)

    assert done.reason is not None
    assert Catalog(workspace).grid("here") is None
    assert Catalog(workspace).scenes() == []


def test_a_raster_that_is_absurdly_fine_is_refused_at_its_location(tmp_path: Path, memory: None) -> None:
    path = write_sparse(tmp_path / "a.tif", 100_000, 100_000, resolution=0.0032)

    with pytest.raises(SceneMismatch, match=r"pixels of .*a\.tif are 3125 times finer"):
        open_scene(scene_of({"B1": path}), B1, location_grid=Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 32, 32))


def test_many_bands_are_no_harm(tmp_path: Path, memory: None) -> None:
    path = write_sparse(tmp_path / "a.tif", 32, 32, count=5_000, interleave="pixel", compress="deflate")

    assert read_scene(scene_of({"B1": path}), B1).values.shape == (1, 32, 32)


@pytest.mark.parametrize(("size", "stride"), [(64, None), (64, 16), (512, None), (16, 4)])
def test_the_largest_scenes_there_are_can_be_read_in_tiles_that_suit_them(size: int, stride: int | None) -> None:
    """As many tiles as are kept, and one row more."""
    step, columns = stride or size, 500
    width = size + step * (columns - 1)
    grid = Grid(UTM, (10, 0, WEST, 0, -10, NORTH), width, size + step * (MOST_TILES // columns - 1))
    settings = GridSettings(tile_size=size, stride=stride)
    assert len(grid.tile_table(size, stride)["row_off"]) == MOST_TILES

    check_grid(grid, settings, "it")
    with pytest.raises(SceneMismatch, match=f"it is to be read as {width} x"):
        check_grid(replace(grid, height=grid.height + 1), settings, "it")


def test_a_sentinel_2_granule_in_one_block_is_read(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "a.tif", 10_980, 10_980, blockysize=10_980, compress="deflate")

    with open_scene(scene_of({"B1": path}), B1) as reader:
        assert reader.grid.width == 10_980


def test_a_file_that_is_not_there_is_still_said_not_to_be_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere/a.tif", tmp_path / "a.tif"):
        with pytest.raises(SceneUnreadable, match=r"a\.tif cannot be opened as GTiff: .*No such file"):
            read_scene(path, B1)


def test_what_lies_beside_another_raster_is_no_matter(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(bands=("B1",)))
    for other in ("b.tif.msk", "aa.tif.msk", "a.tif.txt", "a.msk", "a.tiff.msk"):
        (tmp_path / other).write_text("<VRTDataset/>")

    assert np.isfinite(read_scene(path, B1).values).all()

"""Outputs: cloud-optimised heatmaps and GeoParquet that other programs read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from imagery.grid import Grid
from imagery.outputs import heatmap, write_scores
from tests.rasters import NORTH, UTM, WEST


def grid(width: int, height: int) -> Grid:
    return Grid(UTM, (10, 0, WEST, 0, -10, NORTH), width, height)


def values_on(area: Grid) -> np.ndarray:
    values = np.random.default_rng(0).random((area.height, area.width)).astype(np.float32)
    values[:3, :5] = np.nan
    return values


def written(path: Path, area: Grid, size: int = 64, stride: int | None = None) -> np.ndarray:
    values = values_on(area)
    with heatmap(path, area, "reconstruction", {"detector_version": "v3"}, size, stride) as image:
        for tile in area.tiles(size, stride):
            part = values[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
            image.add(tile, part)
    return values


@pytest.mark.parametrize("size", [(40, 24), (600, 520), (1100, 300)], ids=str)
def test_a_heatmap_is_a_cog_on_the_grid_of_its_scene(tmp_path: Path, size: tuple[int, int]) -> None:
    area, path = grid(*size), tmp_path / "v3" / "here" / "2020-06-01_anomaly.tif"

    values = written(path, area)

    with rasterio.open(path) as dataset:
        assert dataset.driver == "GTiff"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.crs == CRS.from_string(UTM)
        assert tuple(dataset.transform)[:6] == area.transform
        assert (dataset.width, dataset.height, dataset.count) == (*size, 1)
        assert dataset.dtypes == ("float32",)
        assert np.isnan(dataset.nodata)
        assert dataset.descriptions == ("reconstruction",)
        assert dataset.tags()["detector_version"] == "v3"
        np.testing.assert_array_equal(dataset.read(1), values)
        assert (dataset.read_masks(1) > 0).sum() == np.isfinite(values).sum()
        if max(size) > 512:
            assert dataset.profile["tiled"]
            assert dataset.block_shapes == [(256, 256)]
            assert dataset.overviews(1)[0] == 2


def test_an_overview_averages_scores_and_leaves_out_what_has_none(tmp_path: Path) -> None:
    area, path = grid(600, 600), tmp_path / "a.tif"

    values = written(path, area)

    with rasterio.open(path, overview_level=0) as overview:
        half = overview.read(1)
    np.testing.assert_allclose(half[10, 20], values[20:22, 40:42].mean(), rtol=1e-5)
    assert np.isnan(half[0, 0])
    np.testing.assert_allclose(half[1, 0], np.nanmean(values[2:4, 0:2]), rtol=1e-5)


def test_what_is_not_written_has_no_score(tmp_path: Path) -> None:
    area, path = grid(64, 64), tmp_path / "a.tif"
    with heatmap(path, area, "x", {}, 32) as image:
        image.add(area.tiles(32)[3], np.ones((32, 32), np.float32))

    with rasterio.open(path) as dataset:
        scores = dataset.read(1)
    assert (scores[32:, 32:] == 1).all()
    assert np.isnan(scores[:32]).all()
    assert np.isnan(scores[:, :32]).all()


@pytest.mark.parametrize("stride", [64, 48, 20])
def test_tiles_that_agree_where_they_overlap_give_the_bytes_of_tiles_that_do_not(tmp_path: Path, stride: int) -> None:
    area = grid(300, 200)

    written(tmp_path / "plain.tif", area)
    written(tmp_path / "blended.tif", area, stride=stride)

    assert (tmp_path / "blended.tif").read_bytes() == (tmp_path / "plain.tif").read_bytes()


@pytest.mark.parametrize("stride", [None, 24])
def test_the_statistics_of_a_heatmap_are_those_of_its_scores(tmp_path: Path, stride: int | None) -> None:
    area, path = grid(150, 110), tmp_path / "a.tif"

    values = written(path, area, 32, stride).astype(np.float64)

    with rasterio.open(path) as dataset:
        told = {name: float(value) for name, value in dataset.tags(1).items() if name.startswith("STATISTICS_")}
        assert not (tmp_path / "a.tif.aux.xml").exists()
    assert told == pytest.approx(
        {
            "STATISTICS_MINIMUM": np.nanmin(values),
            "STATISTICS_MAXIMUM": np.nanmax(values),
            "STATISTICS_MEAN": np.nanmean(values),
            "STATISTICS_STDDEV": np.nanstd(values),
            "STATISTICS_VALID_PERCENT": 100 * np.isfinite(values).mean(),
        },
        rel=1e-12,
    )


def test_a_heatmap_without_a_score_says_that_nothing_is_valid(tmp_path: Path) -> None:
    with heatmap(tmp_path / "a.tif", grid(40, 24), "x", {}, 16):
        pass

    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert np.isnan(dataset.read(1)).all()
        assert dataset.tags(1) == {"STATISTICS_VALID_PERCENT": "0"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_of_a_scene(tmp_path: Path) -> None:
    """The heatmap of 20 times as many rows, blended, in a process of its own: it takes no more memory."""
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from imagery.grid import Grid
from imagery.outputs import heatmap
rows = int(sys.argv[1])
grid = Grid("EPSG:32634", (10, 0, 5e5, 0, -10, 5.2e6), 2000, rows)
values = np.ones((64, 64), np.float32)
with heatmap(Path(sys.argv[2]), grid, "x", {}, 64, 32) as image:
    for strip in grid.strips(64, 32):
        for tile in strip:
            image.add(tile, values)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(rows), str(tmp_path / "a.tif")],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "GDAL_CACHEMAX": "32"},
            ).stdout
        )
        for rows in (1000, 20_000)
    ]

    assert peaks[1] < peaks[0] + 60  # MB; the picture has 160


def test_an_exception_leaves_no_file_at_all(tmp_path: Path) -> None:
    area = grid(64, 64)

    def fail_halfway() -> None:
        with heatmap(tmp_path / "a.tif", area, "x", {}, 32) as image:
            image.add(area.tiles(32)[0], np.ones((32, 32), np.float32))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_halfway()

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_beside_a_finished_heatmap(tmp_path: Path) -> None:
    written(tmp_path / "a.tif", grid(64, 64))

    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        written(tmp_path / name, grid(600, 520))

    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_scores_are_geoparquet(tmp_path: Path) -> None:
    area = grid(32, 32)
    tiles = area.tiles(16)
    frame = gpd.GeoDataFrame(
        {"tile_id": [tile.tile_id("here") for tile in tiles], "score": [0.1, np.nan, 0.3, 0.4]},
        geometry=area.footprints(tiles),
    )

    write_scores(tmp_path / "deep" / "a.parquet", frame)

    again = gpd.read_parquet(tmp_path / "deep" / "a.parquet")
    assert again.crs == "EPSG:4326"
    assert again.equals(frame)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.parquet"]

"""Outputs: cloud-optimised heatmaps and GeoParquet that other programs read."""

from __future__ import annotations

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


def written(path: Path, area: Grid, size: int = 64) -> np.ndarray:
    values = values_on(area)
    with heatmap(path, area, "reconstruction", {"detector_version": "v3"}) as image:
        for tile in area.tiles(size):
            part = values[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
            image.write(part, tile.window)
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
    with heatmap(path, area, "x", {}) as image:
        tile = area.tiles(32)[3]
        image.write(np.ones((32, 32), np.float32), tile.window)

    with rasterio.open(path) as dataset:
        scores = dataset.read(1)
    assert (scores[32:, 32:] == 1).all()
    assert np.isnan(scores[:32]).all()
    assert np.isnan(scores[:, :32]).all()


def test_an_exception_leaves_no_file_at_all(tmp_path: Path) -> None:
    area = grid(64, 64)

    def fail_halfway() -> None:
        with heatmap(tmp_path / "a.tif", area, "x", {}) as image:
            image.write(np.ones((32, 32), np.float32), area.tiles(32)[0].window)
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

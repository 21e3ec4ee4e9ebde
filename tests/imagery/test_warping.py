"""Warped scenes: where pixels come from, what is mixed with what, and that no window changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform
from rasterio.windows import Window

from configs.schema import MaskSettings
from imagery.grid import Grid
from imagery.masks import Cause
from imagery.warping import warp_onto
from tests.rasters import NORTH, UTM, WEST, Nodata, ground, open_scene, read_scene, source_settings, whole, write_raster

TURNED = Affine.translation(WEST - 300, NORTH + 500) @ Affine.rotation(17) @ Affine.scale(11, -11)
# A raster, and a grid on its ground with other pixels: shifted, coarser, finer, rotated, in other CRSs.
PLACES: dict[str, tuple[str, Affine, Grid]] = {
    "shifted": (UTM, Affine(10, 0, WEST - 53, 0, -10, NORTH + 28), Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 150, 130)),
    "coarser": (UTM, Affine(20, 0, WEST - 53, 0, -20, NORTH + 28), Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 150, 130)),
    "finer": (UTM, Affine(10, 0, WEST - 53, 0, -10, NORTH + 28), Grid(UTM, (27, 0, WEST, 0, -27, NORTH), 60, 50)),
    "rotated": (UTM, TURNED, Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 150, 130)),
    "south-up": (UTM, Affine(10, 0, WEST - 53, 0, 10, NORTH - 1972), Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 150, 130)),
    "zone": (
        "EPSG:32633",
        Affine(10, 0, 956_400, 0, -10, 5_217_700),
        Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 150, 130),
    ),
    "degrees": (
        "EPSG:4326",
        Affine(1e-4, 0, 20.998, 0, -1e-4, 46.953),
        Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 150, 130),
    ),
    "equal area": (
        "EPSG:3035",
        Affine(10, 0, 5_155_500, 0, -10, 2_711_100),
        Grid(UTM, (20, 0, WEST, 0, -20, NORTH), 60, 50),
    ),
}
ONE = source_settings(("B02",))


def centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    return grid.affine @ np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)


@pytest.mark.parametrize("name", PLACES)
def test_pixels_lie_where_proj_says(name: str) -> None:
    crs, raster, grid = PLACES[name]
    warp = warp_onto(grid, raster, CRS.from_user_input(crs), (200, 200))
    assert warp is not None

    rows, columns = warp.places(whole(grid))

    x, y = centres(grid)
    there = [np.reshape(part, x.shape) for part in transform(grid.crs, crs, x.ravel(), y.ravel())]
    expected_columns, expected_rows = ~raster @ tuple(there)
    np.testing.assert_allclose(columns, expected_columns, rtol=0, atol=1e-3)
    np.testing.assert_allclose(rows, expected_rows, rtol=0, atol=1e-3)


def test_places_are_computed_more_closely_where_a_map_is_more_curved() -> None:
    raster = Affine(0.1, 0, -180, 0, -0.1, 90)
    lonlat, wide = CRS.from_epsg(4326), Grid("EPSG:3995", (50_000, 0, -4e6, 0, -50_000, 3.5e6), 140, 140)
    near = warp_onto(Grid("EPSG:3995", (50, 0, 1e6, 0, -50, 1e6), 140, 140), raster, lonlat, (1800, 3600))
    far = warp_onto(wide, raster, lonlat, (1800, 3600))
    assert near is not None
    assert far is not None

    assert near.step == 32
    assert far.step < 8
    rows, columns = far.places(Window(10, 100, 30, 30))
    x, y = centres(wide)
    lon, lat = Transformer.from_crs(3995, 4326, always_xy=True).transform(x, y)
    np.testing.assert_allclose(columns, ((lon + 180) * 10)[100:130, 10:40], atol=0.02)
    np.testing.assert_allclose(rows, ((90 - lat) * 10)[100:130, 10:40], atol=0.02)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(PLACES)),
    dtype=st.sampled_from(["uint16", "float32"]),
    nodata=st.sampled_from(["none", "declared", "mask"]),
    corners=st.tuples(st.integers(0, 49), st.integers(0, 49), st.integers(1, 130), st.integers(1, 130)),
    seed=st.integers(0, 99),
)
def test_a_pixel_is_the_same_in_whatever_window_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, dtype: str, nodata: Nodata, corners: Any, seed: int
) -> None:
    crs, raster, grid = PLACES[name]
    numbers = ground(200, 200, ("B02", "B03"), seed)
    missing = np.random.default_rng(seed).random((200, 200)) < 0.2
    path = write_raster(
        tmp_path_factory.mktemp("windows") / "a.tif",
        numbers,
        dtype=dtype,
        crs=crs,
        transform=raster,
        missing=missing,
        nodata=nodata,
    )
    row, column, height, width = corners
    window = Window(column, row, min(width, grid.width - column), min(height, grid.height - row))

    with open_scene(path, source_settings(("B02", "B03")), location_grid=grid) as reader:
        everything, part = reader.read(whole(grid)), reader.read(window)

    inside = np.s_[row : row + height, column : column + width]
    np.testing.assert_array_equal(part.values, everything.values[:, *inside])
    np.testing.assert_array_equal(part.causes, everything.causes[inside])
    assert everything.valid.mean() > 0.2


def test_a_window_too_large_to_be_warped_at_once_is_the_same_as_its_strips(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif",
        ground(2500, 2500, ("B02",)),
        crs="EPSG:32633",
        transform=Affine(10, 0, 956_400, 0, -10, 5_217_700),
        nodata="declared",
        missing=np.random.default_rng(0).random((2500, 2500)) < 0.05,
        block=256,
        compress="zstd",
    )
    # Of 1.6 million pixels, and of 1600, which need 5 million of the file.
    for resolution, height, width in ((10.0, 900, 1800), (10.0, 1800, 900), (550.0, 40, 40)):
        grid = Grid(UTM, (resolution, 0, WEST + 1000, 0, -resolution, NORTH - 1500), width, height)
        with open_scene(path, ONE, location_grid=grid) as reader:
            everything = reader.read(whole(grid))
            strips = [reader.read(Window(0, row, width, min(16, height - row))) for row in range(0, height, 16)]

        assert everything.valid.mean() > 0.9
        np.testing.assert_array_equal(everything.values, np.concatenate([strip.values for strip in strips], axis=1))
        np.testing.assert_array_equal(everything.causes, np.concatenate([strip.causes for strip in strips]))


@pytest.mark.parametrize("name", ["shifted", "coarser", "rotated", "south-up"])
def test_interpolation_is_that_of_gdal(tmp_path: Path, name: str) -> None:
    crs, raster, grid = PLACES[name]
    numbers = ground(200, 200, ("B02",))["B02"]
    path = write_raster(tmp_path / "a.tif", {"B02": numbers}, crs=crs, transform=raster)

    pixels = read_scene(path, ONE, location_grid=grid)

    expected = np.zeros((grid.height, grid.width), np.uint16)
    reproject(
        numbers, expected, src_transform=raster, src_crs=crs, dst_transform=grid.affine, dst_crs=grid.crs,
        resampling=Resampling.bilinear, XSCALE=1, YSCALE=1, tolerance=0,
    )  # fmt: skip
    np.testing.assert_array_equal(pixels.valid, expected != 0)
    np.testing.assert_allclose(pixels.values[0][pixels.valid], expected[pixels.valid], atol=1)


@pytest.mark.parametrize("name", PLACES)
def test_a_plane_stays_a_plane_in_a_raster_of_any_fineness(tmp_path: Path, name: str) -> None:
    """Of the raster's own columns and rows."""
    crs, raster, grid = PLACES[name]
    numbers = 3 * np.arange(200) + 2 * np.arange(200)[:, None]
    path = write_raster(tmp_path / "a.tif", {"B02": numbers}, dtype="float32", crs=crs, transform=raster)

    pixels = read_scene(path, ONE, location_grid=grid)

    x, y = centres(grid)
    there = [np.reshape(part, x.shape) for part in transform(grid.crs, crs, x.ravel(), y.ravel())]
    columns, rows = ~raster @ tuple(there)
    inside = (columns > 3) & (columns < 197) & (rows > 3) & (rows < 197)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(pixels.values[0][inside], (3 * (columns - 0.5) + 2 * (rows - 0.5))[inside], atol=0.02)


def test_of_a_raster_of_twice_the_fineness_four_pixels_are_averaged(tmp_path: Path) -> None:
    numbers = ground(40, 60, ("B02",))["B02"]
    path = write_raster(tmp_path / "a.tif", {"B02": numbers}, dtype="float32")

    pixels = read_scene(path, ONE, location_grid=Grid(UTM, (20, 0, WEST, 0, -20, NORTH), 30, 20))

    np.testing.assert_allclose(pixels.values[0], numbers.reshape(20, 2, 30, 2).mean(axis=(1, 3)), rtol=1e-6)


def test_of_classes_the_nearest_one_is_taken_however_fine_they_are(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).choice([4, 9], (60, 60))
    path = write_raster(tmp_path / "a.tif", ground(60, 60, ("B02",)), classes=classes)
    grid = Grid(UTM, (30, 0, WEST, 0, -30, NORTH), 20, 20)

    pixels = read_scene(path, ONE, MaskSettings(class_band="SCL"), location_grid=grid)

    np.testing.assert_array_equal(pixels.cloud, classes[1::3, 1::3] == 9)


@settings(max_examples=20, deadline=None)
@given(off=st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), size=st.sampled_from([10.0, 0.3, 1 / 3]))
def test_between_two_classes_that_are_as_near_the_one_further_down_and_right_is_taken(
    tmp_path_factory: pytest.TempPathFactory, off: tuple[float, float], size: float
) -> None:
    """Wherever the grid begins, and however its coordinates are rounded."""
    west, north = WEST + off[0], NORTH + off[1]
    classes = np.random.default_rng(0).choice([4, 9], (40, 60))
    path = write_raster(
        tmp_path_factory.mktemp("ties") / "a.tif",
        ground(40, 60, ("B02",)),
        classes=classes,
        transform=Affine(size, 0, west, 0, -size, north),
    )
    grid = Grid(UTM, (2 * size, 0, west, 0, -2 * size, north), 30, 20)

    pixels = read_scene(path, ONE, MaskSettings(class_band="SCL"), location_grid=grid)

    np.testing.assert_array_equal(pixels.cloud, classes[1::2, 1::2] == 9)


@pytest.mark.parametrize("name", ["shifted", "coarser", "finer", "degrees"])
@pytest.mark.parametrize(
    ("nodata", "dtype", "masks"),
    [
        ("declared", "uint16", {}),
        ("declared", "uint16", {"nodata": 7}),
        ("zero", "uint16", {"nodata": 0}),
        ("zero", "uint16", {"border": 0}),
        ("nan", "float32", {}),
        ("alpha", "uint16", {}),
        ("mask", "uint16", {}),
    ],
)
def test_missing_pixels_are_missing_where_they_are_nearest_and_bleed_into_no_other(
    tmp_path: Path, name: str, nodata: Nodata, dtype: str, masks: dict
) -> None:
    crs, raster, grid = PLACES[name]
    missing = np.kron(np.random.default_rng(0).random((20, 20)) < 0.3, np.ones((10, 10), bool))
    numbers = {band: np.full((200, 200), 3000) for band in ("B02", "B03")}
    if "nodata" in masks:  # a second number for it, which the file does not declare
        numbers["B02"][5:60, 5:60] = numbers["B03"][5:60, 5:60] = masks["nodata"]
        missing_too = np.zeros_like(missing)
        missing_too[5:60, 5:60] = True
    else:
        missing_too = np.zeros_like(missing)
    path = write_raster(
        tmp_path / "a.tif", numbers, dtype=dtype, crs=crs, transform=raster, missing=missing, nodata=nodata
    )

    pixels = read_scene(path, source_settings(("B02", "B03")), MaskSettings(**masks), location_grid=grid)

    warp = warp_onto(grid, raster, CRS.from_user_input(crs), (200, 200))
    assert warp is not None
    rows, columns = np.floor(warp.places(whole(grid)) + 1e-6).astype(int)
    inside = (rows >= 0) & (rows < 200) & (columns >= 0) & (columns < 200)
    there = np.zeros_like(inside)
    there[inside] = ~(missing | missing_too)[rows[inside], columns[inside]]
    np.testing.assert_array_equal(pixels.valid, there)
    np.testing.assert_array_equal(pixels.values[:, pixels.valid], 3000)
    cause = Cause.BORDER if "border" in masks else Cause.NODATA
    assert set(np.unique(pixels.causes[inside])) == {Cause.VALID, cause}


def test_data_that_one_band_lost_is_missing_there_and_nowhere_else(tmp_path: Path) -> None:
    crs, raster, grid = PLACES["shifted"]
    numbers = {band: np.full((200, 200), 3000) for band in ("B02", "B03")}
    numbers["B03"][100:110, 100:110] = 0
    path = write_raster(tmp_path / "a.tif", numbers, dtype="uint16", crs=crs, transform=raster, nodata="declared")

    pixels = read_scene(path, source_settings(("B02", "B03")), location_grid=grid)

    assert (~pixels.valid).sum() == 100
    assert (np.isnan(pixels.values[1]) == ~pixels.valid).all()
    np.testing.assert_array_equal(pixels.values[0], 3000)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("uint8", 255), ("int16", -32768), ("uint16", 65535), ("int32", -(2**31)), ("int32", 2**31 - 1), ("float32", 0.1)],
)
def test_the_extremes_of_a_type_stay_what_they_are(tmp_path: Path, dtype: str, number: float) -> None:
    crs, raster, grid = PLACES["rotated"]
    path = write_raster(
        tmp_path / "a.tif", {"B02": np.full((200, 200), number)}, dtype=dtype, crs=crs, transform=raster
    )

    with open_scene(path, ONE, location_grid=grid) as reader:
        stored = reader.read_stored(whole(grid))

    assert stored.bands[0].dtype == dtype
    assert (stored.bands[0][stored.causes == 0] == np.dtype(dtype).type(number)).all()

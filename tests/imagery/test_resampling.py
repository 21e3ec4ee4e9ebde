"""Bands at other resolutions and scenes on other pixels: brought onto the location's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.windows import Window
from scipy.ndimage import binary_erosion

from configs.schema import GridSettings, MaskSettings
from imagery.errors import SceneMismatch
from imagery.grid import Grid
from imagery.reading import Pixels
from imagery.sources import Scene
from tests.rasters import NORTH, UTM, WEST, ground, open_scene, read_scene, scene_of, source_settings, write_raster

SIDE = 60  # pixels of 10 m: a multiple of 2 and of 6
BANDS = ("B02", "B05", "B01")
RESOLUTION = {"B02": 10, "B05": 20, "B01": 60}


def plane(side: int, resolution: float, west: float = WEST, north: float = NORTH) -> np.ndarray:
    """Stored numbers that rise evenly to the east and to the south: (side, side) float32, by the pixels' centres."""
    x = west + (np.arange(side) + 0.5) * resolution
    y = north - (np.arange(side) + 0.5) * resolution
    return (1000 + (x - WEST) + 2 * (NORTH - y[:, None])).astype(np.float32)


def three_resolutions(folder: Path, **keywords: Any) -> Scene:
    """One file a band, at 10, 20 and 60 m, of the same ground."""
    files = {}
    for band, resolution in RESOLUTION.items():
        side = SIDE * 10 // resolution
        files[band] = write_raster(
            folder / f"{band}.tif", {band: plane(side, resolution)}, resolution=resolution, **keywords
        )
    return scene_of(files)


def inside(margin: int) -> tuple[slice, slice]:
    """All but the outermost pixels, where there is nothing to interpolate with."""
    return slice(margin, -margin), slice(margin, -margin)


def test_all_bands_come_on_the_grid_of_the_finest_one(tmp_path: Path) -> None:
    with open_scene(three_resolutions(tmp_path), source_settings(("B01", "B05", "B02"))) as reader:
        assert reader.grid == Grid(UTM, (10, 0, WEST, 0, -10, NORTH), SIDE, SIDE)


def test_a_coarse_band_is_interpolated_between_the_centres_of_its_pixels(tmp_path: Path) -> None:
    pixels = read_scene(three_resolutions(tmp_path), source_settings(BANDS))

    expected = plane(SIDE, 10)
    assert pixels.valid.all()
    for values, band in zip(pixels.values, BANDS, strict=True):
        margin = RESOLUTION[band] // 10
        np.testing.assert_allclose(values[inside(margin)], expected[inside(margin)], atol=0.05, err_msg=band)
        assert np.abs(values - expected).max() < 3 * RESOLUTION[band], "at the edge the nearest centre is taken"


def test_another_resolution_may_be_asked_for(tmp_path: Path) -> None:
    grid = GridSettings(resolution=20)
    with open_scene(three_resolutions(tmp_path), source_settings(BANDS), grid=grid) as reader:
        assert (reader.grid.resolution, reader.grid.width, reader.grid.height) == (20, 30, 30)

    pixels = read_scene(three_resolutions(tmp_path), source_settings(BANDS), grid=grid)

    expected = plane(30, 20)
    for values in pixels.values:
        np.testing.assert_allclose(values[inside(3)], expected[inside(3)], atol=0.05)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_class_is_ever_invented(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("classes")
    classes = np.random.default_rng(seed).choice([2, 4, 9], (SIDE // 2, SIDE // 2)).astype(np.uint8)
    scene = scene_of(
        {
            "B02": write_raster(folder / "B02.tif", {"B02": plane(SIDE, 10)}),
            "SCL": write_raster(folder / "SCL.tif", {"SCL": classes}, resolution=20),
        }
    )
    masks = MaskSettings(class_band="SCL", bad_classes=(9,), cloud_classes=(3, 5, 6, 7, 8))

    pixels = read_scene(scene, source_settings(("B02",)), masks)

    # Between 2 and 4 lies 3, between 4 and 9 lie 5 to 8: none of them was there.
    assert not pixels.cloud.any()
    assert (pixels.valid == (np.kron(classes, np.ones((2, 2), int)) != 9)).all()


@pytest.mark.parametrize(
    ("nodata", "dtype", "masks"),
    [
        ("declared", "uint16", {}),
        ("zero", "uint16", {"nodata": 0}),
        ("zero", "uint16", {"border": 0}),
        ("nan", "float32", {}),
        ("alpha", "uint16", {}),
        ("mask", "uint16", {}),
    ],
)
def test_missing_pixels_of_a_coarse_band_never_bleed_into_their_neighbours(
    tmp_path: Path, nodata: Any, dtype: str, masks: dict
) -> None:
    missing = np.zeros((SIDE // 2, SIDE // 2), bool)
    missing[:, :11] = True
    fine_missing = np.kron(missing, np.ones((2, 2), int)) > 0
    fine, coarse = np.full((SIDE, SIDE), 3000), np.full((SIDE // 2, SIDE // 2), 3000)
    scene = scene_of(
        {
            "B02": write_raster(tmp_path / "B02.tif", {"B02": fine}, dtype=dtype, missing=fine_missing, nodata=nodata),
            "B05": write_raster(
                tmp_path / "B05.tif", {"B05": coarse}, dtype=dtype, missing=missing, nodata=nodata, resolution=20
            ),
        }
    )

    pixels = read_scene(scene, source_settings(("B02", "B05")), MaskSettings(**masks))

    assert not pixels.valid[fine_missing].any()
    assert pixels.valid[:, 24:].all()
    np.testing.assert_array_equal(pixels.values[:, pixels.valid], 3000)


def test_a_true_zero_of_one_band_is_no_border_on_another_grid_either(tmp_path: Path) -> None:
    grid = location_grid(tmp_path)
    numbers = {band: np.full((32, 32), 3000, np.uint16) for band in ("B02", "B03")}
    for values in numbers.values():
        values[:, :8] = 0
    numbers["B03"][16:20, 16:20] = 0
    path = write_raster(tmp_path / "shifted.tif", numbers, west=WEST + 4)

    pixels = read_scene(path, source_settings(("B02", "B03")), MaskSettings(border=0), None, grid)

    assert not pixels.valid[:, :8].any()
    assert pixels.valid[:, 10:].all()
    assert pixels.values[1, 18, 18] == 0


@pytest.mark.parametrize("described", [True, False])
def test_a_band_file_needs_no_description(tmp_path: Path, described: bool) -> None:
    pixels = read_scene(three_resolutions(tmp_path, described=described), source_settings(BANDS))

    assert pixels.valid.all()


def location_grid(folder: Path, side: int = 32) -> Grid:
    path = write_raster(folder / "first.tif", ground(side, side, ("B02",)))
    with open_scene(path, source_settings(("B02",))) as reader:
        return reader.grid


def read_onto(grid: Grid, path: Path, masks: MaskSettings | None = None) -> Pixels:
    return read_scene(path, source_settings(("B02",)), masks, None, grid)


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "place",
    [
        {"west": WEST + 103, "north": NORTH - 57},
        {"side": 10, "resolution": 30.0, "west": WEST + 20, "north": NORTH - 10},
    ],
    ids=["shifted", "coarser"],
)
def test_a_scene_on_another_grid_is_warped_and_has_data_only_where_it_reaches(
    tmp_path: Path, place: dict, dtype: str, bands: int
) -> None:
    grid = location_grid(tmp_path)
    place = dict(place)
    side, resolution = place.pop("side", 32), place.get("resolution", 10.0)
    names = tuple(f"B{number:02d}" for number in range(bands))
    numbers = plane(side, resolution, place["west"], place["north"])
    path = write_raster(tmp_path / "other.tif", dict.fromkeys(names, numbers), dtype=dtype, **place)

    pixels = read_scene(path, source_settings(names), None, None, grid)

    centres = np.arange(32) * 10 + 5
    east, south, reach = place["west"] - WEST, NORTH - place["north"], side * resolution
    reached = (centres > east) & (centres < east + reach) & ((centres > south) & (centres < south + reach))[:, None]
    assert (pixels.valid == reached).all()
    assert np.isnan(pixels.values[:, ~reached]).all()
    deep = binary_erosion(reached, iterations=2)
    for values in pixels.values:
        np.testing.assert_allclose(values[deep], plane(32, 10)[deep], atol=1.0)


@pytest.mark.parametrize("nodata", ["declared", "alpha", "mask", "nan"])
@pytest.mark.parametrize("bands", [1, 4])
def test_missing_data_of_a_scene_stays_missing_when_it_is_warped(tmp_path: Path, nodata: Any, bands: int) -> None:
    grid = location_grid(tmp_path)
    names = tuple(f"B{number:02d}" for number in range(bands))
    missing = np.zeros((32, 32), bool)
    missing[:, :10] = True
    path = write_raster(
        tmp_path / "other.tif",
        dict.fromkeys(names, np.full((32, 32), 3000)),
        dtype="float32" if nodata == "nan" else "uint16",
        missing=missing,
        nodata=nodata,
        west=WEST + 50,
    )

    pixels = read_scene(path, source_settings(names), None, None, grid)

    assert not pixels.valid[:, :14].any()
    assert pixels.valid[:, 16:].all()
    np.testing.assert_array_equal(pixels.values[:, pixels.valid], 3000)


def test_a_scene_in_another_crs_is_warped_to_where_it_belongs(tmp_path: Path) -> None:
    grid = location_grid(tmp_path)
    to_degrees = Transformer.from_crs(UTM, 4326, always_xy=True)
    to_utm = Transformer.from_crs(4326, UTM, always_xy=True)
    west, north = to_degrees.transform(WEST - 200, NORTH + 200)
    step = 8e-5
    lon = west + (np.arange(120) + 0.5) * step
    lat = north - (np.arange(120) + 0.5) * step
    x, y = to_utm.transform(*np.meshgrid(lon, lat))
    numbers = (1000 + (x - WEST) + 2 * (NORTH - y)).astype(np.float32)
    path = write_raster(
        tmp_path / "degrees.tif", {"B02": numbers}, crs="EPSG:4326", west=west, north=north, resolution=step
    )

    pixels = read_onto(grid, path)

    assert pixels.valid.all()
    # The plane rises by up to 3 a metre, and is sampled every 6 to 9 m.
    np.testing.assert_allclose(pixels.values[0], plane(32, 10), atol=0.3)


def test_classes_of_a_warped_scene_are_the_nearest_ones(tmp_path: Path) -> None:
    grid = location_grid(tmp_path)
    classes = np.where(np.arange(32) < 16, 2, 4) * np.ones((32, 1), int)
    path = write_raster(tmp_path / "other.tif", {"B02": plane(32, 10, WEST + 53)}, west=WEST + 53, classes=classes)
    masks = MaskSettings(class_band="SCL", bad_classes=(3,))

    pixels = read_onto(grid, path, masks)

    assert pixels.valid[:, 6:].all()
    assert not pixels.valid[:, :5].any()


@pytest.mark.parametrize(("off", "fits"), [(0, True), (10, True), (40, False)])
def test_a_coarse_band_is_no_mismatch_unless_it_lies_elsewhere(tmp_path: Path, off: int, fits: bool) -> None:
    """All bands of a scene may lie off by whole pixels together."""
    files = {}
    for band, resolution, by in (("B02", 10, 30), ("B05", 20, 30 + off)):
        numbers = plane(SIDE * 10 // resolution, resolution, WEST + by)
        files[band] = write_raster(tmp_path / f"{band}.tif", {band: numbers}, resolution=resolution, west=WEST + by)
    arguments = source_settings(("B02", "B05")), None, GridSettings(on_mismatch="refuse"), location_grid(tmp_path, SIDE)

    if fits:
        pixels = read_scene(scene_of(files), *arguments)
        reached = np.arange(SIDE) >= 3 + off // 10
        assert (pixels.valid == reached).all()
        np.testing.assert_allclose(pixels.values[1][inside(6)], plane(SIDE, 10)[inside(6)], atol=0.05)
    else:
        with pytest.raises(SceneMismatch, match=r"B05\.tif is not on the grid.*measure 20.* 2\.0 pixels off"):
            read_scene(scene_of(files), *arguments)


def test_a_window_of_a_warped_scene_is_the_same_as_that_part_of_the_whole(tmp_path: Path) -> None:
    scene = three_resolutions(tmp_path)
    everything = read_scene(scene, source_settings(BANDS))

    with open_scene(scene, source_settings(BANDS)) as reader:
        part = reader.read(Window(0, 16, SIDE, 16))

    np.testing.assert_array_equal(part.values, everything.values[:, 16:32])
    np.testing.assert_array_equal(part.valid, everything.valid[16:32])

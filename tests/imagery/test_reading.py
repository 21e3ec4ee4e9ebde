"""Which pixels count, and what their numbers mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from configs.schema import MaskSettings
from imagery.errors import SceneMismatch
from imagery.sources import Scene, SceneFile
from tests.rasters import (
    BANDS,
    DAY,
    NORTH,
    UTM,
    WEST,
    ground,
    open_scene,
    read_scene,
    scene_of,
    source_settings,
    write_raster,
)

MISSING = np.zeros((32, 32), bool)
MISSING[:, :7] = MISSING[20:, 25:] = True


@pytest.mark.parametrize(
    ("nodata", "dtype", "masks"),
    [
        ("declared", "uint16", {}),
        ("declared", "uint8", {}),
        ("declared", "int16", {}),
        ("declared", "float32", {}),
        ("zero", "uint16", {"nodata": 0}),
        ("zero", "float64", {"nodata": 0}),
        ("zero", "uint16", {"border": 0}),
        ("nan", "float32", {}),
        ("nan", "float64", {}),
        ("alpha", "uint8", {}),
        ("alpha", "uint16", {}),
        ("mask", "uint16", {}),
    ],
)
@pytest.mark.parametrize(
    "layout",
    [
        {"interleave": "band"},
        {"interleave": "pixel", "compress": "deflate", "block": 16},
    ],
)
def test_a_pixel_without_data_does_not_count_however_the_file_says_so(
    tmp_path: Path, nodata: Any, dtype: str, masks: dict, layout: dict
) -> None:
    numbers = {band: values % 200 + 1 for band, values in ground().items()}
    path = write_raster(tmp_path / "a.tif", numbers, dtype=dtype, missing=MISSING, nodata=nodata, **layout)

    pixels = read_scene(path, masks=MaskSettings(**masks))

    assert (pixels.valid == ~MISSING).all()
    assert (pixels.data == ~MISSING).all()
    assert not pixels.cloud.any()
    for values, band in zip(pixels.values, BANDS, strict=True):
        np.testing.assert_array_equal(values[~MISSING], numbers[band][~MISSING])
        if "border" not in masks:  # of a border, some other band may have known better
            assert np.isnan(values[MISSING]).all()


def test_without_a_sign_of_missing_data_every_pixel_counts(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(), missing=MISSING, nodata="zero")

    assert read_scene(path).valid.all()


def test_the_nodata_of_the_settings_counts_in_any_band_and_the_border_only_where_all_bands_have_it(
    tmp_path: Path,
) -> None:
    numbers = ground()
    for band in BANDS:
        numbers[band][MISSING] = 0
    numbers["B03"][10, 15] = 0  # a dark pixel, or one that a band lost
    path = write_raster(tmp_path / "a.tif", numbers)

    as_nodata = read_scene(path, masks=MaskSettings(nodata=0))
    as_border = read_scene(path, masks=MaskSettings(border=0))

    assert not as_nodata.valid[10, 15]
    assert as_border.valid[10, 15]
    assert as_border.values[1, 10, 15] == 0
    assert (as_border.valid == ~MISSING).all()


def test_declared_nodata_of_one_band_is_enough(tmp_path: Path) -> None:
    numbers = ground()
    numbers["B08"][3, 4] = 0
    path = write_raster(tmp_path / "a.tif", numbers, nodata="declared")

    pixels = read_scene(path)

    assert (~pixels.valid).sum() == 1
    assert not pixels.valid[3, 4]
    assert np.isnan(pixels.values[3, 3, 4])


def test_a_declared_value_and_that_of_the_settings_both_count(tmp_path: Path) -> None:
    numbers = ground()
    numbers["B02"][0, 0], numbers["B02"][0, 1] = 0, 65535
    path = write_raster(tmp_path / "a.tif", numbers, nodata="declared", nodata_value=65535)

    pixels = read_scene(path, masks=MaskSettings(nodata=0))

    assert (~pixels.valid).sum() == 2
    assert not pixels.valid[0, :2].any()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, -1.7976931348623157e308])
def test_a_number_that_is_none_never_counts(tmp_path: Path, bad: float) -> None:
    numbers = {band: values.astype(np.float64) for band, values in ground().items()}
    numbers["B04"][5, 6] = bad
    path = write_raster(tmp_path / "a.tif", numbers)

    pixels = read_scene(path)

    assert (~pixels.valid).sum() == 1
    assert not pixels.valid[5, 6]
    assert np.isfinite(pixels.values[:, pixels.valid]).all()


def test_bad_classes_do_not_count_and_cloud_is_told_apart_from_missing_data(tmp_path: Path) -> None:
    classes = np.full((32, 32), 4)
    classes[:, 8:12], classes[:, 12:16], classes[:, 16:20] = 9, 11, 6  # cloud, snow, water
    classes[MISSING] = 0
    path = write_raster(tmp_path / "a.tif", ground(), missing=MISSING, nodata="declared", classes=classes)

    pixels = read_scene(path, masks=MaskSettings(class_band="SCL"))

    assert (pixels.data == ~MISSING).all()
    assert (pixels.cloud == ((classes == 9) & ~MISSING)).all()
    assert (pixels.valid == (~MISSING & ~np.isin(classes, [9, 11]))).all()


def test_cloud_over_missing_data_is_missing_data(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(), missing=MISSING, nodata="zero", classes=np.full((32, 32), 9))

    pixels = read_scene(path, masks=MaskSettings(class_band="SCL", border=0))

    assert (pixels.cloud == ~MISSING).all()


def test_class_zero_is_a_class_and_not_missing_data_when_zero_is_nodata_of_the_bands(tmp_path: Path) -> None:
    classes = np.full((32, 32), 4)
    classes[0, 0] = 0
    path = write_raster(tmp_path / "a.tif", ground(), classes=classes)

    pixels = read_scene(path, masks=MaskSettings(class_band="SCL", nodata=0, bad_classes=(9,)))

    assert pixels.data.all()


def test_stored_numbers_become_physical_values(tmp_path: Path) -> None:
    numbers = ground()
    path = write_raster(tmp_path / "a.tif", numbers)

    pixels = read_scene(path, source_settings(scale=1e-4, offset=-0.1))

    assert pixels.values.dtype == np.float32
    for values, band in zip(pixels.values, BANDS, strict=True):
        np.testing.assert_allclose(values, numbers[band] * 1e-4 - 0.1, atol=1e-6)


def test_bands_are_taken_by_name_in_the_order_of_the_settings_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    numbers = ground()
    path = write_raster(tmp_path / "a.tif", {band: numbers[band] for band in ("B08", "B03", "B02", "B04")})

    pixels = read_scene(path, source_settings(("B04", "B02", "B08")))

    for values, band in zip(pixels.values, ("B04", "B02", "B08"), strict=True):
        np.testing.assert_array_equal(values, numbers[band])


def test_names_of_the_settings_are_for_files_that_name_nothing_and_an_alpha_band_needs_none(tmp_path: Path) -> None:
    numbers = ground(bands=("blue", "green", "red"))
    path = write_raster(tmp_path / "a.tif", numbers, described=False, missing=MISSING, nodata="alpha")
    source = source_settings(("red", "blue"), band_names=("blue", "green", "red"))

    pixels = read_scene(path, source)

    np.testing.assert_array_equal(pixels.values[0][~MISSING], numbers["red"][~MISSING])
    np.testing.assert_array_equal(pixels.values[1][~MISSING], numbers["blue"][~MISSING])
    assert (pixels.valid == ~MISSING).all()


def test_descriptions_beat_the_names_of_the_settings(tmp_path: Path) -> None:
    numbers = ground(bands=("B02", "B03"))
    path = write_raster(tmp_path / "a.tif", numbers)

    pixels = read_scene(path, source_settings(("B02",), band_names=("B03", "B02")))

    np.testing.assert_array_equal(pixels.values[0], numbers["B02"])


def refusal(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(SceneMismatch) as caught:
        read_scene(*arguments, **keywords)
    return str(caught.value)


def test_a_file_that_names_no_band_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(), described=False)

    message = refusal(path)

    assert "4 bands without descriptions" in message
    assert "source.band_names" in message


def test_names_that_are_more_or_fewer_than_the_bands_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(), described=False)

    message = refusal(path, source_settings(("B02",), band_names=("B02", "B03", "B04")))

    assert "has 4 bands" in message
    assert "names 3: B02, B03, B04" in message


def test_a_missing_band_is_named_together_with_those_that_are_there(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(bands=("B02", "B03", "B04")))

    message = refusal(path)

    assert "has no band B08" in message
    assert "found: B02, B03, B04" in message
    assert "here/2020-06-01" in message


def test_a_missing_classification_is_refused_like_a_missing_band(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground())

    assert "has no band SCL" in refusal(path, masks=MaskSettings(class_band="SCL"))


def test_a_missing_file_of_a_band_is_refused(tmp_path: Path) -> None:
    numbers = ground(bands=("B02", "B03"))
    files = {band: write_raster(tmp_path / f"{band}.tif", {band: values}) for band, values in numbers.items()}

    message = refusal(scene_of(files), source_settings(("B02", "B03", "B11")))

    assert "has no band B11 (found: B02, B03)" in message


def test_two_bands_of_the_same_name_are_refused_rather_than_one_of_them_chosen(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(bands=("B02", "other")))
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B02", "B02")

    assert "B02" in refusal(path, source_settings(("B02",)))


def test_two_files_for_the_same_band_are_refused_rather_than_one_of_them_chosen(tmp_path: Path) -> None:
    one, other = (
        write_raster(tmp_path / f"{name}.tif", ground(bands=("B02",), seed=seed))
        for name, seed in (("v1", 0), ("v2", 1))
    )
    scene = Scene("here", DAY, (SceneFile("B02", str(one)), SceneFile("B02", str(other))))

    message = refusal(scene, source_settings(("B02",)))

    assert "B02" in message


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    numbers = {band: values.astype(np.complex64) for band, values in ground().items()}
    path = write_raster(tmp_path / "a.tif", numbers)

    assert "complex64" in refusal(path)


@pytest.mark.parametrize("layout", [{}, {"block": 16, "compress": "zstd"}])
def test_a_window_is_the_same_as_that_part_of_the_whole(tmp_path: Path, layout: dict) -> None:
    classes = np.random.default_rng(1).integers(0, 12, (40, 50))
    path = write_raster(tmp_path / "a.tif", ground(40, 50), nodata="declared", classes=classes, **layout)
    masks = MaskSettings(class_band="SCL")
    everything = read_scene(path, masks=masks)

    with open_scene(path, masks=masks) as reader:
        part = reader.read(Window(11, 7, 30, 20))

    np.testing.assert_array_equal(part.values, everything.values[:, 7:27, 11:41])
    for name in ("valid", "data", "cloud"):
        np.testing.assert_array_equal(getattr(part, name), getattr(everything, name)[7:27, 11:41])


def test_the_scene_that_comes_first_defines_the_grid(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(24, 40))

    with open_scene(path) as reader:
        assert reader.grid.crs == UTM
        assert reader.grid.transform == (10, 0, WEST, 0, -10, NORTH)
        assert (reader.grid.width, reader.grid.height) == (40, 24)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:3035",
        "+proj=utm +zone=34 +ellps=GRS80 +units=m +no_defs",
        "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m +no_defs",
    ],
)
def test_a_scene_lies_on_the_grid_that_it_defined_itself(tmp_path: Path, crs: str) -> None:
    path = write_raster(tmp_path / "a.tif", ground(), crs=crs)
    with open_scene(path) as reader:
        grid = reader.grid

    assert read_scene(path, location_grid=grid).valid.all()


def test_files_are_closed_when_the_scene_is(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground())

    with open_scene(path) as reader:
        dataset = reader._bands["B02"].band.dataset

    assert dataset.closed

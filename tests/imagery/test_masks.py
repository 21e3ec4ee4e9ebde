"""Why a pixel does not count: one cause each, the same in whatever window it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from configs.schema import MaskSettings, SourceSettings
from imagery.errors import SceneMismatch
from imagery.grid import Grid
from imagery.masks import Cause
from imagery.sources import find_scenes
from imagery.survey import survey
from tests.rasters import ground, open_scene, read_scene, scene_of, source_settings, whole, write_raster

TWO = source_settings(("B02", "B03"))
SIDE = 32

# Numbers as they stand in products of Landsat 8 and 9, Collection 2. Bits 8 to 15 are confidences.
QUALITY = {
    1: Cause.NODATA,  # fill
    21824: Cause.VALID,  # clear land
    21952: Cause.VALID,  # clear water
    21826: Cause.DILATED,  # close to a cloud, over land
    21890: Cause.DILATED,  # over water
    22080: Cause.VALID,  # cloud, but of middle confidence
    22280: Cause.CLOUD,
    22282: Cause.CLOUD,  # within what was dilated from it
    23888: Cause.SHADOW,
    23952: Cause.SHADOW,  # over water
    24344: Cause.CLOUD,  # with shadow
    30048: Cause.SNOW,
    54596: Cause.CLOUD,  # cirrus
    55052: Cause.CLOUD,  # cirrus, cloud
}


def causes_of(path: Path, masks: MaskSettings, **keywords: Any) -> np.ndarray:
    return read_scene(path, TWO, masks, **keywords).causes


def test_each_class_of_sentinel_2_has_its_cause(tmp_path: Path) -> None:
    classes = np.arange(12)[:, None] * np.ones((1, 8), int)
    path = write_raster(tmp_path / "a.tif", ground(12, 8, ("B02", "B03")), classes=classes)

    causes = causes_of(path, MaskSettings(class_band="SCL"))

    expected = [Cause.VALID] * 12
    expected[0] = expected[1] = Cause.CLASS  # no data, defective; the bands say themselves where they have no data
    expected[3] = Cause.SHADOW
    expected[8] = expected[9] = expected[10] = Cause.CLOUD
    expected[11] = Cause.SNOW
    np.testing.assert_array_equal(causes, np.array(expected)[:, None] * np.ones(8))


def test_which_classes_are_bad_is_for_the_settings_and_no_other_one_is_cloud(tmp_path: Path) -> None:
    classes = np.arange(12)[:, None] * np.ones((1, 8), int)
    path = write_raster(tmp_path / "a.tif", ground(12, 8, ("B02", "B03")), classes=classes)

    causes = causes_of(
        path,
        MaskSettings(
            class_band="SCL",
            bad_classes=(2, 5, 6, 7),
            cloud_classes=(5, 9),
            shadow_classes=(6,),
            snow_classes=(7, 11),
        ),
    )

    expected = np.zeros(12)
    expected[[2, 5, 6, 7]] = Cause.CLASS, Cause.CLOUD, Cause.SHADOW, Cause.SNOW
    np.testing.assert_array_equal(causes, expected[:, None] * np.ones(8))


@pytest.mark.parametrize("nodata", ["none", "declared"])
def test_each_quality_number_of_landsat_has_its_cause(tmp_path: Path, nodata: Any) -> None:
    bits = np.array([*QUALITY])[:, None] * np.ones((1, 6), int)
    numbers = ground(len(QUALITY), 6, ("B02", "B03"))
    scene = scene_of(
        {
            **{band: write_raster(tmp_path / f"{band}.tif", {band: numbers[band]}) for band in ("B02", "B03")},
            "QA_PIXEL": write_raster(
                tmp_path / "qa.tif", {"QA_PIXEL": bits}, dtype="uint16", nodata=nodata, nodata_value=1
            ),
        }
    )

    causes = read_scene(scene, TWO, MaskSettings(qa_band="QA_PIXEL")).causes

    np.testing.assert_array_equal(causes, np.array([*QUALITY.values()])[:, None] * np.ones(6))


def test_only_the_bits_of_the_settings_are_bad(tmp_path: Path) -> None:
    numbers = ground(len(QUALITY), 6, ("B02", "B03"))
    bits = np.array([*QUALITY])[:, None] * np.ones((1, 6), int)
    path = write_raster(tmp_path / "a.tif", numbers | {"QA_PIXEL": bits}, dtype="uint16")

    causes = causes_of(path, MaskSettings(qa_band="QA_PIXEL", bad_bits=("cloud_shadow", "water")))

    shadow, water = (bits & 1 << 4 > 0), (bits & 1 << 7 > 0)
    np.testing.assert_array_equal(causes, np.where(shadow, Cause.SHADOW, np.where(water, Cause.CLASS, Cause.VALID)))


def test_quality_bits_are_whole_numbers(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(8, 8, ("B02", "B03", "QA_PIXEL")), dtype="float32")

    with pytest.raises(SceneMismatch, match="QA_PIXEL holds float32: bits are whole numbers"):
        causes_of(path, MaskSettings(qa_band="QA_PIXEL"))


@pytest.mark.parametrize(
    ("cloud", "above", "dtype"),
    [([0, 1, 1], 0, "uint8"), ([20, 61, 100], 60, "uint8"), ([0.1, 0.51, 0.9], 0.5, "float32")],
    ids=["mask", "percent", "probability"],
)
def test_a_file_beside_the_scene_says_where_there_is_cloud(
    tmp_path: Path, cloud: list[float], above: float, dtype: str
) -> None:
    """At another resolution, found by the settings; 0 is nodata of the bands, but means "no cloud" in the mask."""
    blocks = np.array(cloud).repeat([6, 5, 5])[:, None] * np.ones((1, 16))
    write_raster(tmp_path / "here/2020-06-01.tif", ground(SIDE, SIDE, ("B02", "B03")))
    write_raster(tmp_path / "here/2020-06-01_cloud.tif", {"x": blocks}, dtype=dtype, resolution=20, described=False)
    source = SourceSettings(
        root=tmp_path,
        pattern="{location}/{date:%Y-%m-%d}.tif",
        bands=("B02", "B03"),
        extra={"CLOUD": "{location}/{date:%Y-%m-%d}_cloud.tif"},
    )
    (scene,) = find_scenes(source).scenes

    causes = read_scene(scene, source, MaskSettings(cloud_band="CLOUD", cloud_above=above, nodata=0)).causes

    np.testing.assert_array_equal(causes[:12], Cause.VALID)
    np.testing.assert_array_equal(causes[12:], Cause.CLOUD)


def test_where_a_band_of_classes_or_clouds_has_no_data_pixels_do_not_count(tmp_path: Path) -> None:
    """It is not known whether they are cloudy."""
    scene = scene_of(
        {
            "": write_raster(tmp_path / "a.tif", ground(SIDE, SIDE, ("B02", "B03"))),
            "SCL": write_raster(tmp_path / "scl.tif", {"SCL": np.full((16, SIDE), 4)}, dtype="uint8"),
            "CLOUD": write_raster(
                tmp_path / "cloud.tif",
                {"CLOUD": np.where(np.arange(SIDE) < 10, 255, 0) * np.ones((SIDE, 1))},
                dtype="uint8",
                nodata="declared",
                nodata_value=255,
            ),
        }
    )

    causes = read_scene(scene, TWO, MaskSettings(class_band="SCL", cloud_band="CLOUD")).causes

    expected = np.full((SIDE, SIDE), Cause.CLASS)
    expected[:16, 10:] = Cause.VALID
    np.testing.assert_array_equal(causes, expected)


def test_each_pixel_has_the_first_cause_that_applies(tmp_path: Path) -> None:
    numbers = ground(SIDE, SIDE, ("B02", "B03"))
    numbers["B02"][:8], numbers["B03"][4:8] = 0, 0  # missing in one band, and in both
    classes = np.where(np.arange(SIDE) < 16, 9, 11) * np.ones((SIDE, 1), int)
    bits = np.full((SIDE, SIDE), 21824)
    bits[:, ::2] = 23888
    scene = scene_of(
        {
            "": write_raster(tmp_path / "a.tif", numbers, classes=classes),
            "QA_PIXEL": write_raster(tmp_path / "qa.tif", {"QA_PIXEL": bits}, dtype="uint16"),
        }
    )

    as_nodata = MaskSettings(nodata=0, class_band="SCL", qa_band="QA_PIXEL", bad_classes=(9,))
    as_border = MaskSettings(border=0, class_band="SCL", qa_band="QA_PIXEL", bad_classes=(9,))
    nodata, border = (read_scene(scene, TWO, masks).causes for masks in (as_nodata, as_border))

    seen = np.where(np.arange(SIDE) < 16, Cause.CLOUD, np.where(np.arange(SIDE) % 2, Cause.VALID, Cause.SHADOW))
    np.testing.assert_array_equal(nodata[:8], Cause.NODATA)
    np.testing.assert_array_equal(border[4:8], Cause.BORDER)
    np.testing.assert_array_equal(border[:4], seen * np.ones((4, 1)))
    np.testing.assert_array_equal(nodata[8:], seen * np.ones((24, 1)))
    np.testing.assert_array_equal(border[8:], nodata[8:])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    dilate=st.sampled_from([0.0, 9.0, 10.0, 25.0, 30.0, 47.0, 200.0]),
    corners=st.tuples(st.integers(0, 39), st.integers(0, 49), st.integers(1, 40), st.integers(1, 50)),
)
def test_clouds_are_grown_by_a_disk_in_whatever_window_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dilate: float, corners: Any
) -> None:
    draw = np.random.default_rng(seed)
    classes = draw.choice([4, 3, 9, 11], (40, 50), p=[0.98, 0.005, 0.005, 0.01])
    missing = draw.random((40, 50)) < 0.1
    path = write_raster(
        tmp_path_factory.mktemp("grown") / "a.tif",
        ground(40, 50, ("B02", "B03")),
        classes=classes,
        missing=missing,
        nodata="declared",
    )
    masks = MaskSettings(class_band="SCL", dilate=dilate)
    row, column, height, width = corners
    window = Window(column, row, min(width, 50 - column), min(height, 40 - row))

    with open_scene(path, TWO, masks) as reader:
        everything, part = reader.read(whole(reader.grid)), reader.read(window)

    expected = np.zeros((40, 50), np.uint8)
    expected[classes == 3], expected[classes == 9], expected[classes == 11] = Cause.SHADOW, Cause.CLOUD, Cause.SNOW
    cloudy = np.argwhere(np.isin(classes, (3, 9)))
    for r, c in np.ndindex(40, 50):
        if missing[r, c]:
            expected[r, c] = Cause.NODATA
        elif not expected[r, c] and len(cloudy) and (np.square(cloudy - (r, c)).sum(axis=1) * 100 <= dilate**2).any():
            expected[r, c] = Cause.DILATED if dilate else Cause.VALID
    np.testing.assert_array_equal(everything.causes, expected)
    np.testing.assert_array_equal(part.causes, expected[row : row + height, column : column + width])


def test_clouds_are_grown_by_metres_on_the_ground_where_pixels_are_degrees_or_stretched(tmp_path: Path) -> None:
    classes = np.full((41, 61), 4)
    classes[20, 30] = 9
    # At 60° north, a degree of longitude is half as long as one of latitude, and Web Mercator stretches both to double.
    for crs, place, rows, columns in (
        ("EPSG:4326", {"west": 20.0, "north": 60.002, "resolution": 1e-4}, 8, 17),
        ("EPSG:3857", {"west": 2e6, "north": 8_399_938.0, "resolution": 10.0}, 19, 19),
        ("EPSG:32634", {}, 10, 10),
    ):
        path = write_raster(
            tmp_path / f"{crs[5:]}.tif", ground(41, 61, ("B02", "B03")), classes=classes, crs=crs, **place
        )

        grown = causes_of(path, MaskSettings(class_band="SCL", dilate=100)) == Cause.DILATED

        assert (grown[:, 30].sum() // 2, grown[20].sum() // 2) == (rows, columns), crs


def test_what_landsat_has_grown_already_is_not_grown_again_and_neither_is_snow(tmp_path: Path) -> None:
    bits = np.full((SIDE, SIDE), 21824)
    bits[4, 4], bits[16, 16], bits[28, 28] = 21826, 30048, 22280
    path = write_raster(tmp_path / "a.tif", ground(SIDE, SIDE, ("B02", "B03")) | {"QA_PIXEL": bits}, dtype="uint16")

    causes = causes_of(path, MaskSettings(qa_band="QA_PIXEL", dilate=10))

    assert np.argwhere(causes == Cause.DILATED).tolist() == [[4, 4], [27, 28], [28, 27], [28, 29], [29, 28]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), stride=st.sampled_from([None, 8, 12]))
def test_the_shares_of_all_causes_and_of_the_pixels_that_count_add_up_to_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, stride: int | None
) -> None:
    draw = np.random.default_rng(seed)
    shape = tuple(draw.integers(16, 60, 2))
    numbers = ground(*shape, bands=("B02", "B03"), seed=seed)
    border = draw.random(shape) < 0.1
    numbers["B02"][border] = numbers["B03"][border] = 0
    scene = scene_of(
        {
            "": write_raster(
                tmp_path_factory.mktemp("shares") / "a.tif",
                numbers,
                classes=draw.integers(0, 12, shape),
                missing=draw.random(shape) < 0.1,
                nodata="declared",
                nodata_value=65535,
            )
        }
    )
    masks = MaskSettings(border=0, class_band="SCL", dilate=10)

    found = survey(lambda: open_scene(scene, TWO, masks), ("B02", "B03"), 16, stride)

    causes = read_scene(scene, TWO, masks).causes
    assert found.valid_fraction + sum(found.masked.values()) == pytest.approx(1, abs=1e-12)
    for cause in Cause:
        share = found.valid_fraction if cause == Cause.VALID else found.masked.get(cause.name.lower(), 0)
        assert share == pytest.approx((causes == cause).mean(), abs=1e-12)
    assert all(found.masked.values())
    assert found.data_fraction == pytest.approx(1 - np.isin(causes, (Cause.NODATA, Cause.BORDER)).mean())


def test_masks_of_a_coarser_class_band_of_a_warped_scene_lie_where_its_pixels_do(tmp_path: Path) -> None:
    """The nearest class counts, a coarse band's as well, on a grid between the pixels of both."""
    classes = np.random.default_rng(0).choice([4, 9], (16, 16))
    scene = scene_of(
        {
            "": write_raster(tmp_path / "a.tif", ground(SIDE, SIDE, ("B02", "B03"))),
            "SCL": write_raster(tmp_path / "scl.tif", {"SCL": classes}, dtype="uint8", resolution=20),
        }
    )
    with open_scene(scene, TWO) as reader:
        a, b, west, d, e, north = reader.grid.transform
    grid = Grid(reader.grid.crs, (a, b, west + 3, d, e, north - 4), SIDE - 1, SIDE - 1)

    pixels = read_scene(scene, TWO, MaskSettings(class_band="SCL"), location_grid=grid)

    np.testing.assert_array_equal(pixels.cloud, classes.repeat(2, 0).repeat(2, 1)[:-1, :-1] == 9)

"""Landsat Collection 2 products: bands, numbers and places from their MTL file."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import Area, MaskSettings, SourceSettings
from imagery.errors import ImageryError
from imagery.sources import Listing, SceneFile, find_scenes
from tests.products import tarred, write_landsat
from tests.rasters import ground, read_scene, write_raster

LEVEL2 = {"SR_B2": b"a", "SR_B4": b"b", "ST_B10": b"c", "QA_PIXEL": b"d"}
LEVEL1 = {"B2": b"a", "B4": b"b", "B10": b"c", "QA_PIXEL": b"d"}


def listing(root: Path, locations: dict[str, Area] | None = None, **settings: Any) -> Listing:
    return find_scenes(SourceSettings(kind="landsat", root=root, **settings), locations)


def files(found: Listing) -> dict[str, SceneFile]:
    (scene,) = found.scenes
    return {file.band: file for file in scene.files}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_product_is_a_scene_of_its_path_and_row(tmp_path: Path, as_json: bool) -> None:
    write_landsat(tmp_path, LEVEL2, as_json=as_json)

    (scene,) = listing(tmp_path).scenes

    assert scene.scene_id == "198024/2020-05-18T102724Z"
    assert scene.acquired == datetime(2020, 5, 18, 10, 27, 24, tzinfo=UTC)
    assert [file.band for file in scene.files] == ["B2", "B4", "ST_B10", "QA_PIXEL"]


def test_metadata_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    for as_json in (False, True):
        write_landsat(tmp_path, LEVEL2, as_json=as_json)

    found = listing(tmp_path)

    assert len(found.scenes) == 1
    assert found.skipped == ()


@pytest.mark.parametrize("as_json", [False, True])
def test_level_2_is_surface_reflectance_and_kelvin_not_the_numbers_of_level_1_that_it_repeats(
    tmp_path: Path, as_json: bool
) -> None:
    write_landsat(tmp_path, LEVEL2, as_json=as_json)

    found = files(listing(tmp_path))

    assert {(found[band].scale, found[band].offset, found[band].nodata) for band in ("B2", "B4")} == {
        (2.75e-5, -0.2, 0)
    }
    assert (found["ST_B10"].scale, found["ST_B10"].offset, found["ST_B10"].nodata) == (0.00341802, 149.0, 0)
    assert (found["QA_PIXEL"].scale, found["QA_PIXEL"].offset, found["QA_PIXEL"].nodata) == (None, None, None)


@pytest.mark.parametrize("elevation", [30.0, 61.5])
def test_level_1_reflectance_is_corrected_for_the_height_of_the_sun_and_radiance_is_not(
    tmp_path: Path, elevation: float
) -> None:
    write_landsat(tmp_path, LEVEL1, level="L1TP", elevation=elevation)

    found = files(listing(tmp_path))

    sine = math.sin(math.radians(elevation))
    assert found["B4"].scale == pytest.approx(2e-5 / sine, rel=1e-12)
    assert found["B4"].offset == pytest.approx(-0.1 / sine, rel=1e-12)
    assert (found["B10"].scale, found["B10"].offset) == (3.342e-4, 0.1)


@pytest.mark.parametrize("archived", [False, True])
def test_pixels_are_reflectance_and_kelvin_and_fill_is_no_data(tmp_path: Path, archived: bool) -> None:
    numbers = ground(bands=("SR_B2", "SR_B4", "ST_B10")) | {"QA_PIXEL": np.full((32, 32), 21824, np.uint16)}
    numbers["SR_B4"][:4] = 0  # fill, which the file declares nowhere
    numbers["QA_PIXEL"][:, :3] = 22280  # cloud
    images = {
        band: write_raster(tmp_path / "images" / f"{band}.tif", {band: values}, described=False, resolution=30)
        for band, values in numbers.items()
    }
    product = write_landsat(tmp_path / "products", images)
    if archived:
        tarred(product)
    source = SourceSettings(kind="landsat", root=tmp_path / "products", bands=("B2", "B4", "ST_B10"))
    (scene,) = find_scenes(source).scenes

    pixels = read_scene(scene, source, MaskSettings(qa_band="QA_PIXEL"))

    for channel, (band, scale, offset) in enumerate(
        [("SR_B2", 2.75e-5, -0.2), ("SR_B4", 2.75e-5, -0.2), ("ST_B10", 0.00341802, 149.0)]
    ):
        expected = (numbers[band] * scale + offset).astype(np.float32)
        expected[numbers[band] == 0] = np.nan
        np.testing.assert_array_equal(pixels.values[channel], expected)
    assert not pixels.data[:4].any()
    assert pixels.data[4:].all()
    assert pixels.cloud[4:, :3].all()
    assert pixels.valid[4:, 3:].all()
    assert not pixels.valid[:, :3].any()


def test_a_product_in_a_tar_file_is_read_where_it_lies(tmp_path: Path) -> None:
    archive = tarred(write_landsat(tmp_path, LEVEL2))

    found = files(listing(tmp_path))

    assert found["B2"].path == f"/vsitar/{{{archive}}}/{archive.stem}_SR_B2.TIF"
    assert found["B2"].local == archive
    assert found["QA_PIXEL"].path.endswith("_QA_PIXEL.TIF")


def test_a_damaged_tar_file_is_skipped_with_the_reason(tmp_path: Path) -> None:
    archive = tarred(write_landsat(tmp_path, LEVEL2))
    archive.write_bytes(b"x" * 2000)

    ((name, reason),) = listing(tmp_path).skipped

    assert name == str(archive)
    assert "no tar file that can be read" in reason


def test_bands_get_the_names_of_the_settings(tmp_path: Path) -> None:
    write_landsat(tmp_path, LEVEL2)

    assert sorted(files(listing(tmp_path, names={"blue": "B2", "red": "B4"}))) == ["QA_PIXEL", "ST_B10", "blue", "red"]


def test_an_image_that_is_not_there_is_no_band(tmp_path: Path) -> None:
    product = write_landsat(tmp_path, LEVEL2)
    next(product.glob("*_SR_B4.TIF")).unlink()

    assert sorted(files(listing(tmp_path))) == ["B2", "QA_PIXEL", "ST_B10"]


def test_of_two_processings_the_newer_one_is_taken(tmp_path: Path) -> None:
    old = write_landsat(tmp_path, LEVEL2, processed="2020-05-19", time="10:27:24.5434450Z")
    new = write_landsat(tmp_path, LEVEL2, processed="2020-08-20", time="10:27:23.9999990Z")

    found = listing(tmp_path)

    assert [scene.scene_id for scene in found.scenes] == ["198024/2020-05-18T102723Z"]
    assert new.name in found.scenes[0].files[0].path
    assert old.name in found.skipped[0][0]
    assert "processed later" in found.skipped[0][1]


def test_scenes_are_given_to_the_locations_that_the_product_touches(tmp_path: Path) -> None:
    write_landsat(tmp_path, LEVEL2)
    locations = {
        "inside": Area(crs="EPSG:4326", bounds=(-8.5, 52.5, -8.4, 52.6), resolution=0.001),
        "outside": Area(crs="EPSG:4326", bounds=(-6.5, 52.5, -6.4, 52.6), resolution=0.001),
    }

    assert [scene.location for scene in listing(tmp_path, locations).scenes] == ["inside"]


def test_products_before_the_date_asked_for_are_left_out(tmp_path: Path) -> None:
    write_landsat(tmp_path, LEVEL2, day="2020-05-18")
    write_landsat(tmp_path, LEVEL2, day="2020-06-03")

    assert [scene.acquired.date() for scene in listing(tmp_path, since=date(2020, 6, 1)).scenes] == [date(2020, 6, 3)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"level": "L2SP", "images": LEVEL2}, {"level": "L1TP", "images": LEVEL1, "day": "2020-06-03"}),
        ({"images": LEVEL2}, {"images": LEVEL2, "spacecraft": 7, "sensor": "ETM", "day": "2020-05-10"}),
    ],
    ids=["levels", "sensors whose B4 is another colour"],
)
def test_products_that_cannot_be_compared_are_not_mixed(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    write_landsat(tmp_path, **one)
    write_landsat(tmp_path, **other)

    with pytest.raises(ImageryError, match="keep each kind apart"):
        listing(tmp_path)


def test_numbers_in_the_settings_beside_those_of_the_product_are_refused(tmp_path: Path) -> None:
    write_landsat(tmp_path, LEVEL2)

    with pytest.raises(ImageryError, match="leave both null"):
        listing(tmp_path, scale=2.75e-5)


DAMAGED = {
    "other collection": ({"COLLECTION_NUMBER = 02": "COLLECTION_NUMBER = 01"}, "collection 01: only collection 2"),
    "no group": ({"LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": "GONE"}, "no group LEVEL2_SURFACE_REFLECTANCE"),
    "no scale": ({"    REFLECTANCE_MULT_BAND_4 = 2.75e-05": ""}, "no REFLECTANCE_MULT_BAND_4"),
    "no number": ({"2.75e-05": "2,75e-05"}, "'2,75e-05' as REFLECTANCE_MULT_BAND_2"),
    "infinite": ({"149.0": "inf"}, "'inf' as TEMPERATURE_ADD_BAND_ST_B10"),
    "no time": ({"10:27:24.5434450Z": "noon"}, "2020-05-18 noon as the time"),
    "no place": ({"WRS_PATH": "GONE"}, "no WRS_PATH"),
    "no images": ({"FILE_NAME_": "NAME_"}, "complete the product"),
    "empty": ({" = ": ": "}, "no group PRODUCT_CONTENTS"),
}


@pytest.mark.parametrize(("edit", "told"), DAMAGED.values(), ids=list(DAMAGED))
def test_a_product_with_damaged_metadata_is_skipped_with_the_reason_and_the_others_are_listed(
    tmp_path: Path, edit: dict[str, str], told: str
) -> None:
    write_landsat(tmp_path, LEVEL2, edit=edit)
    write_landsat(tmp_path, LEVEL2, day="2020-06-03")

    found = listing(tmp_path)

    assert [scene.acquired.date() for scene in found.scenes] == [date(2020, 6, 3)]
    ((_, reason),) = found.skipped
    assert told in reason


def test_a_level_1_scene_taken_at_night_has_no_reflectance(tmp_path: Path) -> None:
    write_landsat(tmp_path, LEVEL1, level="L1TP", elevation=-12.5)

    assert "the sun stood at -12.5°" in listing(tmp_path).skipped[0][1]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"LANDSAT_METADATA_FILE": [1]}', "[" * 100_000, "\x00\xff"])
def test_json_metadata_that_is_none_is_skipped(tmp_path: Path, content: str) -> None:
    product = write_landsat(tmp_path, LEVEL2, as_json=True)
    next(product.glob("*_MTL.json")).write_text(content)

    assert len(listing(tmp_path).skipped) == 1

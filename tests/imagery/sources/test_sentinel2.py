"""Sentinel-2 products: what their metadata says, and what is done when it cannot be trusted."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Area, SourceSettings
from imagery.errors import ImageryError
from imagery.sources import Listing, SceneFile, find_scenes
from tests.products import write_safe, zipped

IMAGES = {"B02_10m": b"a", "B04_10m": b"b", "B8A_20m": b"c", "SCL_20m": b"d"}
LEVEL1 = {"B02": b"a", "B04": b"b", "B8A": b"c"}
# In UTM zone 29: within the tile, and outside it.
INSIDE = Area(crs="EPSG:32629", bounds=(520_000, 5_820_000, 530_000, 5_830_000), resolution=10)
OUTSIDE = Area(crs="EPSG:32629", bounds=(720_000, 5_820_000, 730_000, 5_830_000), resolution=10)


def listing(root: Path, locations: dict[str, Area] | None = None, **settings: Any) -> Listing:
    return find_scenes(SourceSettings(kind="sentinel2", root=root, **settings), locations)


def files(found: Listing) -> dict[str, SceneFile]:
    (scene,) = found.scenes
    return {file.band: file for file in scene.files}


def test_a_product_is_a_scene_of_its_tile_at_the_start_of_its_data_take(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES)

    (scene,) = listing(tmp_path).scenes

    assert (scene.location, scene.acquired) == ("29UNU", datetime(2022, 10, 5, 11, 54, 11, tzinfo=UTC))
    assert scene.scene_id == "29UNU/2022-10-05T115411Z"
    assert [file.band for file in scene.files] == ["B02", "B04", "B8A", "SCL"]
    assert all(Path(file.path).is_file() and file.stamp is None for file in scene.files)


@pytest.mark.parametrize(
    ("level", "baseline", "offset", "expected"),
    [("2A", "04.00", -1000, -0.1), ("2A", "02.14", None, 0.0), ("1C", "05.09", -1000, -0.1), ("1C", "02.04", None, 0)],
)
def test_scale_and_offset_are_those_of_the_metadata(
    tmp_path: Path, level: str, baseline: str, offset: float | None, expected: float
) -> None:
    write_safe(tmp_path, IMAGES if level == "2A" else LEVEL1, level=level, baseline=baseline, offset=offset)

    found = files(listing(tmp_path))

    assert {(found[band].scale, found[band].offset, found[band].nodata) for band in ("B02", "B04", "B8A")} == {
        (1e-4, expected, 0)
    }


def test_each_band_has_its_own_offset(tmp_path: Path) -> None:
    only_b8a = {'band_id="8">-1000': 'band_id="8">-500'}
    write_safe(tmp_path, IMAGES, edit=only_b8a)

    found = files(listing(tmp_path))

    assert (found["B04"].offset, found["B8A"].offset) == (-0.1, -0.05)


def test_classes_have_no_scale_and_aerosol_has_its_own(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES | {"AOT_10m": b"e", "TCI_10m": b"f"})

    found = files(listing(tmp_path))

    assert (found["SCL"].scale, found["SCL"].offset) == (None, None)
    assert (found["AOT"].scale, found["AOT"].offset) == (1e-3, 0)
    assert "TCI" not in found


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (("B02_10m", "B02_20m", "B02_60m"), "R10m"),
        (("B02_20m", "B02_60m"), "R20m"),
        (("B02_60m",), "R60m"),
    ],
)
def test_a_band_is_read_where_it_is_finest(tmp_path: Path, images: tuple[str, ...], expected: str) -> None:
    write_safe(tmp_path, dict.fromkeys(images, b"a"))

    assert Path(files(listing(tmp_path))["B02"].path).parent.name == expected


def test_a_band_that_was_made_finer_in_processing_is_read_at_its_native_resolution(tmp_path: Path) -> None:
    write_safe(tmp_path, {"B01_20m": b"a", "B01_60m": b"b", "SCL_20m": b"c", "SCL_60m": b"d"})

    found = files(listing(tmp_path))

    assert [Path(found[band].path).parent.name for band in ("B01", "SCL")] == ["R60m", "R20m"]


def test_a_product_in_a_zip_file_is_read_where_it_lies(tmp_path: Path) -> None:
    archive = zipped(write_safe(tmp_path, IMAGES))

    found = files(listing(tmp_path))

    assert found["B02"].path.startswith(f"/vsizip/{{{archive}}}/S2A_MSIL2A_")
    assert found["B02"].offset == -0.1
    assert all(file.local == archive for file in found.values())


def test_the_older_format_has_several_tiles_in_a_product(tmp_path: Path) -> None:
    """Until December 2016: other names everywhere, identifiers in place of paths, a product for a part of an orbit."""
    product = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20160929T182404_R022_V20160929T100022_20160929T100022.SAFE"
    granules = ""
    for tile in ("33UUR", "33UVR"):
        granule = f"S2A_OPER_MSI_L1C_TL_EPA__20160929T151000_A006648_T{tile}_N02.04"
        image = f"S2A_OPER_MSI_L1C_TL_EPA__20160929T151000_A006648_T{tile}_B02"
        path = product / "GRANULE" / granule / "IMG_DATA" / f"{image}.jp2"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a")
        granules += f'<Granules granuleIdentifier="{granule}"><IMAGE_ID>{image}</IMAGE_ID></Granules>'
    (product / "S2A_OPER_MTD_SAFL1C_PDMC_20160929T182404_R022_V20160929T100022.xml").write_text(
        '<n1:Level-1C_User_Product xmlns:n1="https://psd-13.sentinel2.eo.esa.int/PSD/User_Product_Level-1C.xsd">'
        "<n1:General_Info><PRODUCT_START_TIME>2016-09-29T10:00:22.026Z</PRODUCT_START_TIME>"
        "<PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL><PROCESSING_BASELINE>02.04</PROCESSING_BASELINE>"
        f"<GENERATION_TIME>2016-09-29T18:24:04.000Z</GENERATION_TIME>{granules}"
        "<QUANTIFICATION_VALUE>1000</QUANTIFICATION_VALUE></n1:General_Info></n1:Level-1C_User_Product>"
    )

    found = listing(tmp_path)

    assert [scene.scene_id for scene in found.scenes] == ["33UUR/2016-09-29T100022Z", "33UVR/2016-09-29T100022Z"]
    assert [(file.band, file.scale) for scene in found.scenes for file in scene.files] == [("B02", 1e-3)] * 2


def test_of_two_processings_the_one_with_the_newer_baseline_is_taken(tmp_path: Path) -> None:
    old = write_safe(tmp_path, IMAGES, baseline="03.01", offset=None, generated="2022-10-05T18:04:59.000000Z")
    new = write_safe(tmp_path, IMAGES, baseline="05.00", generated="2023-02-01T10:00:00.000000Z")

    found = listing(tmp_path)

    (scene,) = found.scenes
    assert all(new.name in file.path for file in scene.files)
    ((skipped, reason),) = found.skipped
    assert old.name in skipped
    assert "processed later" in reason
    assert "05.00" in reason


def test_two_strips_of_one_data_take_are_two_scenes(tmp_path: Path) -> None:
    """Where a ground station lost and found the satellite, a tile comes in two halves, each with half of the data."""
    for second, strip in (
        ("2022-10-05T18:04:59.000000Z", "20221005T115413"),
        ("2022-10-05T18:05:01.000000Z", "20221005T115420"),
    ):
        write_safe(tmp_path, IMAGES, generated=second, strip=strip)

    found = listing(tmp_path)

    assert [scene.scene_id for scene in found.scenes] == ["29UNU/2022-10-05T115411Z", "29UNU/2022-10-05T115411Z/2"]
    assert found.skipped == ()


def test_scenes_are_given_to_the_locations_that_the_product_touches(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES)

    found = listing(tmp_path, {"harbour": INSIDE, "elsewhere": OUTSIDE, "hills": INSIDE})

    assert [scene.scene_id for scene in found.scenes] == [
        "harbour/2022-10-05T115411Z", "hills/2022-10-05T115411Z",
    ]  # fmt: skip


def test_two_tiles_of_one_location_are_two_scenes(tmp_path: Path) -> None:
    for tile in ("29UNU", "29UNT"):
        write_safe(tmp_path, IMAGES, tile=tile)

    found = listing(tmp_path, {"harbour": INSIDE})

    assert [scene.scene_id for scene in found.scenes] == [
        "harbour/2022-10-05T115411Z", "harbour/2022-10-05T115411Z/2",
    ]  # fmt: skip
    assert "29UNT" in found.scenes[0].files[0].path


def test_a_product_across_the_180th_meridian_touches_locations_on_both_sides(tmp_path: Path) -> None:
    corners = ((179.2, -17.0), (-179.6, -17.0), (-179.6, -18.0), (179.2, -18.0))
    write_safe(tmp_path, IMAGES, tile="01KAB", corners=corners)
    locations = {
        "east": Area(crs="EPSG:4326", bounds=(-179.9, -17.6, -179.7, -17.4), resolution=0.001),
        "far": Area(crs="EPSG:4326", bounds=(0, -17.6, 0.2, -17.4), resolution=0.001),
        "west": Area(crs="EPSG:4326", bounds=(179.5, -17.6, 179.7, -17.4), resolution=0.001),
    }

    assert [scene.location for scene in listing(tmp_path, locations).scenes] == ["east", "west"]


def test_a_location_in_an_unknown_coordinate_system_is_named(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES)
    nowhere = INSIDE.model_copy(update={"crs": "EPSG:999999"})

    with pytest.raises(ImageryError, match=r"locations\.harbour\.crs is 'EPSG:999999'"):
        listing(tmp_path, {"harbour": nowhere})


def test_products_before_the_date_asked_for_are_not_even_read(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES, start="20211231T115411", edit={"QUANTIFICATION_VALUE": "GONE"})
    write_safe(tmp_path, IMAGES, start="20220101T115411")

    found = listing(tmp_path, since=date(2022, 1, 1))

    assert [scene.acquired.date() for scene in found.scenes] == [date(2022, 1, 1)]
    assert found.skipped == ()


@pytest.mark.parametrize("setting", [{"offset": -0.1}, {"scale": 1e-4}])
def test_numbers_in_the_settings_beside_those_of_the_product_are_refused(
    tmp_path: Path, setting: dict[str, float]
) -> None:
    write_safe(tmp_path, IMAGES)

    with pytest.raises(ImageryError, match=r"apply it again: leave both null"):
        listing(tmp_path, **setting)


def test_products_of_both_levels_are_not_mixed(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES)
    write_safe(tmp_path, LEVEL1, level="1C")

    with pytest.raises(ImageryError, match=r"level 1C: .*level 2A: .*keep each kind apart"):
        listing(tmp_path)


def test_bands_can_have_other_names_than_in_the_product(tmp_path: Path) -> None:
    write_safe(tmp_path, IMAGES)

    found = files(listing(tmp_path, names={"blue": "B02", "B04": "B8A"}))

    assert sorted(found) == ["B04", "SCL", "blue"]
    assert "B8A" in found["B04"].path


DAMAGED = {
    "no quantification": ({"BOA_QUANTIFICATION_VALUE": "GONE"}, "no BOA_QUANTIFICATION_VALUE"),
    "no number": ({">10000<": ">ten<"}, "'ten' as QUANTIFICATION_VALUE"),
    "zero": ({">10000<": ">0<"}, "must be positive"),
    "no offset": ({"BOA_ADD_OFFSET": "GONE"}, "04.00 has offsets, but its metadata tells none"),
    "an offset that is none": ({'"2">-1000': '"2">-1ooo'}, "'-1ooo' as BOA_ADD_OFFSET"),
    "one offset missing": ({'band_id="3"': 'band_id="33"'}, "none for band B04"),
    "no time": ({"2022-10-05T11:54:11.024Z": "yesterday"}, "'yesterday' as the time"),
    "no level": ({"PROCESSING_LEVEL": "GONE"}, "no PROCESSING_LEVEL"),
    "no end": ({"</n1:Geometric_Info>": ""}, "no XML that can be read"),
    "no footprint": ({"53.25 -9.0": "53.25 west"}, "'west' as EXT_POS_LIST"),
    "unknown encoding": ({'encoding="UTF-8"': 'encoding="EBCDIC-9"'}, "no XML that can be read"),
    "other images": ({"_B02_10m": "_B77_10m", "_B04_10m": "_B78_10m", "_B8A_20m": "_X", "_SCL_20m": "_Y"}, "complete"),
}


@pytest.mark.parametrize(("edit", "told"), DAMAGED.values(), ids=list(DAMAGED))
def test_a_product_with_damaged_metadata_is_skipped_with_the_reason_and_the_others_are_listed(
    tmp_path: Path, edit: dict[str, str], told: str
) -> None:
    bad = write_safe(tmp_path, IMAGES, edit=edit)
    write_safe(tmp_path, IMAGES, start="20221010T115411")

    found = listing(tmp_path)

    assert [scene.acquired.day for scene in found.scenes] == [10]
    ((name, reason),) = found.skipped
    assert name == str(bad / "MTD_MSIL2A.xml")
    assert told in reason


def test_metadata_with_entities_is_not_read(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 1000}">' for n in range(8))
    head = 'standalone="no"?>'
    bad = write_safe(tmp_path, IMAGES, edit={head: f"{head}<!DOCTYPE x [{bomb}]>", ">10000<": ">&e7;<"})

    found = listing(tmp_path)

    assert found.scenes == ()
    assert found.skipped == (
        (str(bad / "MTD_MSIL2A.xml"), "its metadata declares a document type, which products do not: it is not read"),
    )


def test_metadata_of_any_size_is_not_read(tmp_path: Path) -> None:
    product = write_safe(tmp_path, IMAGES)
    with (product / "MTD_MSIL2A.xml").open("ab") as file:
        file.truncate(40 << 20)

    ((_, reason),) = listing(tmp_path).skipped

    assert "too large for metadata" in reason


def test_an_image_that_is_not_below_the_product_is_no_image_of_it(tmp_path: Path) -> None:
    (tmp_path / "T29UNU_20221005T115411_B02_10m.jp2").write_bytes(b"not of the product")
    image = "GRANULE/L2A_T29UNU_A038063_20221005T115411/IMG_DATA/R10m/T29UNU_20221005T115411_B02_10m"
    product = write_safe(tmp_path, IMAGES, edit={image: "../T29UNU_20221005T115411_B02_10m"})
    (product / f"{image}.jp2").unlink()

    assert "B02" not in files(listing(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip file at all" * 10])
def test_a_damaged_zip_file_is_skipped_with_the_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T180459.zip").write_bytes(content)

    found = listing(tmp_path)

    assert found.scenes == ()
    ((name, reason),) = found.skipped
    assert "S2A_MSIL2A" in name
    assert "no zip file that can be read" in reason


def test_a_zip_file_cut_short_is_skipped(tmp_path: Path) -> None:
    archive = zipped(write_safe(tmp_path, IMAGES))
    archive.write_bytes(archive.read_bytes()[:-200])

    assert "no zip file" in listing(tmp_path).skipped[0][1]


def test_a_change_of_the_metadata_alone_changes_the_stamp(tmp_path: Path) -> None:
    product = write_safe(tmp_path, IMAGES)
    (before,) = listing(tmp_path).scenes
    metadata = product / "MTD_MSIL2A.xml"
    metadata.write_text(metadata.read_text().replace('"3">-1000', '"3">-900'))

    (after,) = listing(tmp_path).scenes

    assert before.stamp != after.stamp
    assert before.fingerprint() != after.fingerprint()

"""STAC items in static catalogs: which files they mean, what their numbers mean, and where they may point."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import Area, SourceSettings, StacSettings
from imagery.errors import ImageryError
from imagery.sources import Listing, SceneFile, find_scenes
from tests.items import asset, item, write_catalog
from tests.rasters import ground, read_scene, write_raster

HERE = Area(crs="EPSG:4326", bounds=(20.2, 46.2, 20.4, 46.4), resolution=0.001)
AWAY = Area(crs="EPSG:4326", bounds=(120.2, 46.2, 120.4, 46.4), resolution=0.001)
REMOTE = "https://scenes.example/a"


def listing(root: Path, locations: dict[str, Area] | None = None, **settings: Any) -> Listing:
    values = {"bands": ("B04",), "location": "here"} | settings
    return find_scenes(SourceSettings(kind="stac", root=root, **values), locations)


def files(found: Listing) -> dict[str, SceneFile]:
    assert found.skipped == ()
    (scene,) = found.scenes
    return {file.band: file for file in scene.files}


def one(folder: Path, assets: dict[str, Any], **properties: Any) -> Path:
    """A catalog with one item."""
    return write_catalog(folder, [item("one", assets, **properties)])


def test_an_item_is_a_scene_of_the_location_of_the_settings(tmp_path: Path) -> None:
    root = one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif")}, datetime="2024-06-01T12:30:15.123456+02:00")

    (scene,) = listing(root).scenes

    assert (scene.location, scene.acquired) == ("here", datetime(2024, 6, 1, 10, 30, 15, tzinfo=UTC))
    assert scene.files[0].path == f"/vsicurl/{REMOTE}/B04.tif"
    assert scene.files[0].local is None


def test_items_are_given_to_the_locations_that_they_touch(tmp_path: Path) -> None:
    root = one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif")})

    found = listing(root, {"away": AWAY, "here": HERE, "there": HERE}, location=None)

    assert [scene.location for scene in found.scenes] == ["here", "there"]


def test_without_any_location_it_is_said_what_to_set(tmp_path: Path) -> None:
    root = one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif")})

    with pytest.raises(ImageryError, match=r"set locations, or source\.location"):
        listing(root, location=None)


def test_catalogs_within_catalogs_are_walked_and_each_item_is_found_once(tmp_path: Path) -> None:
    assets = {"B04": asset(f"{REMOTE}/B04.tif")}
    below = [item(f"i{day}", assets, datetime=f"2024-06-{day:02d}T10:00:00Z") for day in (3, 1, 2)]
    root = write_catalog(tmp_path, below[:1], children={"a": below[1:2], "b": below[2:]})
    catalog = json.loads(root.read_text())
    catalog["links"] += [link for link in catalog["links"] if link["rel"] in ("item", "child")]
    catalog["links"].append({"rel": "child", "href": "./catalog.json"})
    root.write_text(json.dumps(catalog))

    found = listing(root)

    assert [scene.acquired.day for scene in found.scenes] == [1, 2, 3]
    assert found.skipped == ()
    assert listing(tmp_path).scenes == found.scenes  # the folder stands for the catalog in it


def test_items_are_chosen_by_date_collection_and_cloud(tmp_path: Path) -> None:
    assets = {"B04": asset(f"{REMOTE}/B04.tif")}
    root = write_catalog(
        tmp_path,
        [
            item("old", assets, datetime="2023-12-31T10:00:00Z"),
            item("other", assets, collection="other", datetime="2024-01-02T10:00:00Z"),
            item("cloudy", assets, datetime="2024-01-03T10:00:00Z", **{"eo:cloud_cover": 60.5}),
            item("clear", assets, datetime="2024-01-04T10:00:00Z", **{"eo:cloud_cover": 60}),
            item("unknown", assets, datetime="2024-01-05T10:00:00Z"),
        ],
    )
    chosen = StacSettings(collections=("scenes",), max_cloud=60)

    found = listing(root, since=date(2024, 1, 1), stac=chosen)

    assert [scene.acquired.day for scene in found.scenes] == [4, 5]
    assert found.skipped == ()


def test_an_asset_is_found_by_its_key_then_by_a_band_name_then_by_a_common_name(tmp_path: Path) -> None:
    """As Earth Search has them: every image as GeoTIFF and JPEG 2000, and a picture with the names of its bands."""
    red = [{"name": "red", "common_name": "red"}]
    visual = [{"name": "red"}, {"name": "green"}, {"name": "blue"}]
    root = one(
        tmp_path,
        {
            "visual": asset(f"{REMOTE}/TCI.tif", **{"eo:bands": visual}),
            "red-jp2": asset(f"{REMOTE}/B04.jp2", **{"eo:bands": red}),
            "red": asset(f"{REMOTE}/B04.tif", **{"eo:bands": red}),
            "nir_image": asset(f"{REMOTE}/B08.tif", **{"eo:bands": [{"name": "B08", "common_name": "nir"}]}),
            "swir_image": asset(f"{REMOTE}/B11.tif", bands=[{"name": "x", "eo:common_name": "swir16"}]),
            "thumbnail": asset(f"{REMOTE}/preview.jpg"),
        },
    )

    found = files(
        listing(root, bands=("B04", "B08", "B11"), names={"B04": "red", "B11": "swir16", "SCL": "scl", "near": "nir"})
    )

    assert {band: file.path.rpartition("/")[2] for band, file in found.items()} == {
        "B04": "B04.tif", "B08": "B08.tif", "B11": "B11.tif", "near": "B08.tif", "red-jp2": "B04.jp2",
        "nir_image": "B08.tif", "swir_image": "B11.tif",
    }  # fmt: skip


def test_a_name_that_several_assets_have_is_not_guessed(tmp_path: Path) -> None:
    red = {"eo:bands": [{"name": "B04", "common_name": "red"}]}
    root = one(tmp_path, {"a": asset(f"{REMOTE}/a.tif", **red), "b": asset(f"{REMOTE}/b.tif", **red)})

    assert listing(root).skipped[0][1].startswith("several assets have a band B04: a, b. Name the asset")
    assert files(listing(root, names={"B04": "b"}))["B04"].path.endswith("/b.tif")


def test_bands_of_one_file_are_found_by_their_place_in_it(tmp_path: Path) -> None:
    stored = ground(bands=("B02", "B03", "B04"))
    write_raster(tmp_path / "scene.tif", stored, described=False)
    bands = [{"name": band, "raster:scale": 1e-4, "raster:offset": 0.01 * n} for n, band in enumerate(stored)]
    root = one(tmp_path, {"image": asset("./scene.tif", bands=bands)})
    source = SourceSettings(kind="stac", root=root, location="here", bands=("B04", "B03"))
    (scene,) = find_scenes(source).scenes

    pixels = read_scene(scene, source)

    np.testing.assert_array_equal(pixels.values[0], (stored["B04"] * 1e-4 + 0.02).astype(np.float32))
    np.testing.assert_array_equal(pixels.values[1], (stored["B03"] * 1e-4 + 0.01).astype(np.float32))


VERSIONS = {
    "1.0": {"raster:bands": [{"scale": 2e-4, "offset": -0.3, "nodata": 7}]},
    "1.1": {"bands": [{"name": "B04", "raster:scale": 2e-4, "raster:offset": -0.3, "nodata": 7}]},
    "1.1, shared": {"raster:scale": 2e-4, "raster:offset": -0.3, "nodata": 7},
}


@pytest.mark.parametrize("told", VERSIONS.values(), ids=list(VERSIONS))
def test_scale_offset_and_nodata_are_those_of_the_item(tmp_path: Path, told: dict[str, Any]) -> None:
    file = files(listing(one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif", **told)})))["B04"]

    assert (file.scale, file.offset, file.nodata) == (2e-4, -0.3, 7)


def test_an_item_that_says_nothing_of_its_numbers_leaves_them_to_the_settings(tmp_path: Path) -> None:
    root = one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif", **{"raster:bands": [{"nodata": "nan"}]})})

    file = files(listing(root, scale=1e-3))["B04"]

    assert (file.scale, file.offset, file.nodata) == (None, None, None)


SENTINEL2 = {
    "applied already": ({"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}, -0.1, 0.0),
    "not applied": ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.09"}, -0.1, -0.1),
    "nothing said": ({"s2:processing_baseline": "04.00"}, -0.1, -0.1),
    "before there was one": ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "02.14"}, -0.1, 0.0),
    "another sensor": ({}, -0.2, -0.2),
}


@pytest.mark.parametrize(("properties", "offset", "expected"), SENTINEL2.values(), ids=list(SENTINEL2))
def test_the_offset_of_sentinel_2_is_applied_once(
    tmp_path: Path, properties: dict[str, Any], offset: float, expected: float
) -> None:
    """Earth Search tells the offset in every item, applied or not, and older than the offset or not."""
    told = {"raster:bands": [{"scale": 1e-4, "offset": offset, "nodata": 0}]}

    file = files(listing(one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif", **told)}, **properties)))["B04"]

    assert (file.scale, file.offset) == (1e-4, expected)


def test_sentinel_2_with_an_offset_that_nothing_tells_is_skipped(tmp_path: Path) -> None:
    """As in the Planetary Computer: pixels from baseline 04.00 on have the offset, the items do not tell it."""
    root = one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif")}, **{"s2:processing_baseline": "05.09"})

    assert "processing baseline 05.09 has offsets, and nothing tells" in listing(root).skipped[0][1]
    assert files(listing(root, scale=1e-4, offset=-0.1))["B04"].offset is None


@pytest.mark.parametrize("setting", [{"offset": -0.1}, {"scale": 1e-4}])
def test_numbers_in_the_settings_beside_those_of_the_items_are_refused(
    tmp_path: Path, setting: dict[str, float]
) -> None:
    told = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}
    root = one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif", **told)})

    with pytest.raises(ImageryError, match="leave both null"):
        listing(root, **setting)


def test_of_two_processings_of_one_acquisition_the_newer_one_is_taken(tmp_path: Path) -> None:
    both = {
        "grid:code": "MGRS-29UNU",
        "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_VGS2_20240601T150000_S20240601T100015_N05.10",
    }
    told = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}
    root = write_catalog(
        tmp_path,
        [
            item("new", {"B04": asset(f"{REMOTE}/new.tif", **told)}, **both, **{"s2:processing_baseline": "05.10"}),
            item("old", {"B04": asset(f"{REMOTE}/old.tif", **told)}, **both, **{"s2:processing_baseline": "05.09"}),
        ],
    )

    found = listing(root)

    assert [scene.files[0].path for scene in found.scenes] == [f"/vsicurl/{REMOTE}/new.tif"]
    assert found.skipped[0][0] == "old"


FORBIDDEN = [
    "../outside.tif", "/etc/passwd.tif", "file:///etc/passwd.tif", "./link.tif", "ftp://scenes.example/B04.tif",
    "https://user:secret@scenes.example/B04.tif", "http:///B04.tif", "/vsicurl/http://scenes.example/B04.tif",
    "./a\nb.tif", "data:image/tiff,.tif",
]  # fmt: skip


@pytest.mark.parametrize("href", FORBIDDEN)
def test_a_catalog_of_this_machine_may_point_below_its_folder_and_at_http_and_s3_only(
    tmp_path: Path, href: str
) -> None:
    (tmp_path / "outside.tif").write_bytes(b"")
    folder = tmp_path / "catalog"
    root = one(folder, {"B04": asset(href)})
    (folder / "link.tif").symlink_to(tmp_path / "outside.tif")

    found = listing(root)

    assert found.scenes == ()
    assert [name for name, _ in found.skipped] == ["one"]


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("./below/B04.tif", "{folder}/below/B04.tif"),
        ("below/../B04.TIFF", "{folder}/B04.TIFF"),
        ("s3://bucket/key/B04.jp2", "/vsis3/bucket/key/B04.jp2"),
        ("https://scenes.example/B04.tif?sig=a%2Fb", "/vsicurl/https://scenes.example/B04.tif?sig=a%2Fb"),
    ],
)
def test_a_reference_becomes_what_gdal_opens(tmp_path: Path, href: str, path: str) -> None:
    assert files(listing(one(tmp_path, {"B04": asset(href)})))["B04"].path == path.format(folder=tmp_path)


@pytest.mark.parametrize("href", [f"{REMOTE}/B04.vrt", f"{REMOTE}/B04.vrt?x=.tif", f"{REMOTE}/B04", "./B04.gti"])
def test_an_asset_of_another_format_is_no_band(tmp_path: Path, href: str) -> None:
    assert files(listing(one(tmp_path, {"B04": asset(href)}))) == {}


def test_an_ending_behind_the_name_of_a_file_is_none(tmp_path: Path) -> None:
    found = listing(one(tmp_path, {"B04": asset(f"{REMOTE}/B04.vrt#.tif")}))

    assert found.scenes == ()
    assert "only .tif, .tiff, .jp2, .j2k are opened" in found.skipped[0][1]


def test_signatures_are_in_no_stamp_and_in_no_message(tmp_path: Path) -> None:
    stamps = []
    for signature in ("?sig=one", "?sig=two"):
        (scene,) = listing(one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif{signature}")})).scenes
        stamps.append(scene.stamp)
        assert scene.files[0].path.endswith(signature)

    assert stamps[0] == stamps[1]
    assert "sig" not in str(stamps)
    message = str(
        ImageryError(f"/vsicurl/{REMOTE}/B04.tif?sig=one cannot be opened: '{REMOTE}/B04.tif?sig=one' is gone")
    )
    assert message == f"/vsicurl/{REMOTE}/B04.tif cannot be opened: '{REMOTE}/B04.tif' is gone"


def test_an_item_that_was_updated_has_another_stamp(tmp_path: Path) -> None:
    stamps = [
        listing(one(tmp_path, {"B04": asset(f"{REMOTE}/B04.tif")}, updated=day)).scenes[0].stamp
        for day in ("2024-06-02T00:00:00Z", "2024-06-03T00:00:00Z")
    ]

    assert stamps[0] != stamps[1]


DAMAGED = {
    "no object": "[1, 2]",
    "no JSON": "{",
    "nested for ever": "[" * 100_000,
    "no properties": '{"type": "Feature", "id": "bad", "assets": {}}',
    "no time": json.dumps(item("bad", {"B04": asset(f"{REMOTE}/a.tif")}, datetime="noon")),
    "no assets": json.dumps(item("bad", {}) | {"assets": None}),
    "a scale that is none": json.dumps(item("bad", {"B04": asset(f"{REMOTE}/a.tif", **{"raster:scale": "x"})})),
    "a geometry that is none": json.dumps(item("bad", {}) | {"geometry": {"type": "Polygon", "coordinates": [[1]]}}),
    "no geometry": json.dumps(item("bad", {}) | {"geometry": None, "bbox": None}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=list(DAMAGED))
def test_a_damaged_item_is_skipped_with_the_reason_and_the_others_are_listed(tmp_path: Path, text: str) -> None:
    assets = {"B04": asset(f"{REMOTE}/B04.tif")}
    root = write_catalog(tmp_path, [item("bad", assets), item("good", assets)])
    next(tmp_path.rglob("bad.json")).write_text(text)

    found = listing(root, {"here": HERE})

    assert [scene.location for scene in found.scenes] == ["here"]
    assert len(found.skipped) == 1
    assert found.skipped[0][1]


def test_a_catalog_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"no STAC catalog at .*nowhere.*source\.root"):
        listing(tmp_path / "nowhere")


@pytest.mark.parametrize("url", ["https://user:secret@stac.example/v1", "https://stac.example/v1?token=secret"])
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ImageryError, match=r"like https://stac\.example/v1: credentials") as caught:
        find_scenes(SourceSettings(kind="stac", url=url, location="here"))

    assert "secret" not in str(caught.value)


def test_a_catalog_may_link_to_no_document_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(json.dumps(item("secret", {"B04": asset(f"{REMOTE}/B04.tif")})))
    root = one(tmp_path / "catalog", {"B04": asset(f"{REMOTE}/B04.tif")})
    catalog = json.loads(root.read_text())
    catalog["links"] += [{"rel": "item", "href": "../secret.json"}, {"rel": "item", "href": "file:///etc/hosts"}]
    root.write_text(json.dumps(catalog))

    found = listing(root)

    assert len(found.scenes) == 1
    assert [name for name, _ in found.skipped] == ["../secret.json", "file:///etc/hosts"]

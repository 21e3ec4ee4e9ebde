"""Files that are damaged, or not what they claim to be, are refused in words; never guessed at."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from imagery.errors import ImageryError, SceneMismatch, SceneUnreadable
from tests.rasters import NORTH, WEST, ground, open_scene, read_scene, scene_of, source_settings, write_raster

LAYOUTS = [
    {"compress": "deflate", "block": 16},
    {"compress": "zstd", "blockysize": 4},
    {"blockysize": 4},
    {"interleave": "pixel", "compress": "lzw", "blockysize": 4},
]


def cut(path: Path, share: float) -> Path:
    os.truncate(path, int(share * path.stat().st_size))
    return path


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, share: float, layout: dict) -> None:
    path = cut(write_raster(tmp_path / "cut.tif", ground(64, 64), nodata="declared", **layout), share)

    with pytest.raises(SceneUnreadable, match=r"cut\.tif"):
        read_scene(path)


def test_a_truncated_file_of_a_coarse_band_is_refused_and_not_taken_for_missing_data(tmp_path: Path) -> None:
    scene = scene_of(
        {
            "B02": write_raster(tmp_path / "B02.tif", ground(64, 64, ("B02",))),
            "B05": cut(
                write_raster(
                    tmp_path / "B05.tif",
                    ground(32, 32, ("B05",)),
                    described=False,  # else GDAL writes the directory anew, at the end, where it is cut off
                    resolution=20,
                    nodata="declared",
                    blockysize=2,
                ),
                0.6,
            ),
        }
    )

    with pytest.raises(SceneUnreadable, match=r"band B05 of .*B05\.tif"):
        read_scene(scene, source_settings(("B02", "B05")))


def test_a_cut_pyramid_or_header_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground())
    os.truncate(path, 6)

    with pytest.raises(SceneUnreadable, match=r"a\.tif"):
        read_scene(path)


@pytest.mark.parametrize("content", [b"", b"not a raster at all\n", b"II*\x00", b"\x89PNG\r\n\x1a\n", b"GRIB" * 100])
def test_a_file_that_is_no_tiff_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.tif"
    path.write_bytes(content)

    with pytest.raises(SceneUnreadable, match=r"text\.tif cannot be opened as GTiff"):
        read_scene(path)


def test_a_raster_of_another_kind_is_not_opened_whatever_it_is_called(tmp_path: Path) -> None:
    """A VRT could read any file or address that its author chose."""
    secret = write_raster(tmp_path / "secret.tif", ground())
    vrt = tmp_path / "scene.tif"
    vrt.write_text(
        '<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:32634</SRS>'
        f"<GeoTransform>{WEST}, 10, 0, {NORTH}, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><Description>B02</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{secret}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )

    with pytest.raises(SceneUnreadable, match=r"scene\.tif cannot be opened as GTiff"):
        read_scene(vrt, source_settings(("B02",)))


def test_a_tiff_that_is_called_jp2_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground()).rename(tmp_path / "a.jp2")

    with pytest.raises(SceneUnreadable, match=r"a\.jp2 cannot be opened as JP2OpenJPEG"):
        read_scene(path)


@pytest.mark.parametrize("suffix", [".jp2", ".JP2"])
def test_jpeg_2000_is_read(tmp_path: Path, suffix: str) -> None:
    numbers = ground(64, 64, ("B02",))
    path = write_raster(
        tmp_path / f"B02{suffix}", numbers, driver="JP2OpenJPEG", described=False, quality=100, reversible="YES"
    )

    pixels = read_scene(scene_of({"B02": path}), source_settings(("B02",)))

    np.testing.assert_array_equal(pixels.values[0], numbers["B02"])


def test_a_truncated_jpeg_2000_is_refused(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "B02.jp2",
        ground(64, 64, ("B02",)),
        driver="JP2OpenJPEG",
        described=False,
        quality=100,
        reversible="YES",
    )

    with pytest.raises(SceneUnreadable, match=r"B02\.jp2"):
        read_scene(scene_of({"B02": cut(path, 0.5)}), source_settings(("B02",)))


def test_a_file_that_vanished_is_refused_by_name(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground())
    path.unlink()

    with pytest.raises(SceneUnreadable, match=r"a\.tif"):
        read_scene(path)


def test_a_raster_without_a_crs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneMismatch, match="no coordinate reference system"):
        read_scene(write_raster(tmp_path / "a.tif", ground(), crs=None))


def test_a_local_crs_that_has_no_place_on_earth_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(), crs='LOCAL_CS["survey",UNIT["metre",1]]')

    with pytest.raises(ImageryError, match=r"a\.tif"), open_scene(path) as reader:
        reader.grid.footprints(reader.grid.tiles(16))

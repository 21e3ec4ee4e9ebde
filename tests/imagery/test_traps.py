"""A raster of the source folder leads nowhere else: not to another file, not to an address, by no detour of GDAL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioError

from imagery.errors import SceneUnreadable
from imagery.sources import Scene, SceneFile
from tests.rasters import DAY, ground, read_scene, source_settings, write_raster
from tests.traps import TRAPS, Elsewhere, elsewhere

B1 = source_settings(("B1",))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    with elsewhere(tmp_path_factory.mktemp("elsewhere")) as found:
        yield found


def scene(path: Path | str) -> Scene:
    return Scene("here", DAY, (SceneFile("B1", str(path)),))


def all_that_gdal_does(path: Path | str) -> None:
    """Opens a raster in whatever format, and reads its pixels, its mask and its pyramid."""
    with suppress(RasterioError), rasterio.open(path, sharing=False) as dataset:
        for read in (dataset.read, dataset.read_masks, lambda: dataset.read(out_shape=(1, 4, 4))):
            with suppress(RasterioError):
                read()


@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_leads_to_an_address(tmp_path: Path, target: Elsewhere, trap: str) -> None:
    path = TRAPS[trap](tmp_path, f"{target.url}/{tmp_path.name}")
    before = target.count

    with suppress(SceneUnreadable):
        read_scene(scene(path), B1)
    assert target.count == before

    all_that_gdal_does(path)
    assert target.count > before, "left to itself GDAL does not go there, so this shows nothing"


@pytest.mark.parametrize("trap", [name for name in TRAPS if "archive" not in name])
def test_a_raster_that_leads_elsewhere_is_refused_by_name(tmp_path: Path, target: Elsewhere, trap: str) -> None:
    path = TRAPS[trap](tmp_path, f"{target.url}/{tmp_path.name}")

    with pytest.raises(SceneUnreadable, match=f"{Path(path).name}.* (cannot be opened as|is no TIFF|in another file)"):
        read_scene(scene(path), B1)


def test_of_an_archive_nothing_is_read_but_the_raster_itself(tmp_path: Path, target: Elsewhere) -> None:
    path = TRAPS["a mask beside it in an archive"](tmp_path, target.url)

    pixels = read_scene(scene(path), B1)

    np.testing.assert_array_equal(pixels.values[0], ground(64, 64, ("B1",))["B1"])


@pytest.mark.parametrize("trap", ["a VRT called .tif", "a mask beside it", "a pyramid beside it"])
def test_a_file_outside_the_folder_is_not_reached_either(tmp_path: Path, trap: str) -> None:
    """A pipe in place of the file: whoever opens it to read would wait for ever."""
    (tmp_path / "outside").mkdir()
    os.mkfifo(tmp_path / "outside/pipe")
    path = TRAPS[trap](tmp_path / "scenes", "none")
    for file in (tmp_path / "scenes").iterdir():
        if file.read_bytes()[:1] == b"<":
            text = file.read_text()
            start, end = text.index("/vsicurl/"), text.index("</SourceFilename>")
            file.write_text(text[:start] + str(tmp_path / "outside/pipe") + text[end:])

    with pytest.raises(SceneUnreadable):
        read_scene(scene(path), B1)


def test_a_pipe_in_place_of_a_mask_holds_nobody_up(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(bands=("B1",)))
    os.mkfifo(tmp_path / "a.tif.msk")

    with pytest.raises(SceneUnreadable, match=r"a\.tif\.msk is no TIFF"):
        read_scene(path, B1)


@pytest.mark.parametrize("prefix", ["GTIFF_DIR:1:", "GTIFF_RAW:"])
def test_a_folder_with_the_name_of_a_prefix_of_gdal_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Relative to the root of the scenes, its path would be one that GDAL reads otherwise."""
    outside = write_raster(tmp_path / "outside.tif", ground(bands=("B1",), seed=1))
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path / "scenes")

    with rasterio.open(f"{prefix}{outside}", driver="GTiff") as dataset:
        assert dataset.count == 1, "GDAL takes the path for that of a file elsewhere"
    with pytest.raises(SceneUnreadable, match="cannot be opened"):
        read_scene(scene(f"{prefix}{outside}"), B1)
    inside = write_raster(tmp_path / "scenes" / f"{prefix}{outside}", ground(bands=("B1",), seed=2))
    assert inside.is_relative_to(tmp_path / "scenes")
    np.testing.assert_array_equal(
        read_scene(scene(f"{prefix}{outside}"), B1).values[0], ground(bands=("B1",), seed=2)["B1"]
    )


def test_a_mask_and_a_pyramid_beside_a_raster_that_are_tiffs_are_welcome(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", ground(64, 64, ("B1",)))
    hidden = np.zeros((64, 64), bool)
    hidden[:, :20] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(~hidden)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    assert {"a.tif.msk", "a.tif.ovr"} <= {file.name for file in tmp_path.iterdir()}

    pixels = read_scene(path, B1)

    np.testing.assert_array_equal(pixels.data, ~hidden)


def test_a_pyramid_and_a_mask_inside_are_welcome(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif",
        ground(512, 512, ("B1",)),
        driver="COG",
        nodata="declared",
        missing=np.eye(512, dtype=bool),
        blocksize=128,
    )

    assert read_scene(path, B1).data.sum() == 512 * 511

"""Clouds by a network: the same in whatever window they are read. What it finds in real scenes: tests/real."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt, gaussian_filter

from configs.schema import MaskSettings
from imagery import clouds
from imagery.errors import ImageryError
from imagery.masks import Cause
from tests.rasters import BANDS, ground, open_scene, read_scene, source_settings, whole, write_raster

FOREST = {"B02": 250, "B03": 450, "B04": 300, "B08": 3000}  # reflectance × 10 000, summer
CLOUD = 8000  # in all bands
SOURCE = source_settings(scale=1e-4)
MODEL = MaskSettings(cloud_model="ukis-csmask-l2a", dilate=50)


def rough(draw: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """(H, W) noise whose features measure so many pixels; mean 0 and standard deviation 1."""
    noise = gaussian_filter(draw.normal(size=shape), size, mode="wrap")
    return noise / noise.std()


def cloudy_forest(folder: Path, height: int, width: int, missing: np.ndarray | None = None) -> Path:
    draw, shape = np.random.default_rng(1), (height, width)
    share = 1 / (1 + np.exp(-4 * (rough(draw, shape, 20) - 0.6)))
    forest, cloud = 1 + 0.15 * rough(draw, shape, 0.5), 1 + 0.1 * rough(draw, shape, 4)
    numbers = {band: (1 - share) * FOREST[band] * forest + share * CLOUD * cloud for band in BANDS}
    return write_raster(folder / "a.tif", numbers, dtype="uint16", missing=missing, nodata="declared")


@pytest.mark.slow
def test_a_pixel_is_cloudy_or_not_in_whatever_window_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clouds, "BLOCK", 256)  # else a grid of several blocks would be large
    path = cloudy_forest(tmp_path, 300, 330)
    with open_scene(path, SOURCE, MODEL) as reader:
        everything = reader.read(whole(reader.grid)).causes

    assert {Cause.CLOUD, Cause.DILATED, Cause.VALID} <= set(np.unique(everything))
    for window in (
        Window(0, 0, 330, 64),
        Window(0, 192, 330, 108),
        Window(250, 250, 12, 12),
        Window(100, 20, 200, 270),
    ):
        with open_scene(path, SOURCE, MODEL) as reader:
            part = reader.read(window).causes
        rows, columns = window.toslices()
        np.testing.assert_array_equal(part, everything[rows, columns])


def test_what_is_bright_and_white_is_cloud_and_what_is_missing_is_not(tmp_path: Path) -> None:
    missing = np.zeros((256, 256), bool)
    missing[:, :70] = True
    path = cloudy_forest(tmp_path, 256, 256, missing)

    pixels = read_scene(path, SOURCE, MaskSettings(cloud_model="ukis-csmask-l2a"))

    bright, found = pixels.values[0] > 0.2, pixels.causes == Cause.CLOUD
    assert (pixels.causes[missing] == Cause.NODATA).all()
    assert bright.mean() > 0.1
    assert found[bright].mean() > 0.75
    assert found[~missing & ~bright].mean() < 0.1


def test_clouds_are_grown_from_where_they_are_seen_and_not_from_where_data_are_missing(tmp_path: Path) -> None:
    missing = np.arange(256) % 24 < 6  # in stripes, across which the network sees clouds that are not there
    path = cloudy_forest(tmp_path, 256, 256, missing * np.ones((256, 1), bool))
    model = MaskSettings(cloud_model="ukis-csmask-l2a")

    plain, grown = (read_scene(path, SOURCE, model.model_copy(update={"dilate": by})).causes for by in (0, 60))

    near = distance_transform_edt(~np.isin(plain, (Cause.CLOUD, Cause.SHADOW))) <= 6
    np.testing.assert_array_equal(grown, np.where((plain == Cause.VALID) & near, Cause.DILATED, plain))
    assert (grown == Cause.DILATED).any()


def test_a_scene_without_any_data_needs_no_network(tmp_path: Path) -> None:
    path = cloudy_forest(tmp_path, 40, 40, np.ones((40, 40), bool))

    assert (read_scene(path, SOURCE, MODEL).causes == Cause.NODATA).all()


def test_the_bands_that_the_network_needs_are_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", {"B02": np.ones((8, 8)), "B05": np.ones((8, 8))}, dtype="uint16")

    with pytest.raises(ImageryError, match=r"needs a green, a red, a nir band, source\.bands are B02, B05"):
        read_scene(path, source_settings(("B02", "B05")), MODEL)


def test_how_to_install_the_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ukis_csmask", None)  # as if it were not there

    with pytest.raises(ImageryError, match=r"pip install 'tilewatch\[clouds\]'"):
        read_scene(write_raster(tmp_path / "a.tif", ground(8, 8)), SOURCE, MODEL)

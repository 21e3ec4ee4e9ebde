"""Sentinel-2 products around real imagery, the whole way from the metadata to reflectance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from configs import Settings, Workspace
from configs.schema import Area, MaskSettings
from imagery.catalog import Catalog
from imagery.masks import Cause
from imagery.sources import find_scenes
from tests.products import write_safe, zipped
from tests.rasters import open_scene, read_scene, whole, write_raster
from tests.real.conftest import ingested

BANDS = ("B02", "B03", "B04", "B8A", "B11")
SCL = MaskSettings(class_band="SCL")


@pytest.fixture(scope="module")
def granule(shared: Callable[[str], Path]) -> dict[str, Path]:
    """The images of a level-2A granule of baseline 04.00, at 60 m."""
    folder = shared("s2_l2a_60m")
    return {f"{band}_60m": folder / f"T29UNU_20221005T115411_{band}_60m.jp2" for band in (*BANDS, "SCL")}


def settings_of(root: Path, **sections: Any) -> Settings:
    source = {"kind": "sentinel2", "root": root, "bands": BANDS} | sections.pop("source", {})
    return Settings.model_validate({"source": source, "masks": {"class_band": "SCL"}} | sections)


def stored(path: Path) -> NDArray[np.uint16]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def reflectance(numbers: NDArray[np.uint16], offset: int) -> NDArray[np.float32]:
    """(DN + offset) / 10 000, rounded once; NaN without data."""
    exact = ((numbers.astype(np.float64) + offset) / 10_000).astype(np.float32)
    return np.where(numbers == 0, np.float32("nan"), exact)


def check_exact(root: Path, images: Mapping[str, Path], offset: int) -> None:
    settings = settings_of(root)
    (scene,) = find_scenes(settings.source).scenes

    pixels = read_scene(scene, settings.source, SCL)

    for channel, band in enumerate(BANDS):
        np.testing.assert_array_equal(pixels.values[channel], reflectance(stored(images[f"{band}_60m"]), offset))


@pytest.mark.slow
def test_reflectance_of_level_2a_is_exactly_what_the_specification_says(
    granule: dict[str, Path], tmp_path: Path
) -> None:
    write_safe(tmp_path, granule)

    check_exact(tmp_path, granule, -1000)


@pytest.mark.slow
def test_a_zip_file_gives_the_same(granule: dict[str, Path], tmp_path: Path) -> None:
    zipped(write_safe(tmp_path, granule))

    check_exact(tmp_path, granule, -1000)


@pytest.mark.slow
def test_before_baseline_0400_nothing_is_subtracted(granule: dict[str, Path], tmp_path: Path) -> None:
    write_safe(tmp_path, granule, baseline="03.01", offset=None)

    check_exact(tmp_path, granule, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("baseline", "offset"), [("04.00", -1000), ("02.06", None)])
def test_level_1c_is_read_at_the_native_resolution_of_each_band(
    shared: Callable[[str], Path], tmp_path: Path, baseline: str, offset: float | None
) -> None:
    """Real level-1C numbers of a city, as the JPEG 2000 images of a product."""
    city = shared("oscd") / "paris" / "2016-11-30"
    bands, images, numbers = ("B02", "B05", "B01"), {}, {}
    for band, metres in zip(bands, (10, 20, 60), strict=True):
        side = 360 // metres * 10
        numbers[band] = stored(city / f"{band}.tif")[:side, :side]
        images[band] = write_raster(
            tmp_path / "images" / f"{band}.jp2", {band: numbers[band]}, driver="JP2OpenJPEG", resolution=metres,
            quality=100, reversible=True, described=False,
        )  # fmt: skip
    write_safe(tmp_path / "products", images, level="1C", baseline=baseline, offset=offset)
    settings = settings_of(tmp_path / "products")
    (scene,) = find_scenes(settings.source).scenes

    for band, metres in zip(bands, (10, 20, 60), strict=True):
        with open_scene(scene, settings.source.model_copy(update={"bands": (band,)})) as reader:
            pixels = reader.read(whole(reader.grid))
            assert reader.grid.resolution == metres
        np.testing.assert_array_equal(pixels.values[0], reflectance(numbers[band], int(offset or 0)))


@pytest.mark.slow
def test_a_location_of_its_own_gets_the_part_of_the_product_that_it_covers(
    granule: dict[str, Path], tmp_path: Path
) -> None:
    write_safe(tmp_path / "products", granule)
    with rasterio.open(granule["B02_60m"]) as dataset:
        left, top = dataset.transform @ (600, 900)
    bounds = (left, top - 128 * 60, left + 128 * 60, top)
    area = Area(crs="EPSG:32629", bounds=bounds, resolution=60)
    settings = settings_of(tmp_path / "products", locations={"coast": area})

    (record,), quarantined = ingested(settings, Workspace(tmp_path / "workspace"))

    assert quarantined == {}
    assert record.scene_id == "coast/2022-10-05T115411Z"
    assert Catalog(Workspace(tmp_path / "workspace")).grid("coast").bounds == bounds
    numbers = {band: stored(granule[f"{band}_60m"])[900:1028, 600:728] for band in (*BANDS, "SCL")}
    good = np.all([numbers[band] != 0 for band in BANDS], axis=0) & ~np.isin(numbers["SCL"], settings.masks.bad_classes)
    assert record.valid_fraction == pytest.approx(good.mean())
    expected = np.nanmean(reflectance(numbers["B04"], -1000)[good], dtype=np.float64)
    assert record.stats["B04"].mean == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_classes_and_nodata_are_told_apart(granule: dict[str, Path], tmp_path: Path) -> None:
    write_safe(tmp_path, granule)
    settings = settings_of(tmp_path)
    (scene,) = find_scenes(settings.source).scenes

    causes = read_scene(scene, settings.source, SCL).causes

    empty = np.any([stored(granule[f"{band}_60m"]) == 0 for band in BANDS], axis=0)
    np.testing.assert_array_equal(causes == Cause.NODATA, empty)
    classes = stored(granule["SCL_60m"])
    np.testing.assert_array_equal(causes == Cause.VALID, ~empty & ~np.isin(classes, SCL.bad_classes))

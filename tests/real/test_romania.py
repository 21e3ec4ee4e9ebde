"""Sentinel-2 over Romanian mountain forest, 2015–2021: 140 acquisitions with a scene classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from tasks.dataset import split_scenes
from tasks.ingest import open_scene, plan_ingest
from tests.rasters import whole
from tests.real.conftest import ingested, preset


@pytest.fixture(scope="module")
def watch(
    shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Workspace, list[SceneRecord], dict[str, str]]:
    settings = preset("romania", shared("romania_s2"))
    workspace = Workspace(tmp_path_factory.mktemp("romania"))
    return settings, workspace, *ingested(settings, workspace)


def raw(record: SceneRecord) -> tuple[np.ndarray, np.ndarray]:
    """Stored numbers of the four bands and of SCL, as rasterio reads them."""
    (file,) = record.files
    with rasterio.open(file.path) as dataset:
        assert dataset.descriptions == ("B02", "B03", "B04", "B08", "SCL")
        pixels = dataset.read()
    return pixels[:4], pixels[4]


def test_all_scenes_are_entered(watch) -> None:
    _, _, records, quarantined = watch

    without_data = [record for record in quarantined.values() if "no data" in record]
    assert len(records) + len(without_data) == 140
    assert len(quarantined) == len(without_data)
    assert len(records) >= 130
    assert (str(records[0].day), str(records[-1].day)) == ("2015-08-01", "2021-01-01")
    assert {record.location for record in records} == {"romania"}
    assert {record.tiles for record in records} == {25}


def test_what_is_masked_is_what_numpy_finds_in_the_files(watch) -> None:
    settings, _, records, _ = watch

    for record in records:
        bands, classes = raw(record)
        data = (bands != 0).all(axis=0)
        usable = data & (classes != 0) & ~np.isin(classes, settings.masks.bad_classes)
        cloud = data & np.isin(classes, (*settings.masks.cloud_classes, *settings.masks.shadow_classes))
        snow = data & np.isin(classes, settings.masks.snow_classes)
        assert record.data_fraction == pytest.approx(data.mean()), record.scene_id
        assert record.valid_fraction == pytest.approx(usable.mean()), record.scene_id
        assert record.cloud_fraction == pytest.approx(cloud.sum() / data.sum()), record.scene_id
        assert record.masked.get("snow", 0) == pytest.approx(snow.mean()), record.scene_id
        assert record.masked.get("nodata", 0) == pytest.approx(1 - data.mean()), record.scene_id
        assert record.valid_fraction + sum(record.masked.values()) == pytest.approx(1), record.scene_id


def test_half_of_the_archive_is_mostly_cloud_or_snow(watch) -> None:
    usable = np.array([record.valid_fraction for record in watch[2]])

    assert 0.3 < (usable > 0.5).mean() < 0.8
    assert (usable == 0).any()
    assert (usable > 0.95).any()


def test_statistics_are_those_of_the_usable_pixels_in_reflectance(watch) -> None:
    settings, _, records, _ = watch

    for record in [one for one in records if one.valid_fraction > 0.2][::10]:
        bands, classes = raw(record)
        usable = (bands != 0).all(axis=0) & ~np.isin(classes, settings.masks.bad_classes)
        for values, band in zip(bands, settings.source.bands, strict=True):
            good = values[usable] * 1e-4
            stats = record.stats[band]
            assert stats.count == good.size
            assert stats.mean == pytest.approx(good.mean(), rel=1e-5)
            assert stats.std == pytest.approx(good.std(), rel=1e-4)
            assert stats.percentile(50) == pytest.approx(np.percentile(good, 50), rel=0.006)
            assert 0 < stats.mean < 1


def test_clear_summer_forest_is_dark_in_red_and_bright_in_near_infrared(watch) -> None:
    summer = [one for one in watch[2] if one.day.month in (6, 7, 8) and one.valid_fraction > 0.9]

    assert len(summer) >= 5
    for record in summer:
        assert record.stats["B04"].mean < 0.08 < 0.15 < record.stats["B08"].mean


def test_footprints_lie_in_the_carpathians(watch) -> None:
    _, workspace, records, _ = watch
    tiles = Catalog(workspace).tiles(records[0])

    west, south, east, north = tiles.total_bounds
    assert 20 < west < east < 30
    assert 43 < south < north < 49
    assert east - west < 0.03


def test_the_preset_holds_out_the_first_half_of_2019(watch) -> None:
    settings, _, records, _ = watch

    split = split_scenes(settings, records)

    assert split.basis == "held_out"
    assert {record.day.year for record in (*split.train, *split.validation)} == {2016, 2017, 2018}
    assert {(record.day.year, record.day.month <= 6) for record in split.calibrate} == {(2019, True)}


def test_running_again_does_nothing(watch) -> None:
    settings, workspace, records, _ = watch

    plan = plan_ingest(settings, workspace)

    assert plan.scenes == ()
    assert plan.unchanged == len(records)


def test_pixels_are_the_same_when_a_scene_is_opened_again(watch) -> None:
    settings, workspace, records, _ = watch
    record = next(one for one in records if one.valid_fraction > 0.9)
    bands, _ = raw(record)

    with open_scene(record.scene, settings, workspace) as reader:
        pixels = reader.read(whole(reader.grid))

    np.testing.assert_allclose(pixels.values[:, pixels.valid], bands[:, pixels.valid] * 1e-4, atol=1e-7)

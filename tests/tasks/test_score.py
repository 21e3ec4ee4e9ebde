"""A scored scene leaves files that fit together, with overlapping tiles as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio

from configs import Settings, Workspace
from configs.schema import CalibrationSettings
from imagery.catalog import Catalog, SceneRecord
from imagery.outputs.blending import blend_window
from tasks.dataset import gathered
from tasks.ingest import ingest_scene, open_scene, plan_ingest, reading_key, settle_grids
from tasks.score import observe, score_files, score_scene
from tasks.validate import validate_scenes
from tests.rasters import BANDS, ground, watch_settings, write_raster
from vae.detector import Detector
from vae.model import build
from vae.normalisation import Normalisation

STRIDES = [None, 16, 12, 4]


def scored_watch(folder: Path, stride: int | None) -> tuple[SceneRecord, Detector, Settings, Workspace]:
    """A scene of 40 x 52 pixels with a masked corner, and an untrained detector that is calibrated."""
    missing = np.zeros((40, 52), bool)
    missing[:20, :14] = True
    write_raster(folder / "scenes/here/2020-06-01.tif", ground(40, 52), missing=missing, nodata="declared")
    settings = watch_settings(folder / "scenes", grid={"tile_size": 16, "stride": stride})
    workspace = Workspace(folder / "workspace")
    (scene,) = plan_ingest(settings, workspace).scenes
    settle_grids([scene], settings, workspace)
    assert ingest_scene(scene, settings, workspace).reason is None
    (record,) = Catalog(workspace).scenes()
    network = build(len(BANDS), settings.model, 0)
    network.sigma.fill_(0.3)
    limits = dict.fromkeys(BANDS, (0.03, 0.4))
    detector = Detector(network, Normalisation.from_limits(limits, log=True, clip=3.0), settings.score, 16, 0)
    detector = replace(detector, metadata={"reading_key": reading_key(settings)})
    usual = np.random.default_rng(0).normal(5, 0.2, 200)
    calibrated = detector.with_calibration(
        usual, ["2020-05-01"], CalibrationSettings(false_alarm_rate=0.05), "held_out"
    )
    return record, calibrated, settings, workspace


@pytest.mark.parametrize("stride", STRIDES)
def test_the_files_of_a_scene_fit_together(tmp_path: Path, stride: int | None) -> None:
    record, detector, settings, workspace = scored_watch(tmp_path, stride)

    files = score_scene(record, detector, "v1", settings, workspace)

    assert files.complete
    scores, tiles = gpd.read_parquet(files.scores), Catalog(workspace).tiles(record)
    columns = ["tile_id", "row_off", "col_off", "height", "width", "geometry"]
    assert scores[columns].equals(tiles[columns])
    np.testing.assert_allclose(scores["valid_fraction"], tiles["valid_fraction"])
    item = pystac.Item.from_file(files.item)
    assert item.properties["tilewatch:tiles"] == len(tiles) == record.tiles
    assert item.properties["tilewatch:flags"] == scores["flagged"].sum()
    assert item.properties["tilewatch:valid_fraction"] == pytest.approx(record.valid_fraction, abs=1e-6)
    for asset in item.assets.values():
        assert Path(asset.get_absolute_href()).is_file()
    assert files.style.with_suffix(".tif") == files.heatmap
    assert f"{detector.required_calibration.threshold!r}" in files.style.read_text()


@pytest.mark.parametrize("stride", STRIDES)
def test_the_heatmap_is_what_its_tiles_say_weighed_by_how_far_inside_a_pixel_lies(
    tmp_path: Path, stride: int | None
) -> None:
    record, detector, settings, workspace = scored_watch(tmp_path, stride)
    window = np.ones((16, 16)) if stride in (None, 16) else blend_window(16)
    sums, weights = np.zeros((2, 40, 52))
    with open_scene(record.scene, settings, workspace) as reader:
        for batch, scores in observe(detector, reader, stride, calibrated=True):
            for tile, values in zip(batch.tiles, scores.heatmap.astype(float), strict=True):
                part = np.s_[: tile.height, : tile.width]
                place = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
                known = np.isfinite(values[part])
                sums[place] += np.where(known, values[part], 0) * window[part]
                weights[place] += known * window[part]

    files = score_scene(record, detector, "v1", settings, workspace)

    with rasterio.open(files.heatmap) as dataset:
        heat = dataset.read(1)
    np.testing.assert_array_equal(np.isfinite(heat), weights > 0)
    np.testing.assert_allclose(heat[weights > 0], (sums / np.maximum(weights, 1e-300))[weights > 0], rtol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_overlapping_tiles_pass_the_checks_and_can_be_learned_from(tmp_path: Path, stride: int | None) -> None:
    record, _, settings, workspace = scored_watch(tmp_path, stride)

    validation = validate_scenes([record], settings, workspace)

    assert validation.critical(record.scene_id) == []
    tiles = Catalog(workspace).tiles(record)
    with gathered((record,), settings, workspace, None) as arrays:
        assert len(arrays) == (tiles["valid_fraction"] >= settings.train.min_valid).sum()
    assert {record.stride} == {stride or 16}


@pytest.mark.parametrize("lost", ["scores", "heatmap", "latents", "style", "item", "profile"])
def test_a_scene_that_lost_a_file_is_scored_again_to_the_same_bytes(tmp_path: Path, lost: str) -> None:
    record, detector, settings, workspace = scored_watch(tmp_path, 12)
    files = score_scene(record, detector, "v1", settings, workspace)
    path = getattr(files, lost)
    before = path.read_bytes()
    path.unlink()
    assert not score_files(workspace, "v1", record).complete

    score_scene(record, detector, "v1", settings, workspace)

    assert path.read_bytes() == before

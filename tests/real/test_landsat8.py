"""A full Landsat 8 scene: a rotated footprint in a wide border of zeros that the file does not declare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from configs import Workspace
from imagery.catalog import Catalog
from tests.real.conftest import ingested, preset


def test_no_tile_of_the_border_has_a_usable_pixel(shared: Callable[[str], Path], tmp_path: Path) -> None:
    folder, workspace = shared("landsat8"), Workspace(tmp_path)
    settings = preset("landsat8", folder)

    (record,), quarantined = ingested(settings, workspace)

    assert quarantined == {}
    assert record.scene_id == "224078/2020-05-18"
    (path,) = folder.glob("*.TIF")
    with rasterio.open(path) as dataset:
        assert dataset.nodata is None
        raw = dataset.read()
    usable = (raw != 0).all(axis=0)
    assert record.valid_fraction == pytest.approx(usable.mean())
    assert 0.3 < record.valid_fraction < 0.9

    tiles = Catalog(workspace).tiles(record)
    assert len(tiles) == -(-2041 // 64) * -(-1860 // 64)
    in_border = 0
    for tile in tiles.itertuples():
        window = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
        assert tile.valid_fraction == pytest.approx(usable[window].mean())
        if not usable[window].any():
            in_border += 1
            assert tile.valid_fraction == 0
            assert np.isnan([tile.blue_mean, tile.green_std, tile.red_p02]).all()
    assert in_border > 100
    described = tiles[tiles["valid_fraction"] > 0.99]
    assert described[["blue_mean", "green_mean", "red_mean"]].to_numpy().min() > 0, "reflectance"
    assert described[["blue_p98", "green_p98", "red_p98"]].to_numpy().max() < 1.5

"""A Sentinel-2 L2A granule at 60 m as JPEG 2000: processing baseline 04.00, 40 % nodata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from configs import Settings, Workspace
from imagery.catalog import Catalog
from tasks.ingest import open_scene
from tests.rasters import whole
from tests.real.conftest import ingested

BANDS = ("B02", "B03", "B04", "B8A", "B11")


@pytest.mark.slow
def test_the_granule_is_read_with_its_classes_and_its_offset(shared: Callable[[str], Path], tmp_path: Path) -> None:
    folder, workspace = shared("s2_l2a_60m"), Workspace(tmp_path)
    settings = Settings.model_validate(
        {
            "source": {
                "root": folder,
                "pattern": "{location}_{date:%Y%m%dT%H%M%S}_{band}_60m.jp2",
                "bands": BANDS,
                "offset": -0.1,
            },
            "masks": {"class_band": "SCL", "nodata": 0},
        }
    )

    (record,), quarantined = ingested(settings, workspace)

    assert quarantined == {}
    assert record.location == "T29UNU"
    raw = {}
    for band, path in ((file.band, file.path) for file in record.files):
        with rasterio.open(path) as dataset:
            assert dataset.driver == "JP2OpenJPEG"
            raw[band] = dataset.read(1)
    data = np.all([raw[band] != 0 for band in BANDS], axis=0)
    usable = data & (raw["SCL"] != 0) & ~np.isin(raw["SCL"], settings.masks.bad_classes)
    assert record.data_fraction == pytest.approx(data.mean())
    assert record.valid_fraction == pytest.approx(usable.mean())
    assert 0.5 < record.data_fraction < 0.65
    for band in BANDS:
        good = raw[band][usable] * 1e-4 - 0.1
        assert record.stats[band].mean == pytest.approx(good.mean(), rel=1e-4)
    assert len(Catalog(workspace).tiles(record)) == 29 * 29

    with open_scene(record.scene, settings, workspace) as reader:
        assert (reader.grid.crs, reader.grid.resolution) == ("EPSG:32629", 60)
        pixels = reader.read(whole(reader.grid))
    np.testing.assert_array_equal(pixels.valid, usable)

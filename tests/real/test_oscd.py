"""Ten cities on two dates each: thirteen bands at 10, 20 and 60 m, one file a band."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from configs import Workspace
from imagery.catalog import Catalog
from tasks.dataset import split_scenes
from tasks.ingest import open_scene
from tests.rasters import whole
from tests.real.conftest import ingested, preset


@pytest.mark.slow
def test_both_dates_of_all_cities_come_on_the_grid_of_their_10_m_bands(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path)
    settings = preset("oscd", shared("oscd"))

    records, quarantined = ingested(settings, workspace)

    assert quarantined == {}
    assert len(records) == 20
    catalog = Catalog(workspace)
    for record in records:
        grid = catalog.grid(record.location)
        first = min(one.acquired for one in records if one.location == record.location)
        if record.acquired == first:
            with rasterio.open(next(file.path for file in record.files if file.band == "B02")) as blue:
                assert grid is not None
                assert (grid.width, grid.height) == (blue.width, blue.height)
                assert grid.transform == tuple(blue.transform)[:6]
        assert set(record.stats) == set(settings.source.bands)
        assert record.valid_fraction > 0.9
        assert catalog.tiles(record)["tile_id"].is_unique

    split = split_scenes(settings, records)
    learned = {(one.location, one.acquired) for one in split.scenes}
    firsts = {
        (place, min(one.acquired for one in records if one.location == place))
        for place in {one.location for one in records}
    }
    assert learned == firsts


def test_a_city_is_read_with_its_coarse_bands_beside_the_fine_ones(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, workspace = shared("oscd"), Workspace(tmp_path)
    settings = preset("oscd", folder, "source.pattern='pisa/{date:%Y-%m-%d}/{band}.tif'", "source.location=pisa")
    records, quarantined = ingested(settings, workspace)
    assert quarantined == {}
    assert len(records) == 2

    with open_scene(records[0].scene, settings, workspace) as reader:
        pixels = reader.read(whole(reader.grid))

    files = {file.band: Path(file.path) for file in records[0].files}
    assert pixels.values.shape[0] == 13
    for values, band in zip(pixels.values, settings.source.bands, strict=True):
        with rasterio.open(files[band]) as dataset:
            stored = dataset.read(1) * 1e-4
        if stored.shape == values.shape:  # 10 m: nothing is interpolated
            np.testing.assert_allclose(values[pixels.valid], stored[pixels.valid], atol=1e-6)
        else:
            assert values[pixels.valid].mean() == pytest.approx(stored.mean(), rel=0.02), band
            assert stored.min() - 1e-6 <= values[pixels.valid].min()
            assert values[pixels.valid].max() <= stored.max() + 1e-6

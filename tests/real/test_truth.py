"""Change maps of real cities as the truth of scored tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from configs import Workspace
from imagery.grid import grid_of
from tasks.evaluate import read_scores
from tasks.truth import Shares, load_truth
from tests.rasters import watch_settings
from tests.scored import write_scored

WINDOW = ["row_off", "col_off", "height", "width"]


@pytest.mark.parametrize("city", ["pisa", "hongkong"])
def test_the_share_of_a_tile_is_that_of_the_change_map(
    shared: Callable[[str], Path], tmp_path: Path, city: str
) -> None:
    folder, workspace = shared("oscd"), Workspace(tmp_path / "workspace")
    first = min((folder / city).glob("*/B02.tif"))
    with rasterio.open(first) as blue, rasterio.open(folder / city / "change.tif") as dataset:
        grid = grid_of(blue.crs, blue.transform, blue.width, blue.height, None, city)
        change = dataset.read(1) > 0
    scene = write_scored(workspace, set(), grid=grid, location=city, stride=16, score=1.0)
    pattern = str(folder / "{location}/change.tif")
    truth = load_truth(pattern, "auto", [scene], watch_settings(tmp_path), workspace, False)

    table = read_scores(scene, "score", WINDOW)
    found = truth.of(scene, table, Shares())
    assert found is not None
    windows = table[WINDOW].to_numpy()
    shares = [change[row : row + height, column : column + width].mean() for row, column, height, width in windows]
    np.testing.assert_allclose(found.share, shares)
    assert (found.positive == 1).sum() == (np.array(shares) > 0.1).sum() > 0
    assert found.regions is not None
    assert found.regions.region_pixels == change.sum()

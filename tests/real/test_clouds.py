"""Clouds that a network finds in real scenes, beside those of the scene classification that came with them.

Neither is the truth: of the granule, both say the same of 94 % of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import MaskSettings, SourceSettings
from imagery.masks import EMPTY, Cause
from imagery.sources import Scene, find_scenes
from tests.rasters import read_scene

pytestmark = pytest.mark.slow


def both(scene: Scene, source: SourceSettings, **masks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where there is cloud by the network, and by the classification, of the pixels with data."""
    network = read_scene(scene, source, MaskSettings(cloud_model="ukis-csmask-l2a", **masks)).causes
    classes = read_scene(scene, source, MaskSettings(class_band="SCL", **masks)).causes
    data = ~np.isin(classes, EMPTY)
    return network[data] == Cause.CLOUD, classes[data] == Cause.CLOUD


def test_the_network_finds_the_clouds_of_a_whole_granule(shared: Callable[[str], Path]) -> None:
    source = SourceSettings(
        root=shared("s2_l2a_60m"),
        pattern="{location}_{date:%Y%m%dT%H%M%S}_{band}_60m.jp2",
        bands=("B02", "B03", "B04", "B8A"),
        offset=-0.1,
    )
    (scene,) = find_scenes(source).scenes

    network, classes = both(scene, source, nodata=0)

    assert 0.55 < classes.mean() < 0.65
    assert (network == classes).mean() > 0.92
    assert network[classes].mean() > 0.92
    assert classes[network].mean() > 0.92


def test_the_network_tells_cloudy_dates_from_clear_ones_over_snow_and_forest(shared: Callable[[str], Path]) -> None:
    source = SourceSettings(
        root=shared("romania_s2"), pattern="{date:%Y-%m-%d}.tif", location="romania", bands=("B02", "B03", "B04", "B08")
    )
    found = [both(scene, source) for scene in find_scenes(source).scenes[::6]]

    network, classes = (np.concatenate(part) for part in zip(*found, strict=True))
    assert (network == classes).mean() > 0.85
    clear = [pair[0].mean() for pair in found if pair[1].size and pair[1].mean() < 0.02]
    cloudy = [pair[0].mean() for pair in found if pair[1].size and pair[1].mean() > 0.5]
    assert len(clear) > 5
    assert len(cloudy) > 3
    assert np.median(clear) < 0.01
    assert np.median(cloudy) > 0.5

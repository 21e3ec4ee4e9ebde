"""OSCD (Caye Daudt et al. 2018): ten cities on two Sentinel-2 dates years apart, with the urban change marked."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks.problems.common import CHANGED, Pair, changed_share, place_tiles
from configs import load_settings
from configs.schema import Settings
from imagery.reading import SceneReader
from imagery.sources import find_scenes
from imagery.sources.scene import Scene

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TILEWATCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
QUICK = ("bordeaux", "pisa", "rennes")
CONDITION = "oscd"


def cities(names: tuple[str, ...] | None = None) -> list[Pair]:
    """The pairs, read by the project's own reader on the 10 m grid of the first date, and cropped to both.

    Args:
        names: Some of the cities; all when None.

    Raises:
        SystemExit: The imagery is not there.
    """
    folder = SHARED / "oscd"
    if not folder.is_dir():
        raise SystemExit(f"no imagery in {folder}: set TILEWATCH_SHARED_DATA")
    overrides = [f"source.root={folder}", f"source.bands=[{','.join(TEN)}]"]
    settings = load_settings(ROOT / "configs" / "oscd.yaml", overrides, environment={})
    scenes = sorted(find_scenes(settings.source).scenes, key=lambda scene: (scene.location, scene.acquired))
    pairs = []
    for city, dates in groupby(scenes, key=lambda scene: scene.location):
        if names is None or city in names:
            first, second = dates
            pairs.append(_pair(city, first, second, settings, folder / city / "change.tif"))
    return pairs


def _pair(city: str, first: Scene, second: Scene, settings: Settings, truth: Path) -> Pair:
    parts = settings.source, settings.masks, settings.grid
    with SceneReader(first, *parts) as reader:
        grid = reader.grid
        window = Window(0, 0, grid.width, grid.height)
        before = reader.read(window)
    with SceneReader(second, *parts, grid) as reader:
        after = reader.read(window)
    with rasterio.open(truth) as dataset:
        changed = dataset.read(1) == 1
    rows, cols = (np.flatnonzero((before.valid & after.valid).any(axis=axis)) for axis in (1, 0))
    common = np.s_[..., rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    valid = (before.valid & after.valid)[common]
    tiles = place_tiles(valid)
    positive = (changed_share(changed[common], valid, tiles) > CHANGED).astype(float)
    images = (np.ascontiguousarray(one.values[common]) for one in (before, after))
    return Pair(city, *images, valid, TEN, changed[common], tiles, positive, CONDITION)

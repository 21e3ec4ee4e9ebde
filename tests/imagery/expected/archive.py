"""Earlier scenes of a place, made of one land in changing light: what tonight is to be expected from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from configs.schema import AlignmentSettings, MaskSettings
from imagery.expected import Expectation, Transform, expect
from imagery.reading import SceneReader
from imagery.records import SceneRecord
from imagery.sources import SceneFile
from tests.catalogs import scene_record
from tests.rasters import DAY, open_scene, source_settings, write_raster

BANDS = ("B02", "B08")
SOURCE = source_settings(BANDS, scale=1e-4)
MASKS = MaskSettings(class_band="SCL")
LOG = Transform(log=True, offset=0.1)
NOISE = 0.002  # reflectance


@lru_cache
def land(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(C, H, W) reflectance of fields with texture."""
    draw = np.random.default_rng(seed)
    texture = gaussian_filter(draw.standard_normal((height, width)), 1.5)
    fields = [gaussian_filter(draw.standard_normal((height, width)), 4) > 0 for _ in BANDS]
    return np.stack([0.15 + 0.1 * field + 0.1 * texture for field in fields]).clip(0.02)


def write_scene(
    folder: Path,
    age: int,
    shape: tuple[int, int] = (60, 70),
    *,
    seed: int = 0,
    event: np.ndarray | None = None,
    clouds: bool = False,
    block: int | None = None,
) -> SceneRecord:
    """A scene some days before `DAY` (0: tonight), in a light of its own.

    Args:
        folder: Where the file is written.
        age: Days.
        shape: Height and width.
        seed: Of the land.
        event: (H, W) where the ground was turned.
        clouds: Whether a tenth of the pixels, in blots, is cloud.
        block: Side of the file's blocks.
    """
    draw = np.random.default_rng(age)
    values = land(*shape, seed) * draw.uniform(0.8, 1.2, (2, 1, 1)) + draw.uniform(0, 0.03)
    if event is not None:
        values = np.where(event, np.array([0.3, 0.1])[:, None, None], values)
    values = values + NOISE * draw.standard_normal(values.shape)
    classes = np.full(shape, 4)
    if clouds:
        blots = gaussian_filter(draw.standard_normal(shape), 3)
        classes[blots > np.quantile(blots, 0.9)] = 9
    path = folder / f"{age}.tif"
    numbers = np.round(1e4 * values).clip(1).astype(np.uint16)
    write_raster(path, dict(zip(BANDS, numbers, strict=True)), classes=classes, block=block)
    acquired = DAY - timedelta(days=age)
    return scene_record(acquired=acquired, files=(SceneFile("", str(path)),), fingerprint=f"content of {age}")


def opened(record: SceneRecord) -> SceneReader:
    return open_scene(record.scene, SOURCE, MASKS)


def expected_of(scene: SceneRecord, members: Sequence[SceneRecord], **settings: float) -> Expectation:
    chosen = AlignmentSettings(**settings)
    with opened(scene) as reader:
        return expect(reader, members, opened, BANDS, LOG, chosen)

"""A place in changing light, and a watch over it that needs no network: trained and calibrated in a second or two."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from tasks.calibrate import calibrate_detector
from tasks.dataset import Split
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tasks.train import train_detector
from tests.rasters import BANDS, watch_settings, write_raster
from vae.detector import Detector

SIDE, MARGIN = 100, 8
FIRST = date(2020, 6, 1)
TURNED = (2600, 2800, 3000, 1200)  # stored numbers of ground that was turned
TRAIN, CALIBRATE = 9, 6  # scenes
TILES = 49


@lru_cache
def land() -> NDArray[np.float64]:
    """(4, H, W) stored numbers of fields with texture, with a margin around what scenes show."""
    draw = np.random.default_rng(0)
    size = SIDE + 2 * MARGIN
    fields = [gaussian_filter(draw.standard_normal((size, size)), 4) > 0 for _ in BANDS]
    texture = gaussian_filter(draw.standard_normal((size, size)), 1.2)
    return np.stack([1500 + 800 * field + 900 * texture for field in fields])


def write_scene(
    root: Path,
    day: date,
    rows: int = 0,
    cols: int = 0,
    gain: float = 1.0,
    offset: float = 0.0,
    clouded: int = 0,
    event: NDArray[np.bool_] | None = None,
    noise: float = 10,
    flipped: bool = False,
) -> Path:
    """Write a scene of 100 x 100 pixels.

    Args:
        root: Folder of the scenes.
        day: Its date.
        rows, cols: Its content must be moved down by `rows` and right by `cols`.
        gain, offset: Its light.
        clouded: So many of its first rows are cloud.
        event: (H, W) where the ground was turned.
        noise: Of each pixel, stored numbers.
        flipped: Whether it shows the land upside down: nothing that was ever seen there.
    """
    window = np.s_[:, MARGIN + rows : MARGIN + rows + SIDE, MARGIN + cols : MARGIN + cols + SIDE]
    seen = land()[window][:, ::-1] if flipped else land()[window]
    if event is not None:
        seen = np.where(event, np.array(TURNED)[:, None, None], seen)
    spread = noise * np.random.default_rng(day.toordinal()).standard_normal((4, SIDE, SIDE))
    numbers = (gain * seen + offset + spread).clip(1, 60_000).astype(np.uint16)
    classes = np.full((SIDE, SIDE), 4)
    classes[:clouded] = 9
    return write_raster(root / f"here/{day}.tif", dict(zip(BANDS, numbers, strict=True)), classes=classes)


def ingested(settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """Every scene of the source, in the catalog."""
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    return Catalog(workspace).scenes()


def day(number: int) -> date:
    """The date of a scene; those that train come first, then those that calibrate, then the nights."""
    return FIRST + timedelta(days=5 * number)


NIGHT = day(TRAIN + CALIBRATE)


@dataclass(frozen=True)
class Watched:
    """A place, its scenes in the catalog, and a detector that was made from them."""

    records: list[SceneRecord]
    split: Split
    detector: Detector
    settings: Settings
    workspace: Workspace

    def copied(self, folder: Path) -> Watched:
        """The same in a folder of its own, to be changed."""
        root = shutil.copytree(self.settings.source.root, folder / "scenes")
        shutil.copytree(self.workspace.root, folder / "workspace")
        source = self.settings.source.model_copy(update={"root": root})
        settings = self.settings.model_copy(update={"source": source})
        return replace(self, settings=settings, workspace=Workspace(folder / "workspace"))

    def on_night(self, number: int = 0, **scene: object) -> SceneRecord:
        """Write a scene of the nights that follow, and enter it in the catalog."""
        when = day(TRAIN + CALIBRATE + number)
        write_scene(Path(self.settings.source.root), when, **scene)
        return next(one for one in ingested(self.settings, self.workspace) if one.day == when)


def place_settings(root: Path, **sections: dict[str, object]) -> Settings:
    """Settings of a watch over the place: differences to what was expected, or odd spectra, and no network."""
    values: dict[str, dict[str, object]] = {
        "masks": {"class_band": "SCL"},
        "reference": {"scenes": 4, "seasonal": 0},
        "model": {"members": 0},
        "score": {"name": "aligned_difference", "without_past": "rx", "also": ()},
        "split": {
            "train": {"end": day(TRAIN - 1)},
            "calibrate": {"start": day(TRAIN), "end": day(TRAIN + CALIBRATE - 1)},
        },
        "calibration": {"false_alarm_rate": 0.02, "min_tiles": 50},
        "injections": {"tiles": 25, "kinds": ("flood", "bare_soil", "haze")},
    }
    for section, entries in sections.items():
        values[section] = values.get(section, {}) | entries
    return watch_settings(root, **values)


def watched(folder: Path) -> Watched:
    """Fifteen scenes in changing light, and the detector that was trained on nine and calibrated on six of them."""
    for number in range(TRAIN + CALIBRATE):
        light = np.random.default_rng(number)
        write_scene(folder / "scenes", day(number), gain=light.uniform(0.8, 1.2), offset=light.uniform(0, 200))
    settings, workspace = place_settings(folder / "scenes"), Workspace(folder / "workspace")
    records = ingested(settings, workspace)
    trained = train_detector(settings, workspace)
    made = calibrate_detector(trained.detector, trained.split, settings, workspace)
    return Watched(records, trained.split, made.detector, settings, workspace)

"""The one way scenes meet a detector: registered, beside what their past lets expect, tile by tile."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.expected import PastReader
from imagery.grid import Grid
from imagery.reading import SceneReader
from imagery.registration import sample_windows
from imagery.robust import evenly
from imagery.tiles import TileBatch, read_tiles
from tasks.conditions import conditions_of
from tasks.ingest import open_scene
from tasks.reference import Usual
from vae.conditions import Conditions
from vae.detector import BATCH, Detector
from vae.scores import SceneStats
from vae.tile_scores import TileScores

MOST_PIXELS = 50_000  # that a scene's statistics are made of


@dataclass(frozen=True)
class OpenScene:
    """A scene, open for scoring.

    Attributes:
        record: What the catalog knows of it.
        reader: Its pixels, registered.
        past: What its past lets expect; None when it is looked at alone.
        stats: Of its pixels.
    """

    record: SceneRecord
    reader: SceneReader
    past: PastReader | None
    stats: SceneStats | None

    @property
    def grid(self) -> Grid:
        """The grid it is read on."""
        return self.reader.grid


@contextmanager
def opened(
    record: SceneRecord, detector: Detector, usual: Usual | None, settings: Settings, workspace: Workspace
) -> Iterator[OpenScene]:
    """Open a scene for scoring.

    Args:
        record: The scene, from the catalog.
        detector: The detector that will look at it.
        usual: What it is compared with; None to look at it alone.
        settings: How it is read.
        workspace: Where it is catalogued.

    Raises:
        ImageryError: The scene can no longer be read.
    """
    shift = usual.alignment.registration.correction if usual else (0.0, 0.0)
    with open_scene(record.scene, settings, workspace, shift) as reader:
        stats = detector.scene_stats(_some_pixels(reader))
        if usual is None or not detector.looks_back:
            yield OpenScene(record, reader, None, stats)
            return
        with usual.open_past(settings, workspace) as past:
            yield OpenScene(record, reader, past, stats)


def observe(
    detector: Detector, scene: OpenScene, stride: int | None, only: Collection[tuple[int, int]] | None = None
) -> Iterator[tuple[TileBatch, TileScores]]:
    """Every tile of a scene with what the detector says of it, some rows of tiles at a time.

    Args:
        detector: The detector.
        scene: From `opened`.
        stride: From one tile to the next, pixels.
        only: (row_off, col_off) of the tiles wanted; None for all.
    """
    wanted = None if only is None else set(only)
    for batch in read_tiles(scene.reader, detector.tile_size, stride, wanted, at_least=BATCH, past=scene.past):
        told = conditions_for(detector, scene, batch)
        yield (
            batch,
            detector.score(
                batch.values, batch.valid, past=batch.past, scene=scene.stats, area=batch.area, conditions=told
            ),
        )


def conditions_for(detector: Detector, scene: OpenScene, batch: TileBatch) -> Conditions | None:
    """What the networks of a detector are told of some tiles of a scene; None when they are told nothing."""
    condition = detector.model.condition if detector.networks else ()
    return conditions_of(scene.record, scene.grid, batch, condition, detector.places, detector.sensors)


def _some_pixels(reader: SceneReader) -> NDArray[np.float32]:
    """(N, C) valid pixels, spread over the scene."""
    windows = sample_windows(reader.grid)
    most = max(MOST_PIXELS // len(windows), 1)
    found = []
    for window in windows:
        pixels = reader.read(window)
        values = pixels.values.reshape(len(pixels.values), -1)
        usable = np.flatnonzero(pixels.valid.reshape(-1) & np.isfinite(values).all(axis=0))
        found.append(values[:, usable[evenly(len(usable), most)]].T)
    return np.concatenate(found)

"""The smoke alarm of a new detector: anomalies put into the scenes that it was calibrated on, never into its training.

Tonight's level is that of the untouched scene, and what is put into a tile is put into its witness as well: an event
that lasts is there on the next clear date, and one that does not is not what a confirmed score is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.expected import Past
from imagery.robust import evenly
from imagery.tiles import read_tiles
from tasks.injected import HeldOut, Judged, SmokeAlarm, smoke_alarm
from tasks.observe import conditions_for, observe, opened
from tasks.reference import usual_of
from vae.conditions import Conditions
from vae.detector import BATCH, Detector
from vae.judgement import SceneJudgement
from vae.scores import SceneStats

MOST_SCENES = 12  # that tiles are taken from


@dataclass(frozen=True, eq=False)
class _Scene:
    """A scene as it is: its statistics, and how it was judged."""

    stats: SceneStats | None
    judged: SceneJudgement


@dataclass(frozen=True, eq=False)
class _Context:
    """Where a tile comes from: its scene, its row in it, the pixels of its window, its unchanged values, its past.

    And what the networks are told of it.
    """

    scene: _Scene
    index: int
    area: int
    values: NDArray[np.float32]
    past: Past | None
    conditions: Conditions | None


def injected_into(
    scenes: Sequence[SceneRecord], detector: Detector, settings: Settings, workspace: Workspace
) -> SmokeAlarm:
    """Inject anomalies into calibration scenes, and see what the detector flags.

    Args:
        scenes: Scenes that were not learned from.
        detector: A calibrated detector.
        settings: Which kinds, how strong, how many tiles.
        workspace: Where the scenes are catalogued.

    Raises:
        NothingToInject: No tile of these scenes has a score.
    """
    many = len({scene.location for scene in scenes}) > 1
    some = [scenes[index] for index in evenly(len(scenes), MOST_SCENES)]

    def tiles() -> Iterator[HeldOut[_Context]]:
        for record in some:
            yield from _tiles(
                record, record.location if many else record.day.isoformat(), detector, settings, workspace
            )

    def judge(values: NDArray[np.float32], valid: NDArray[np.bool_], held: Sequence[HeldOut[_Context]]) -> Judged:
        return _judged(detector, values, valid, held)

    return smoke_alarm(tiles(), judge, settings.source.bands, settings.injections, settings.seed)


def _tiles(
    record: SceneRecord, group: str, detector: Detector, settings: Settings, workspace: Workspace
) -> Iterator[HeldOut[_Context]]:
    """The scored tiles of a scene.

    The scene is judged as a whole first and then read again, so that its tiles are never all in memory.
    """
    usual = usual_of(record, settings, workspace) if detector.looks_back else None
    stride, kinds, raw, places = settings.grid.stride, [], [], []
    with opened(record, detector, usual, settings, workspace) as scene:
        for batch, scores in observe(detector, scene, stride):
            kinds += scores.kind.tolist()
            raw += scores.score.tolist()
            places += [tile.tile_id(record.location) for tile in batch.tiles]
        judged = detector.judge(np.array(kinds, dtype=object), np.array(raw), places)
        whole, before = _Scene(scene.stats, judged), 0
        for batch in read_tiles(scene.reader, detector.tile_size, stride, at_least=BATCH, past=scene.past):
            conditions = conditions_for(detector, scene, batch)
            for row in range(len(batch.tiles)):
                index = before + row
                if np.isnan(judged.score[index]):
                    continue
                values, valid = batch.values[row].copy(), batch.valid[row].copy()
                past = None if batch.past is None else batch.past.each(_row(row))
                told = None if conditions is None else conditions.rows(np.array([row]))
                context = _Context(whole, index, int(batch.area[row]), values, past, told)
                yield HeldOut(f"{places[index]} {record.scene_id}", places[index], group, values, valid, context)
            before += len(batch.tiles)


def _row(index: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda array: array[index : index + 1].copy()


def _judged(
    detector: Detector,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    tiles: Sequence[HeldOut[_Context]],
) -> Judged:
    score, flagged = np.full(len(tiles), np.nan), np.zeros(len(tiles), dtype=bool)
    scenes = {id(tile.context.scene): tile.context.scene for tile in tiles}
    for key, scene in scenes.items():
        for compared in (True, False):
            rows = [
                row
                for row, tile in enumerate(tiles)
                if id(tile.context.scene) == key and (tile.context.past is not None) == compared
            ]
            if not rows:
                continue
            pasts = [_lasting(tiles[row].context, values[row]) for row in rows] if compared else []
            past = Past.joined([one for one in pasts if one is not None], axis=0) if compared else None
            area = np.array([tiles[row].context.area for row in rows])
            told = [one for row in rows if (one := tiles[row].context.conditions) is not None]
            conditions = Conditions.joined(told) if told else None
            given = detector.score(
                values[rows], valid[rows], past=past, scene=scene.stats, area=area, conditions=conditions
            )
            for place, row in enumerate(rows):
                index = tiles[row].context.index
                if given.kind[place] == scene.judged.kind[index]:
                    score[row] = scene.judged.relative(given.score[place : place + 1], index)[0]
                    flagged[row] = score[row] > scene.judged.threshold[index]
    return Judged(score, flagged)


def _lasting(context: _Context, values: NDArray[np.float32]) -> Past | None:
    """The past of a tile, its witness changed as the tile is."""
    past = context.past
    if past is None or past.witness is None:
        return past
    changed = np.nan_to_num(values - context.values)
    return Past(past.values, past.valid, past.witness + changed, past.witness_expected, past.witness_valid)

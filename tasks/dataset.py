"""Training data: which scenes and tiles train, stop and calibrate, and their pixels in a memory-mapped file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from configs import Period, Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.tiles import read_tiles
from tasks.conditions import conditions_of, open_conditioned, place_names, sensor_names
from tasks.scratch import scratch_folder
from tasks.suspects import is_suspect, suspects
from tasks.tile_cache import TileCache
from vae.calibration import Basis
from vae.tiles import TileArrays


class NothingToTrain(ValueError):
    """The catalog holds no scene, or no usable tile, of the dates that were asked for."""


@dataclass(frozen=True)
class Split:
    """Scenes by what they are used for. Splits are by date: no date is in two of them.

    Attributes:
        train: Scenes whose tiles the network is fitted to.
        validation: Scenes of other dates, that stop the training.
        calibrate: Scenes of yet other dates, that set the threshold; empty when nothing was held out.
        basis: What calibration will stand on: held_out, validation or training dates.
    """

    train: tuple[SceneRecord, ...]
    validation: tuple[SceneRecord, ...]
    calibrate: tuple[SceneRecord, ...]
    basis: Basis

    @property
    def calibration_scenes(self) -> tuple[SceneRecord, ...]:
        """The scenes calibration is done on."""
        return {"held_out": self.calibrate, "validation": self.validation, "training": self.train}[self.basis]

    @property
    def scenes(self) -> tuple[SceneRecord, ...]:
        """All of them, oldest first."""
        every = (*self.train, *self.validation, *self.calibrate)
        return tuple(sorted(every, key=lambda record: (record.acquired, record.scene_id)))


def split_scenes(settings: Settings, scenes: list[SceneRecord]) -> Split:
    """Divide scenes by date.

    Dates of `split.train` are divided into training and validation dates, the latter spread evenly over the period.

    Raises:
        NothingToTrain: No scene of the training period, or nothing to calibrate on.
    """
    split = settings.split
    usable = [record for record in scenes if record.valid_fraction > 0]
    inside = [record for record in usable if record.day in split.train]
    if not inside:
        raise NothingToTrain(
            f"no usable scene in {_span(split.train)} ({_known(usable)}): set split.train or ingest more"
        )
    days = sorted({record.day for record in inside})
    held = _spread(days, split.validation_fraction)
    calibrate = [r for r in usable if split.calibrate and r.day in split.calibrate and r.day not in split.train]
    if split.calibrate and not calibrate:
        raise NothingToTrain(
            f"no usable scene to calibrate on in {_span(split.calibrate)} outside the training period "
            f"({_known(usable)}): set split.calibrate, or null to use the validation dates"
        )
    basis: Basis = "held_out" if calibrate else "validation" if held else "training"
    if basis == "training" and not split.allow_training_dates:
        raise NothingToTrain(
            f"with {len(days)} training dates and split.validation_fraction={split.validation_fraction:g}, no date is "
            "held out to calibrate on: ingest more dates, or set split.allow_training_dates=true and treat the "
            "p-values as optimistic"
        )
    return Split(
        tuple(record for record in inside if record.day not in held),
        tuple(record for record in inside if record.day in held),
        tuple(calibrate),
        basis,
    )


@contextmanager
def gathered(
    scenes: tuple[SceneRecord, ...],
    settings: Settings,
    workspace: Workspace,
    limit: int | None,
    on_scene: Callable[[int, int], None] | None = None,
    learned: tuple[SceneRecord, ...] | None = None,
) -> Iterator[TileArrays]:
    """The usable tiles of some scenes, in files that are mapped into memory and removed when the block ends.

    They come with what the network is told beside them (`model.condition`).

    Args:
        scenes: Where the tiles come from.
        settings: `train.min_valid` says which tiles are usable.
        workspace: Holds the files.
        limit: Most tiles; more are thinned by a draw that depends on the seed alone.
        on_scene: Called with (scenes done, scenes in all).
        learned: The scenes that train, by whose places and sensors these are told apart; None: these themselves.

    Raises:
        NothingToTrain: Not one tile is usable.
        ImageryError: A scene that could be read when it was ingested no longer can.
    """
    chosen = _choose(scenes, settings, workspace, limit)
    size, bands, condition = settings.grid.tile_size, len(settings.source.bands), settings.model.condition
    places, sensors = (names(learned or scenes, condition) for names in (place_names, sensor_names))
    with scratch_folder(workspace, "tiles") as folder:
        cache = TileCache(folder, (len(chosen), bands, size, size), condition)
        by_scene = chosen.groupby("scene", sort=True)
        for done, (scene, rows) in enumerate(by_scene, start=1):
            record = scenes[int(str(scene))]
            with open_conditioned(record, settings, workspace) as (reader, past):
                scaling = np.array([reader.scaling(band) for band in settings.source.bands])
                place = {(row.row_off, row.col_off): row.Index for row in rows.itertuples()}
                for batch in read_tiles(reader, size, settings.grid.stride, only=set(place), past=past):
                    target = [place[tile.row_off, tile.col_off] for tile in batch.tiles]
                    cache.put(target, batch.values, batch.valid, scaling)
                    told = conditions_of(record, reader.grid, batch, condition, places, sensors)
                    if cache.conditions is not None and told is not None:
                        cache.conditions.put(target, told)
            if on_scene:
                on_scene(done, by_scene.ngroups)
        yield cache.tiles()


def scenes_of_tiles(
    scenes: tuple[SceneRecord, ...], settings: Settings, workspace: Workspace, limit: int | None
) -> list[SceneRecord]:
    """The scene of each tile that `gathered` gives for the same arguments, in their order."""
    return [scenes[index] for index in _choose(scenes, settings, workspace, limit)["scene"]]


def _choose(
    scenes: tuple[SceneRecord, ...], settings: Settings, workspace: Workspace, limit: int | None
) -> pd.DataFrame:
    """The tiles to read, one row each: index in `scenes`, and offsets."""
    catalog = Catalog(workspace)
    columns = ["scene_id", "tile_id", "row_off", "col_off", "valid_fraction"]
    frames = [pd.DataFrame(catalog.tiles(record)[columns]).assign(scene=index) for index, record in enumerate(scenes)]
    tiles = pd.concat(frames, ignore_index=True)
    normal = ~is_suspect(tiles, suspects(scenes, settings, workspace))
    usable = tiles[normal & (tiles["valid_fraction"] >= settings.train.min_valid)].reset_index(drop=True)
    if usable.empty:
        raise NothingToTrain(
            f"none of the {len(tiles)} tiles of {len(scenes)} scenes is at least {settings.train.min_valid:.0%} "
            "usable: lower train.min_valid, or check the masks"
        )
    if limit is not None and len(usable) > limit:
        keep = np.random.default_rng(settings.seed).choice(len(usable), limit, replace=False)
        usable = usable.iloc[np.sort(keep)].reset_index(drop=True)
    return usable


def _spread(days: list[date], fraction: float) -> set[date]:
    """About `fraction` of the days, evenly spread; none when that would leave no day to train on."""
    count = min(round(len(days) * fraction), len(days) - 1)
    if count < 1:
        return set()
    return {days[int((index + 0.5) * len(days) / count)] for index in range(count)}


def _span(period: Period) -> str:
    return f"{period.start or 'the beginning'} … {period.end or 'today'}"


def _known(scenes: list[SceneRecord]) -> str:
    if not scenes:
        return "the catalog is empty"
    days = [record.day for record in scenes]
    return f"the catalog has {len(scenes)} scenes from {min(days)} to {max(days)}"

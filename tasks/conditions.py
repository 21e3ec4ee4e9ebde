"""What a network is told beside the tiles of a scene: `model.condition`, the same in training and in scoring.

Whoever gathers tiles to learn from opens each scene with `open_conditioned` and asks `conditions_of` for each batch;
`tasks.observe` does the same when tiles are scored. Places and sensors are counted by the lists of the training scenes
(`place_names`, `sensor_names`), for validation tiles too: the detector keeps these lists.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import numpy as np

from configs import Settings, SettingsError, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.expected import PastReader
from imagery.grid import Grid
from imagery.reading import SceneReader
from imagery.sensors import sensor_of
from imagery.sun import sun_over
from imagery.tiles import TileBatch
from tasks.ingest import open_scene
from tasks.reference import usual_of
from vae.conditions import UNKNOWN, Conditions
from vae.networks.conditions import PLACES, SENSORS


def conditions_of(
    record: SceneRecord,
    grid: Grid,
    batch: TileBatch,
    condition: Collection[str],
    places: Sequence[str],
    sensors: Sequence[str],
) -> Conditions | None:
    """What a network is told of some tiles of a scene; None when it is told nothing.

    What is not known is marked so, and never refused: a place or a sensor that is in no list, the sun of a scene whose
    time of day is not told, and what a place without a past lets expect.

    Args:
        record: The scene, from the catalog.
        grid: Of its location.
        batch: The tiles, from `imagery.tiles.read_tiles`; what is expected of them is its `past`.
        condition: What is told: `model.condition` of the detector, or in training of the settings.
        places: Locations of the detector, in its order: `place_names` of the training scenes.
        sensors: Likewise, from `sensor_names`.
    """
    if not condition:
        return None
    count, bands, side = len(batch.tiles), batch.values.shape[1], batch.values.shape[2]
    told = Conditions.unknown(count, condition, bands, side)
    if told.season is not None:
        told.season[:] = season_of(record.day)
    if told.place is not None:
        told.place[:] = _index(record.location, places)
    if told.sun is not None:
        told.sun[:] = sun_over(grid, record.acquired)
    if told.sensor is not None:
        told.sensor[:] = _index(sensor_of(record.files), sensors)
    if told.reference is not None and told.reference_valid is not None and batch.past is not None:
        told.reference[:], told.reference_valid[:] = batch.past.values, batch.past.valid
    return told


def season_of(day: date) -> float:
    """The day of the year as a share of the year: 0 on the first of January, less than 1 on the last of December."""
    return (day.timetuple().tm_yday - 1) / (366 if isleap(day.year) else 365)


def place_names(records: Iterable[SceneRecord], condition: Collection[str]) -> tuple[str, ...]:
    """The locations of some scenes, in order; none when the network is not told of places."""
    return tuple(sorted({record.location for record in records})) if "place" in condition else ()


def sensor_names(records: Iterable[SceneRecord], condition: Collection[str]) -> tuple[str, ...]:
    """The sensors of some scenes, in order, as far as they are known; none when the network is not told of sensors."""
    if "sensor" not in condition:
        return ()
    return tuple(sorted({found for record in records if (found := sensor_of(record.files)) is not None}))


def check_conditions(records: Sequence[SceneRecord], condition: Collection[str], workspace: Workspace) -> None:
    """Refuse a training whose scenes do not tell what the network is to be told.

    Args:
        records: Those that train.
        condition: `model.condition`.
        workspace: Where they are catalogued.

    Raises:
        SettingsError: Not one scene tells it, or there is more than a network can tell apart.
    """
    places, sensors = place_names(records, condition), sensor_names(records, condition)
    for name, found, most in (("place", places, PLACES), ("sensor", sensors, SENSORS)):
        if len(found) > most:
            raise SettingsError(
                f"model.condition names the {name}, and the training scenes are of {len(found)}: a network can tell "
                f"{most} apart, so leave {name} out"
            )
    if "sensor" in condition and not sensors:
        raise SettingsError(
            f"model.condition names the sensor, and the file names of none of the {len(records)} training scenes tell "
            "it (as S2A_… and LC08_… do): leave sensor out"
        )
    grids = {location: Catalog(workspace).grid(location) for location in {record.location for record in records}}
    if "sun" in condition and not any(
        grid is not None and np.isfinite(sun_over(grid, record.acquired)).all()
        for record in records
        for grid in [grids[record.location]]
    ):
        raise SettingsError(
            f"model.condition names the sun, and the {len(records)} training scenes have a date without a time of day, "
            "so that it is not known where the sun stood: use season in its place"
        )


@contextmanager
def open_conditioned(
    record: SceneRecord, settings: Settings, workspace: Workspace
) -> Iterator[tuple[SceneReader, PastReader | None]]:
    """Open a scene to learn from, and what its past lets expect where `model.condition` names the reference.

    With a reference the scene is registered with it, as when it is scored: what is expected lies on the same ground.

    Args:
        record: The scene, from the catalog.
        settings: How it is read, and `model.condition`.
        workspace: Where it is catalogued.

    Raises:
        ImageryError: The scene can no longer be read.
    """
    usual = usual_of(record, settings, workspace) if "reference" in settings.model.condition else None
    if usual is None:
        with open_scene(record.scene, settings, workspace) as reader:
            yield reader, None
        return
    with (
        open_scene(record.scene, settings, workspace, usual.alignment.registration.correction) as reader,
        usual.open_past(settings, workspace) as past,
    ):
        yield reader, past


def _index(name: str | None, names: Sequence[str]) -> int:
    return names.index(name) if name in names else UNKNOWN

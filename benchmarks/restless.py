"""Scenes of places with restless tiles: a car park, a greenhouse, a quarry, and events beside them, on them, like them.

What is restless changes from night to night and is of no interest: it raises false alarms where it lies, and only
there. Events last for some nights. Both are put into simulated scenes as `imagery.inject` mixes ground, below clouds
nothing; so it is known of every tile what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from imagery.grid import tile_ids
from imagery.inject import CannotInject, Light, inject
from imagery.simulate.noise import stream

Sort = Literal["car park", "greenhouse", "quarry"]

BANDS = ("B02", "B03", "B04", "B08")
CLOUDY = (0, 3, 8, 9, 10)  # classes under which nothing is put
SCALE = 10_000
SORTS: tuple[Sort, ...] = ("car park", "greenhouse", "quarry")
LIKE_RESTLESS = ("bright_objects", "bare_soil")  # of events: what restless tiles do too
OTHER = ("burn", "flood", "vegetation_loss")
STIRRED = 0.8  # share of the nights on which a restless tile is not as it was
LASTS = 5  # nights, an event
RESEMBLING = 0.3  # share of the events that are of a kind that restless tiles show too
CLEAR = 0.9  # share of a tile that must be seen for something to be put into it


@dataclass(frozen=True)
class Happening:
    """What is known of a tile on a night.

    Attributes:
        location: The place.
        night: The date.
        tile_id: The tile.
        restless: Of which sort the tile is, stirred tonight or not; '' for others.
        event: Kind of the event that is there tonight; '' for none.
        stirred: Whether what is restless shows tonight.
    """

    location: str
    night: date
    tile_id: str
    restless: str = ""
    event: str = ""
    stirred: bool = False

    @property
    def group(self) -> str:
        """Of an event: on restless ground, like what is restless elsewhere, or other."""
        if self.restless:
            return "on restless tiles"
        return "like restless ones" if self.event in LIKE_RESTLESS else "other"


@dataclass(frozen=True)
class Ground:
    """A scene in reflectances, and where its tiles lie."""

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    tile_size: int

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """(row, column) of each tile's upper left corner."""
        height, width = self.valid.shape
        return [(row, col) for row in range(0, height, self.tile_size) for col in range(0, width, self.tile_size)]

    def window(self, tile: tuple[int, int]) -> tuple[slice, slice]:
        """A tile's pixels."""
        return slice(tile[0], tile[0] + self.tile_size), slice(tile[1], tile[1] + self.tile_size)

    def seen(self, tile: tuple[int, int]) -> float:
        """Share of a tile that is not hidden."""
        return float(self.valid[self.window(tile)].mean())


@dataclass(frozen=True)
class Event:
    """Something that should be found.

    Attributes:
        tile: Its tile's upper left corner.
        kind: Of `imagery.inject.KINDS`.
        share: Of the tile's pixels.
        start: Its first night; it lasts `LASTS` nights.
        key: Of its shape.
    """

    tile: tuple[int, int]
    kind: str
    share: float
    start: date
    key: str

    def there(self, night: date) -> bool:
        """Whether it is there on a night."""
        return 0 <= (night - self.start).days < LASTS


@dataclass(frozen=True)
class Doings:
    """What happens at a place: its restless tiles, and its events."""

    restless: dict[tuple[int, int], Sort]
    events: Sequence[Event]


def settle(
    paths: Sequence[Path], nights: Sequence[date], tile_size: int, restless: int, events: int,
    on_restless: float | None, seed: int,
) -> Doings:  # fmt: skip
    """What happens at a place.

    Args:
        paths: Scenes of the place; the clearest says where there is ground for what.
        nights: That are watched.
        tile_size: Side of a tile, pixels.
        restless: How many tiles are restless.
        events: How many begin on each night.
        on_restless: Share of the events that are put on restless tiles; the others lie elsewhere. None: every tile has
            the same chance.
        seed: Of the draw.
    """
    scenes = [_read(path, tile_size) for path in paths]
    ground, light = max(enumerate(scenes), key=lambda one: (one[1][0].valid.mean(), one[0]))[1]
    place = paths[0].parent.name
    draw = stream(seed, "restless", place)
    stirring: dict[tuple[int, int], Sort] = {}
    for tile in [ground.tiles[number] for number in draw.permutation(len(ground.tiles))]:
        sort = SORTS[len(stirring) % len(SORTS)]
        if len(stirring) < restless and _stir(ground, light, tile, sort, seed, 0) is not None:
            stirring[tile] = sort
    elsewhere = [tile for tile in ground.tiles if tile not in stirring]
    share = len(stirring) / len(ground.tiles) if on_restless is None else on_restless
    found: list[Event] = []
    for night in nights:
        for number in range(events):
            tiles = list(stirring) if draw.random() < share else elsewhere
            for _ in range(20):  # until there is ground for it
                tile = tiles[int(draw.integers(len(tiles)))]
                kind = str(draw.choice(LIKE_RESTLESS if draw.random() < RESEMBLING else OTHER))
                event = Event(tile, kind, float(draw.uniform(0.15, 0.4)), night, f"{place} {night} {number}")
                taken = any(one.tile == tile and one.there(night) for one in found)
                if not taken and _happen(ground, light, event, seed) is not None:
                    found.append(event)
                    break
    return Doings(stirring, found)


def alter(path: Path, to: Path, doings: Doings, seed: int, tile_size: int) -> list[Happening]:
    """Write a scene with what is restless and with events, unless it is there.

    Args:
        path: A simulated scene, `<location>/<date>.tif`.
        to: Where it is written.
        doings: What happens at the place.
        seed: Of all that is drawn.
        tile_size: Side of a tile, pixels.

    Returns:
        The restless tiles, and those with an event that can be seen.
    """
    location, night = path.parent.name, date.fromisoformat(path.stem)
    ground, light = _read(path, tile_size)
    draw = stream(seed, "night", location, night)
    stirred = []
    for tile, sort in doings.restless.items():
        turn = int(draw.integers(1, 10_000))
        made = _stir(ground, light, tile, sort, seed, turn) if draw.random() < STIRRED else None
        if made is not None:
            ground.values[:, *ground.window(tile)] = made
            stirred.append(tile)
    happened = {}
    for event in doings.events:
        made = _happen(ground, light, event, seed) if event.there(night) else None
        if made is not None:
            ground.values[:, *ground.window(event.tile)] = made
            happened[event.tile] = event.kind
    if not to.exists():
        _write(path, to, ground)
    (names,) = [tile_ids(location, np.array(rows), np.array(cols)) for rows, cols in [zip(*ground.tiles, strict=True)]]
    name_of = dict(zip(ground.tiles, names, strict=True))
    return [
        Happening(
            location, night, name_of[tile], doings.restless.get(tile, ""), happened.get(tile, ""), tile in stirred
        )
        for tile in sorted({*doings.restless, *happened})
    ]


def _happen(ground: Ground, light: Light, event: Event, seed: int) -> NDArray[np.float32] | None:
    """The pixels of an event's tile with the event; None where it cannot be seen."""
    if ground.seen(event.tile) < CLEAR:
        return None
    return _put(ground, light, event.tile, event.kind, seed, f"event {event.key}", None, event.share)


def _stir(
    ground: Ground, light: Light, tile: tuple[int, int], sort: Sort, seed: int, turn: int
) -> NDArray[np.float32] | None:
    """The pixels of a restless tile on a night: cars that stand elsewhere, glass that shines more or less, a pit that
    is dug in another corner. None where it does not show."""
    if ground.seen(tile) < CLEAR:
        return None
    draw = stream(seed, "stir", sort, *tile, turn)
    key = f"{sort} {tile}"
    kind, share, strength, key = {
        "car park": ("bright_objects", 0.12, 0.8, f"{key} {turn}"),
        "greenhouse": ("bright_objects", 0.18, float(draw.uniform(0.4, 1.0)), key),
        "quarry": ("bare_soil", float(draw.uniform(0.15, 0.35)), 0.9, f"{key} {turn % 3}"),
    }[sort]
    return _put(ground, light, tile, kind, seed, key, strength, share)


def _put(
    ground: Ground, light: Light, tile: tuple[int, int], kind: str, seed: int, key: str, strength: float | None,
    share: float,
) -> NDArray[np.float32] | None:  # fmt: skip
    window = ground.window(tile)
    values, valid = ground.values[:, *window], ground.valid[window]
    try:
        return inject(values, valid, BANDS, kind, seed, key=key, strength=strength, share=share, light=light).values
    except CannotInject:
        return None


def _read(path: Path, tile_size: int) -> tuple[Ground, Light]:
    with rasterio.open(path, sharing=False) as source:
        values = source.read(range(1, len(BANDS) + 1)).astype(np.float32) / SCALE
        valid = ~np.isin(source.read(source.count), CLOUDY)
    ground = Ground(values, valid, tile_size)
    return ground, Light.of(values, valid if valid.any() else np.ones_like(valid), BANDS)


def _write(path: Path, to: Path, ground: Ground) -> None:
    """The scene with other values in the first bands; where nothing was put, the stored numbers stay."""
    with rasterio.open(path, sharing=False) as source:
        stored, profile, names, tags = source.read(), source.profile, source.descriptions, source.tags()
    changed = np.clip(np.rint(ground.values * SCALE), 1, 65_535).astype(stored.dtype)
    stored[: len(BANDS)] = np.where(ground.valid, changed, stored[: len(BANDS)])
    to.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(to, "w", **profile) as target:
        target.write(stored)
        target.descriptions = names
        target.update_tags(**tags)

"""What the catalog holds, place by place and date by date, what was quarantined and why, and what is usual."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from configs import Period, Settings, SettingsError, Workspace
from imagery.catalog import Catalog, SceneRecord, degree_boxes
from imagery.errors import ImageryError
from imagery.grid import Grid
from imagery.quarantine import Quarantine, QuarantineRecord
from imagery.reference import Reference
from tasks.reference import reference_for

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PlaceOverview:
    """What the catalog holds of a location.

    Attributes:
        location: Its name.
        scenes: Number of scenes.
        first: First date; None without a scene.
        last: Last date.
        valid: Median share of pixels that count, over the scenes.
        cloud: Median share of the pixels with data that are cloud.
        masked: Mean share of pixels that do not count, by cause, the greatest first.
        quarantined: Number of scenes that could not be used.
        grid: Its pixel grid; None when no scene could be read.
        tile_size: Side of its tiles, pixels.
        tiles: Number of its tiles.
    """

    location: str
    scenes: int
    first: date | None
    last: date | None
    valid: float | None
    cloud: float | None
    masked: dict[str, float]
    quarantined: int
    grid: Grid | None
    tile_size: int | None
    tiles: int | None


@dataclass(frozen=True)
class SceneOverview:
    """What the catalog holds of a date.

    Attributes:
        scene_id: `<location>/<acquired>[/<n>]`.
        location: Name of the place.
        acquired: Time of acquisition, UTC, ISO 8601.
        valid: Share of pixels that count.
        data: Share of pixels with data.
        cloud: Share of the pixels with data that are cloud.
        masked: Share of pixels that do not count, by cause, the greatest first.
    """

    scene_id: str
    location: str
    acquired: str
    valid: float
    data: float
    cloud: float
    masked: dict[str, float]


@dataclass(frozen=True)
class CatalogOverview:
    """What was asked for: places by name, scenes by place and time, quarantined scenes by time."""

    locations: tuple[PlaceOverview, ...]
    scenes: tuple[SceneOverview, ...]
    quarantined: tuple[QuarantineRecord, ...]


@dataclass(frozen=True)
class ReferenceOverview:
    """The references of places, by name; places without a clear scene have none."""

    references: tuple[Reference, ...]


def overview(
    workspace: Workspace,
    locations: Sequence[str] = (),
    period: Period | None = None,
    bbox: Box | None = None,
    dates: bool = False,
) -> CatalogOverview:
    """Look at the catalog and the quarantine.

    Args:
        workspace: Where they are.
        locations: Names of locations; without any, all.
        period: UTC dates.
        bbox: West, south, east, north in degrees: locations whose grid touches it.
        dates: List the scenes as well.

    Raises:
        FileNotFoundError: There is no such workspace.
        SettingsError: An unknown location, or a box that is none.
    """
    if not workspace.root.is_dir():
        raise FileNotFoundError(f"there is no workspace {workspace.root}: `tilewatch ingest` makes one")
    catalog, quarantine, period = Catalog(workspace), Quarantine(workspace), period or Period()
    _check_locations(locations, catalog, quarantine)
    chosen: Sequence[str] | None = locations or None
    if bbox:
        try:
            degree_boxes(bbox)
        except ImageryError as error:
            raise SettingsError(str(error)) from None
        chosen = catalog.near(bbox, chosen)
    scenes = catalog.scenes(chosen, period.start, period.end)
    quarantined = quarantine.records(chosen, period.start, period.end)
    by_place: dict[str, list[SceneRecord]] = defaultdict(list)
    for record in scenes:
        by_place[record.location].append(record)
    bad = Counter(record.location for record in quarantined)
    return CatalogOverview(
        tuple(_place(name, by_place[name], bad[name], catalog.grid(name)) for name in sorted({*by_place, *bad})),
        tuple(_scene(record) for name in sorted(by_place) for record in by_place[name] if dates),
        tuple(quarantined),
    )


def references(
    settings: Settings, workspace: Workspace, locations: Sequence[str] = (), night: date | None = None
) -> ReferenceOverview:
    """The references of places, built where they are not there.

    Args:
        settings: How scenes are read, and which make a reference.
        workspace: Where the catalog is.
        locations: Names of locations; without any, all.
        night: As of this night; None is the day after each location's last scene.

    Raises:
        FileNotFoundError: There is no such workspace.
        SettingsError: An unknown location.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """
    if not workspace.root.is_dir():
        raise FileNotFoundError(f"there is no workspace {workspace.root}: `tilewatch ingest` makes one")
    catalog = Catalog(workspace)
    _check_locations(locations, catalog, Quarantine(workspace))
    found = []
    for name in locations or catalog.locations():
        scenes = catalog.scenes([name])
        if scenes:
            day = night or scenes[-1].day + timedelta(days=1)
            found.append(reference_for(name, day, settings, workspace))
    return ReferenceOverview(tuple(reference for reference in found if reference))


def _check_locations(locations: Sequence[str], catalog: Catalog, quarantine: Quarantine) -> None:
    known = sorted({*catalog.locations(), *(bad.location for bad in quarantine.records())}) if locations else []
    for name in locations:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            there = f"there are {', '.join(known[:20])}" if known else "nothing was ingested yet"
            raise SettingsError(f"unknown location {name!r}: " + (f"did you mean {close[0]}?" if close else there))


def _place(name: str, scenes: Sequence[SceneRecord], quarantined: int, grid: Grid | None) -> PlaceOverview:
    """Of a location and its scenes, oldest first."""
    newest = scenes[-1] if scenes else None
    masked: dict[str, float] = defaultdict(float)
    for record in scenes:
        for cause, share in record.masked.items():
            masked[cause] += share / len(scenes)
    return PlaceOverview(
        location=name,
        scenes=len(scenes),
        first=scenes[0].day if scenes else None,
        last=newest.day if newest else None,
        valid=median(record.valid_fraction for record in scenes) if scenes else None,
        cloud=median(record.cloud_fraction for record in scenes) if scenes else None,
        masked=_greatest_first(masked),
        quarantined=quarantined,
        grid=grid,
        tile_size=newest.tile_size if newest else None,
        tiles=newest.tiles if newest else None,
    )


def _scene(record: SceneRecord) -> SceneOverview:
    return SceneOverview(
        record.scene_id,
        record.location,
        record.acquired.isoformat(),
        record.valid_fraction,
        record.data_fraction,
        record.cloud_fraction,
        _greatest_first(record.masked),
    )


def _greatest_first(masked: dict[str, float]) -> dict[str, float]:
    return dict(sorted(masked.items(), key=lambda item: (-item[1], item[0])))

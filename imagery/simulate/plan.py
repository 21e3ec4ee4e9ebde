"""What to simulate: locations, dates, events, clouds and faults, and the plan of the embedded demo."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

Recipe = Literal["river", "forest", "coast"]
Kind = Literal["burn", "flood", "new_buildings", "clear_cut", "slick", "stripes"]

VERSION = 1  # raised whenever the same plan would give other pixels


@dataclass(frozen=True)
class Location:
    """A place with a landscape of its own.

    Attributes:
        name: Name of its folder.
        recipe: Which landscape is laid out.
        epsg: EPSG code of a UTM zone.
        west, north: Upper left corner, in metres of that zone.
        size: Side of the square in pixels.
        resolution: Side of a pixel in metres.
    """

    name: str
    recipe: Recipe
    epsg: int
    west: float
    north: float
    size: int = 256
    resolution: float = 10.0


@dataclass(frozen=True)
class Event:
    """Something that should not be there.

    Attributes:
        kind: What happens.
        location: Name of the location.
        start: First day it is there.
        end: Last day it is there; None: it lasts.
        radius: About half its size in pixels (for stripes: from this column on, everything is striped).
        strength: From 0 (nothing) to 1 (obvious).
        centre: Row and column in pixels; None: where it makes sense, found by the seed.
    """

    kind: Kind
    location: str
    start: date
    end: date | None
    radius: float
    strength: float = 1.0
    centre: tuple[int, int] | None = None

    def active(self, day: date) -> bool:
        """Whether it is there on a day."""
        return self.start <= day and (self.end is None or day <= self.end)


@dataclass(frozen=True)
class Plan:
    """Everything that decides the pixels of a simulation.

    Attributes:
        seed: Seed of all randomness.
        locations: The places.
        dates: Acquisition dates of every location, in order.
        train_end: Last day of the period for training.
        calibrate_end: Last day of the period for calibration; later dates are the nights that are watched.
        events: What happens. Numbered from 1 in this order (`event_id`).
        cloudy_nights: Dates on which every location lies under cloud.
        clear_scenes: Locations and dates with neither a cloud nor a swath edge; the weather decides elsewhere.
        gain_from: First day on which the sensor is brighter; None: never.
        gain: Factor on all bands from then on.
        corrupt: Location and date of one file that is cut off in the middle; None: no such file.

    Raises:
        ValueError: When the parts do not fit together.
    """

    seed: int
    locations: tuple[Location, ...]
    dates: tuple[date, ...]
    train_end: date
    calibrate_end: date
    events: tuple[Event, ...] = ()
    cloudy_nights: tuple[date, ...] = ()
    clear_scenes: tuple[tuple[str, date], ...] = ()
    gain_from: date | None = None
    gain: float = 1.0
    corrupt: tuple[str, date] | None = None

    def __post_init__(self) -> None:
        """Refuse a plan whose parts do not fit together."""
        names = [location.name for location in self.locations]
        if len(set(names)) != len(names):
            raise ValueError(f"two locations share a name: {', '.join(names)}")
        if list(self.dates) != sorted(set(self.dates)):
            raise ValueError("the plan's dates repeat or are not in order")
        if len(self.events) > 255:
            raise ValueError(f"{len(self.events)} events do not fit the 8-bit masks: use at most 255")
        for event in self.events:
            if event.location not in names:
                raise ValueError(
                    f"a {event.kind} is planned at {event.location!r}, but there is only: {', '.join(names)}"
                )
            if event.end is not None and event.end < event.start:
                raise ValueError(
                    f"the {event.kind} at {event.location} ends ({event.end}) before it starts ({event.start})"
                )
        if self.corrupt is not None and (self.corrupt[0] not in names or self.corrupt[1] not in self.dates):
            raise ValueError(f"the corrupt file {self.corrupt[0]}/{self.corrupt[1]} is none of the plan's scenes")

    @property
    def nights(self) -> tuple[date, ...]:
        """Dates after the calibration: those that are watched."""
        return tuple(day for day in self.dates if day > self.calibrate_end)

    def scenes(self) -> Iterator[tuple[Location, date]]:
        """Every location on every date, in the order of the dates."""
        for day in self.dates:
            for location in self.locations:
                yield location, day

    def events_on(self, location: str, day: date) -> tuple[tuple[int, Event], ...]:
        """Numbers and events that are there at a location on a day, seen or not."""
        return tuple(
            (number, event)
            for number, event in enumerate(self.events, start=1)
            if event.location == location and event.active(day)
        )

    def fingerprint(self) -> str:
        """Hexadecimal digest of the plan and of the simulator's version: equal for equal pixels."""
        return hashlib.sha256(f"{VERSION} {self!r}".encode()).hexdigest()[:16]


def demo_plan(seed: int = 7) -> Plan:
    """Three European places over 18 months: a year to train on, eleven weeks to calibrate, twenty nights to watch.

    Args:
        seed: Another seed gives other landscapes, skies and sites of the same events.
    """
    locations = (
        Location("tisza-plain", "river", 32634, west=463_200, north=5_218_600),
        Location("black-forest", "forest", 32632, west=441_500, north=5_309_400),
        Location("vendee-coast", "coast", 32630, west=589_700, north=5_154_900),
    )
    nights = tuple(date(2025, 6, 6) + timedelta(days=5 * n) for n in range(20))
    year = tuple(date(2024, 3, 16) + timedelta(days=15 * n // 2) for n in range(49))
    spring = tuple(date(2025, 3, 21) + timedelta(days=11 * n // 2) for n in range(14))
    plain, forest, coast = (location.name for location in locations)
    events = (
        Event("burn", forest, nights[2], None, radius=24, strength=1.0),
        Event("flood", plain, nights[3], nights[6], radius=30, strength=0.95),
        Event("slick", coast, nights[4], nights[5], radius=28, strength=0.9),
        Event("new_buildings", coast, nights[5], None, radius=17, strength=1.0),
        Event("clear_cut", forest, nights[7], None, radius=16, strength=0.9),
        Event("stripes", plain, nights[8], nights[8], radius=128, strength=0.8),
        Event("burn", plain, nights[10], nights[14], radius=18, strength=0.6),
        Event("slick", coast, nights[12], nights[13], radius=22, strength=0.55),
        Event("new_buildings", plain, nights[14], None, radius=19, strength=0.7),
        Event("clear_cut", forest, nights[14], None, radius=13, strength=0.5),
        Event("flood", plain, nights[16], nights[19], radius=26, strength=0.6),
        Event("stripes", forest, nights[17], nights[17], radius=96, strength=0.4),
    )
    return Plan(
        seed=seed,
        locations=locations,
        dates=year + spring + nights,
        train_end=date(2025, 3, 16),
        calibrate_end=date(2025, 6, 1),
        events=events,
        cloudy_nights=(nights[1], nights[15]),
        clear_scenes=tuple((event.location, event.start) for event in events),
        gain_from=nights[9],
        gain=1.18,
        corrupt=(coast, nights[10]),
    )

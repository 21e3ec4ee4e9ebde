"""What happens on the ground and in the sensor that should be found.

A footprint says how strongly (0 to 1) an event shows in every ground cell; each kind has one function that lays out its
footprint, and one that changes the reflectances with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy import ndimage

from imagery.simulate.landscape import FINE, Landscape
from imagery.simulate.noise import FloatArray, fractal, smoothstep, stream
from imagery.simulate.plan import Event, Plan
from imagery.simulate.seasons import CROPS, FOREST
from imagery.spectra import CHARCOAL, CUT_SOIL, DEMO, FILM_LOSS, FILM_SHEEN, MUD_WATER, ROOF, YARD

STRIPE_PERIOD = 4  # every fourth column is off
VISIBLE = 0.15  # a cell belongs to the event where its footprint is at least this strong

ALLOWED: dict[str, tuple[str, ...]] = {
    "burn": (*FOREST, "heath", "meadow", "wheat", "barley", "rapeseed"),
    "flood": (*CROPS, "meadow", "gravel"),
    "new_buildings": (*CROPS, "meadow"),
    "clear_cut": FOREST,
    "slick": ("sea", "lake"),
}


@dataclass(frozen=True)
class Footprint:
    """Where an event shows.

    Attributes:
        event: The event.
        number: Its number in the plan, from 1.
        amount: Strength from 0 to 1 on the ground cells, of (cells, cells).
        detail: By kind: brightness of new roofs (0 beside them), height above a flood's level, rows of a clear-cut;
            elsewhere not used.
    """

    event: Event
    number: int
    amount: FloatArray
    detail: FloatArray

    def on(self, day: date) -> FloatArray:
        """Amount on a day: a flood recedes, everything else stays as it is."""
        if self.event.kind != "flood" or self.event.end is None or self.event.end == self.event.start:
            return self.amount
        gone = (day - self.event.start) / (self.event.end - self.event.start)
        return self.amount * smoothstep(-self.detail, -1.0 + 0.28 * gone, -0.93 + 0.28 * gone)


@dataclass(frozen=True)
class _Site:
    """Cells around an event: offsets from its centre in radii, its random stream, and where it may be."""

    rng: np.random.Generator
    down: FloatArray
    right: FloatArray
    radius: float
    allowed: np.ndarray
    landscape: Landscape

    @property
    def away(self) -> FloatArray:
        return np.hypot(self.down, self.right).astype(np.float32)

    def noise(self, largest: float, slope: float = 1.8) -> FloatArray:
        return fractal(self.rng, (self.down.shape[0], self.down.shape[1]), largest, slope)

    def turned(self, angle: float) -> tuple[FloatArray, FloatArray]:
        along = np.cos(angle) * self.right + np.sin(angle) * self.down
        across = -np.sin(angle) * self.right + np.cos(angle) * self.down
        return along.astype(np.float32), across.astype(np.float32)


def _burn(site: _Site) -> tuple[FloatArray, FloatArray]:
    along, across = site.turned(site.rng.uniform(0, np.pi))
    front = np.hypot(0.85 * along, 1.2 * across) + 0.24 * site.noise(site.radius, 1.9)
    severity = np.clip(0.88 + 0.10 * site.noise(14, 1.6), 0.5, 1)
    islands = smoothstep(site.noise(16, 1.8), 1.7, 2.0)
    return smoothstep(-front, -1.0, -0.94) * severity * (1 - islands), severity


def _flood(site: _Site) -> tuple[FloatArray, FloatArray]:
    level = 0.62 * site.away + 0.36 * np.minimum(site.landscape.floodplain, 9) + 0.05 * site.noise(20, 1.6)
    return smoothstep(-level, -1.0, -0.93), level


def _new_buildings(site: _Site) -> tuple[FloatArray, FloatArray]:
    along, across = site.turned(site.rng.uniform(-0.4, 0.4))
    yard = (abs(along) < 0.95) & (abs(across) < 0.72)
    u, v = (along + 0.95) / 1.9, (across + 0.72) / 1.44
    roofs = np.zeros(yard.shape, dtype=np.float32)
    for left, right, top, bottom in ((0.06, 0.46, 0.08, 0.44), (0.54, 0.94, 0.08, 0.52), (0.06, 0.36, 0.56, 0.92),
                                     (0.44, 0.62, 0.62, 0.92), (0.70, 0.94, 0.62, 0.92)):  # fmt: skip
        hall = (u > left) & (u < right) & (v > top) & (v < bottom)
        roofs[hall] = site.rng.uniform(0.65, 1.15)
    return yard.astype(np.float32), roofs


def _clear_cut(site: _Site) -> tuple[FloatArray, FloatArray]:
    angle = site.rng.uniform(0, np.pi)
    along, across = site.turned(angle)
    whole = (abs(along) < 1.05) & (abs(across) < 0.78)
    notch = (along > 0.35) & (across > 0.15)  # an L: one corner is left standing
    rows = 1 + 0.10 * np.sin(across * site.radius * (2 * np.pi / 5.0)) + 0.08 * site.noise(8, 1.4)
    return (whole & ~notch).astype(np.float32), rows.astype(np.float32)


def _slick(site: _Site) -> tuple[FloatArray, FloatArray]:
    along, across = site.turned(site.rng.uniform(0, np.pi))
    bent = across + 0.30 * np.sin(2.3 * along) + 0.13 * site.noise(1.2 * site.radius, 2.3)
    core = np.exp(-((bent / (0.26 + 0.10 * np.clip(site.noise(site.radius, 2.2), -1.5, 1.5))) ** 2))
    tail = 0.75 * np.exp(-(((bent + 0.55 + 0.2 * along) / 0.10) ** 2))
    film = np.maximum(core, tail) * smoothstep(-abs(along), -1.15, -0.75)
    return film.astype(np.float32), film.astype(np.float32)


_SHAPES: dict[str, Callable[[_Site], tuple[FloatArray, FloatArray]]] = {
    "burn": _burn,
    "flood": _flood,
    "new_buildings": _new_buildings,
    "clear_cut": _clear_cut,
    "slick": _slick,
}


def footprints(plan: Plan, place: str, landscape: Landscape) -> dict[int, Footprint]:
    """Lay out all events of a location, away from each other.

    Args:
        plan: The plan; an event's number is its place in `plan.events`, from 1.
        place: Name of the location.
        landscape: Its ground.

    Raises:
        ValueError: When an event has no ground to happen on, e.g. a slick without water.
    """
    cells = landscape.piece.shape[0]
    rows, columns = np.mgrid[0:cells, 0:cells].astype(np.float32)
    taken = np.zeros((cells // FINE, cells // FINE), dtype=np.float32)
    laid = {}
    for number, event in enumerate(plan.events, start=1):
        if event.location != place:
            continue
        if event.kind == "stripes":
            column = columns // FINE
            amount = ((column >= event.radius) & (column % STRIPE_PERIOD == 1)).astype(np.float32)
            laid[number] = Footprint(event, number, amount, amount)
            continue
        rng = stream(plan.seed, "event", number, event.kind, place)
        allowed = landscape.covered_by(*ALLOWED[event.kind])
        if not allowed.any():
            raise ValueError(f"a {event.kind} cannot happen at {place}: there is no {' or '.join(ALLOWED[event.kind])}")
        row, column = event.centre or _find(event, landscape, allowed, taken, rng)
        radius = FINE * event.radius
        site = _Site(rng, (rows - FINE * row) / radius, (columns - FINE * column) / radius, radius, allowed, landscape)
        amount, detail = _SHAPES[event.kind](site)
        amount = amount * allowed
        laid[number] = Footprint(event, number, amount, detail)
        taken += _pixels(ndimage.maximum_filter(amount, size=4 * FINE + 1)) > 0.05
    return laid


def _pixels(cells: FloatArray) -> FloatArray:
    """Mean over the ground cells of every pixel."""
    side = cells.shape[0] // FINE
    return cells.reshape(side, FINE, side, FINE).mean(axis=(1, 3), dtype=np.float32)


def _find(
    event: Event, landscape: Landscape, allowed: np.ndarray, taken: FloatArray, rng: np.random.Generator
) -> tuple[int, int]:
    """A pixel around which the event finds most of the ground it needs, and no other event."""
    good = _pixels(allowed.astype(np.float32)) - 2 * taken
    if event.kind == "flood":
        good *= _pixels(np.clip(1.7 - 0.75 * np.minimum(landscape.floodplain, 9), 0, 1).astype(np.float32))
    if event.kind == "burn" and landscape.covered_by(*FOREST).mean() > 0.3:
        good -= 0.6 * _pixels((~landscape.covered_by(*FOREST, "heath")).astype(np.float32))
    fit = ndimage.gaussian_filter(good, 0.55 * event.radius, mode="constant", cval=-0.5)
    edge = int(min(event.radius, good.shape[0] // 3))
    inner = fit[edge:-edge, edge:-edge] if edge else fit
    choices = np.argwhere(inner >= np.quantile(inner, 0.995))
    row, column = choices[rng.integers(len(choices))] + edge
    return int(row), int(column)


def change_ground(ground: FloatArray, footprint: Footprint, day: date) -> None:
    """Change the reflectances of the ground, (bands, cells, cells), where an event has happened; in place."""
    kind, strength = footprint.event.kind, footprint.event.strength
    amount = footprint.on(day) * np.float32(strength)
    if kind == "stripes":
        return
    if kind == "slick":
        dark = np.array(FILM_LOSS[:DEMO], dtype=np.float32)[:, None, None]
        sheen = np.array(FILM_SHEEN[:DEMO], dtype=np.float32)[:, None, None]
        ground *= 1 - dark * amount
        ground += sheen * amount
        return
    target = {"burn": CHARCOAL, "flood": MUD_WATER, "clear_cut": CUT_SOIL, "new_buildings": YARD}[kind]
    new = np.array(target[:DEMO], dtype=np.float32)[:, None, None] * np.ones_like(amount)
    if kind == "new_buildings":
        roof = np.array(ROOF[:DEMO], dtype=np.float32)[:, None, None] * footprint.detail
        new = np.where(footprint.detail > 0, roof, new)
    elif kind == "clear_cut":
        new = new * footprint.detail
    elif kind == "flood":
        new = new * np.clip(1.2 - 0.3 * footprint.detail, 0.85, 1.15)  # deeper in the middle, more mud
    ground += amount * (new - ground)


def change_sensor(image: FloatArray, footprint: Footprint) -> None:
    """Change the image, (bands, rows, columns), where the sensor itself is at fault; in place."""
    if footprint.event.kind == "stripes":
        offset = np.array((0.036, 0.040, 0.044, 0.075, 0.060), dtype=np.float32)[:, None, None]
        image += offset * np.float32(footprint.event.strength) * footprint.amount[None, ::FINE, ::FINE]


def marks(footprint: Footprint, day: date) -> np.ndarray:
    """Pixels (rows, columns) that the event changes on a day."""
    return _pixels((footprint.on(day) >= VISIBLE).astype(np.float32)) >= 0.5

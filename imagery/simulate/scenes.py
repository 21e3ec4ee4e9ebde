"""One scene: ground, events, light, atmosphere, sensor, and the scene classification that comes with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from rasterio.warp import transform
from scipy import ndimage

from imagery.simulate import clouds, events
from imagery.simulate.landscape import FINE, Landscape
from imagery.simulate.noise import FloatArray, fractal, stream
from imagery.simulate.plan import Location, Plan
from imagery.simulate.recipes import lay_out
from imagery.simulate.seasons import BANDS, WATER, codes, reflectances

NODATA, SHADOW, VEGETATION, BARE, WATER_CLASS, CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS = 0, 3, 4, 5, 6, 8, 9, 10


@dataclass(frozen=True)
class World:
    """A location as it is before anything is seen of it."""

    location: Location
    latitude: float
    landscape: Landscape
    footprints: dict[int, events.Footprint]


@dataclass(frozen=True)
class Scene:
    """One acquisition.

    Attributes:
        bands: Reflectance times 10 000, of (bands, rows, columns), uint16, 0 where there is no data.
        classes: Scene classification (Sentinel-2 SCL) of (rows, columns), uint16.
        marks: Number of the event that is seen in each pixel, 0 for none, of (rows, columns), uint8.
    """

    bands: np.ndarray
    classes: np.ndarray
    marks: np.ndarray


def build_world(plan: Plan, location: Location) -> World:
    """Lay out a location and its events."""
    landscape = lay_out(location, plan.seed)
    _, latitude = transform(f"EPSG:{location.epsg}", "EPSG:4326", [location.west], [location.north])
    return World(location, float(latitude[0]), landscape, events.footprints(plan, location.name, landscape))


def render(plan: Plan, world: World, day: date) -> Scene:
    """What the sensor sees of a location on a day."""
    place, size = world.location.name, world.location.size
    happening = [world.footprints[number] for number, _ in plan.events_on(place, day)]
    ground = _ground(plan, world, day)
    for footprint in happening:
        events.change_ground(ground, footprint, day)
    ground *= _sunlight(world, day)

    rng = stream(plan.seed, "sensor", place, day)
    image = _optics(ground, rng.uniform(-0.3, 0.3, 2))
    above = clouds.sky(plan, place, day, size, world.latitude)
    if above is not None:
        image = clouds.shade(image, above)
    haze = abs(rng.normal(0, 0.006)) * np.array((1.0, 0.62, 0.40, 0.15, 0.03), dtype=np.float32)
    elevation, _ = clouds.sun(day, world.latitude)
    light = np.clip(0.95 + 0.08 * np.sin(elevation) + rng.normal(0, 0.012), 0.94, 1.06)
    image = (image + haze.astype(np.float32)[:, None, None]) * np.float32(light)
    image *= 1 + np.float32(0.008) * rng.standard_normal(image.shape, dtype=np.float32)
    image += np.float32(0.0008) * rng.standard_normal(image.shape, dtype=np.float32)
    for footprint in happening:
        events.change_sensor(image, footprint)
    if plan.gain_from is not None and day >= plan.gain_from:
        image *= np.float32(plan.gain)

    missing = _swath_edge(plan, place, day, size)
    seen = np.ones((size, size), dtype=bool) if missing is None else ~missing
    classes = _classify(image, world, above)
    classes[~seen] = NODATA
    bands = np.clip(np.rint(image * 10_000), 1, 65_535).astype(np.uint16)
    bands[:, ~seen] = 0
    if above is not None:
        seen = seen & (above.cloud < 0.5)
    marks = np.zeros((size, size), dtype=np.uint8)
    for footprint in happening:
        marks[events.marks(footprint, day) & seen & (marks == 0)] = footprint.number
    return Scene(bands, classes, marks)


def event_pixels(world: World, number: int, day: date) -> int:
    """How many pixels an event changes on a day, seen or hidden."""
    return int(events.marks(world.footprints[number], day).sum())


def _ground(plan: Plan, world: World, day: date) -> FloatArray:
    """Reflectance of the ground without events, (bands, cells, cells)."""
    landscape, place = world.landscape, world.location.name
    mean, slope = reflectances(landscape.parcels, day, plan.seed, place)
    water = np.isin(landscape.parcels.cover, codes(*WATER))
    pattern = landscape.texture
    if water.any():
        rng = stream(plan.seed, "water", place, day)
        size = world.location.size
        swirl = np.repeat(np.repeat(fractal(rng, (size, size), 60, 2.0), FINE, axis=0), FINE, axis=1)
        muddy = landscape.sediment * (rng.uniform(0.90, 1.12) * (1 + 0.035 * swirl))
        pattern = np.where(water[landscape.piece], muddy, pattern).astype(np.float32)
    ground = np.empty((len(BANDS), *landscape.piece.shape), dtype=np.float32)
    for band in range(len(BANDS)):
        patchy = slope[band][landscape.piece]
        patchy *= landscape.patchiness
        patchy += mean[band][landscape.piece]
        np.multiply(patchy, pattern, out=ground[band])
    return ground


def _sunlight(world: World, day: date) -> FloatArray:
    """Light on slopes against light on flat ground; half of the effect, as terrain correction leaves some of it."""
    elevation, azimuth = clouds.sun(day, world.latitude)
    tilt = -(world.landscape.east * np.sin(azimuth) + world.landscape.north * np.cos(azimuth)) / np.tan(elevation)
    return np.clip(1 + 0.5 * tilt, 0.45, 1.6).astype(np.float32)


def _optics(ground: FloatArray, shift: np.ndarray) -> FloatArray:
    """Blur by the point spread function, centred off by `shift` pixels (rows, columns), and sample every pixel."""
    reach = 4
    taps = np.arange(-reach, reach + 2)
    padded = np.pad(ground, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    for axis in (1, 2):
        centre = 0.5 * (FINE - 1) + FINE * shift[axis - 1]
        weights = np.exp(-0.5 * ((taps - centre) / 1.05) ** 2)
        weights /= weights.sum()
        count = ground.shape[axis] // FINE
        total = None
        for tap, weight in zip(taps, weights, strict=True):
            if weight < 1e-4:
                continue
            start = reach + int(tap)
            window = [slice(None)] * 3
            window[axis] = slice(start, start + FINE * (count - 1) + 1, FINE)
            part = padded[tuple(window)] * np.float32(weight)
            total = part if total is None else total + part
        padded = total if total is not None else padded
    return padded


def _swath_edge(plan: Plan, place: str, day: date, size: int) -> np.ndarray | None:
    """Pixels beyond the edge of the swath in the few scenes that have one."""
    rng = stream(plan.seed, "swath", place, day)
    if rng.random() > 0.07 or (place, day) in plan.clear_scenes:
        return None
    rows, columns = np.mgrid[0:size, 0:size] / size
    lean = np.tan(np.radians(12.0))  # the ground track of a sun-synchronous orbit
    edge = rng.uniform(0.08, 0.45)
    across = columns + lean * (rows - 0.5)
    return across < edge if rng.random() < 0.5 else across > 1 - edge


def _classify(image: FloatArray, world: World, above: clouds.Sky | None) -> np.ndarray:
    """Scene classification on 20 m blocks, like the real one, a little generous around clouds."""
    red, infrared, shortwave = image[2], image[3], image[4]
    index = (infrared - red) / np.maximum(infrared + red, 1e-4)
    classes = np.where(index > 0.3, VEGETATION, BARE)
    classes[(shortwave < 0.035) & (index < 0.1)] = WATER_CLASS
    if above is not None:
        classes[above.cirrus > 0.04] = CIRRUS
        classes[ndimage.maximum_filter(above.shadow, size=3) > 0.08] = SHADOW
        near = ndimage.maximum_filter(above.cloud, size=3)
        classes[near > 0.03] = CLOUD_MEDIUM
        classes[near > 0.6] = CLOUD_HIGH
    blocks = classes[::2, ::2]
    return np.repeat(np.repeat(blocks, 2, axis=0), 2, axis=1)[: image.shape[1], : image.shape[2]].astype(np.uint16)

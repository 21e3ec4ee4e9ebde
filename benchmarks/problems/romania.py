"""Romania: five years of real Sentinel-2 dates of one square kilometre of mountain forest, and events put into it.

Dates before 2019 are for learning and calibration, later ones for tests. What really happened there after 2018 is not
known and counted as nothing, so real events count as false alarms. An event lies on the ground from one date on, in the
light of each date (`imagery.inject`).

A pixel counts when its Sentinel-2 class is vegetation, bare ground, water or unclassified, and it is more than 60 m
from what is classified as cloud or shadow: on this series the classification misses the rims of clouds. Dark ground
(class 2, slopes without sun in winter) and snow show nothing of the forest. Every method sees the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.problems.common import CHANGED, LEAST_VALID, STRIDE, TILE
from configs import load_settings
from imagery.errors import ImageryError
from imagery.inject import CannotInject, Light, apply, lay
from imagery.reading import SceneReader
from imagery.sources import find_scenes

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Scores = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TILEWATCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
MASKED_CLASSES = (0, 1, 2, 3, 8, 9, 10, 11)
DILATE = 60  # metres
TESTED = np.datetime64("2019-01-01")
FEW = 5  # clear tiles without which a date is not looked at
STRONG = ("vegetation_loss", "burn", "bare_soil")
SUBTLE = ("vegetation_thinning",)
AREA = (0.02, 0.045)  # share of the scene that an event covers: 200 to 450 pixels, 2 to 4.5 hectares
EVENTS = 3  # in each copy of the series, each in a quarter of its own
BOX = 36  # pixels: an event keeps to a box of this size within its quarter
WITHIN = 5  # clear dates after which an event is given up
GROUND = np.datetime64("2018-09-19")  # a clear date before the tests: where an event may lie is read from it


@dataclass(frozen=True)
class Series:
    """Dates of one place.

    Attributes:
        days: (T,) datetime64[D], ascending.
        values: (T, C, H, W) float32 reflectance, NaN where the pixel does not count.
        bands: Names of the C bands.
        pixel_area: Of a pixel, km².
    """

    days: NDArray[np.datetime64]
    values: Floats
    bands: tuple[str, ...]
    pixel_area: float
    valid: Bools = field(init=False, repr=False)
    clear: Bools = field(init=False, repr=False)

    def __post_init__(self) -> None:
        valid: Bools = np.asarray(np.isfinite(self.values).all(axis=1))
        object.__setattr__(self, "valid", valid)
        object.__setattr__(self, "clear", windows(valid).mean(axis=(-2, -1)) >= LEAST_VALID)

    @property
    def looked_at(self) -> NDArray[np.int64]:
        """Indices of the dates with enough clear tiles."""
        return np.flatnonzero(self.clear.sum(axis=1) >= FEW)

    @property
    def tested(self) -> Bools:
        """(T,) True from 2019 on."""
        return self.days >= TESTED

    @property
    def years(self) -> float:
        """Of the tests, from the first day of 2019 to the last date."""
        return float((self.days[-1] - TESTED).astype(int) + 1) / 365.25

    @property
    def area(self) -> float:
        """Of the place, km²."""
        return self.pixel_area * float(np.prod(self.values.shape[2:]))


@dataclass(frozen=True)
class Event:
    """Something that lies on the ground from a date on.

    Attributes:
        kind: Of `imagery.inject.KINDS`.
        start: Index of its first date.
        pixels: How many are hit by half or more.
        tiles: Indices of the tiles of which it covers more than a tenth.
        dates: Indices of the first dates on which one of these tiles is clear, at most `WITHIN`.
    """

    kind: str
    start: int
    pixels: int
    tiles: NDArray[np.int64]
    dates: NDArray[np.int64]

    @property
    def strong(self) -> bool:
        """Strong or subtle."""
        return self.kind in STRONG


@dataclass(frozen=True)
class Altered:
    """A copy of the series with events.

    Attributes:
        series: The dates.
        events: What lies on the ground.
        since: Index of the first date that differs.
        until: Index of the last date that is asked for.
    """

    series: Series
    events: tuple[Event, ...]
    since: int
    until: int


def windows(images: NDArray[np.generic]) -> NDArray[np.generic]:
    """(…, N, TILE, TILE) the tiles of (…, H, W) images, row by row; a view."""
    found = sliding_window_view(images, (TILE, TILE), axis=(-2, -1))[..., ::STRIDE, ::STRIDE, :, :]
    return found.reshape(*images.shape[:-2], -1, TILE, TILE)


def read_series(folder: Path | None = None) -> Series:
    """The series, read by the project's own reader.

    Raises:
        SystemExit: The imagery is not there.
    """
    folder = folder or SHARED / "romania_s2"
    if not folder.is_dir():
        raise SystemExit(f"no imagery in {folder}: set TILEWATCH_SHARED_DATA")
    masks = f"masks.bad_classes=[{','.join(map(str, MASKED_CLASSES))}]", f"masks.dilate={DILATE}"
    settings = load_settings(ROOT / "configs" / "romania.yaml", [f"source.root={folder}", *masks], environment={})
    days, images, grid = [], [], None
    for scene in sorted(find_scenes(settings.source).scenes, key=lambda scene: scene.acquired):
        try:
            with SceneReader(scene, settings.source, settings.masks, settings.grid, grid) as reader:
                grid = grid or reader.grid
                pixels = reader.read(Window(0, 0, grid.width, grid.height))
        except ImageryError:
            continue  # a date without any data
        days.append(np.datetime64(scene.acquired.date(), "D"))
        images.append(np.where(pixels.valid, pixels.values, np.float32(np.nan)))
    assert grid is not None
    pixel = abs(grid.transform[0] * grid.transform[4]) / 1e6
    return Series(np.array(days), np.stack(images).astype(np.float32), tuple(settings.source.bands), pixel)


def altered(series: Series, seed: int) -> Altered:
    """A copy of the series with events; as many strong as subtle ones over the seeds.

    Events start on any test date with enough dates after it. Where the ground allows none of a kind, it is left out.
    """
    draw = np.random.default_rng([seed, 5])
    values, lights = series.values.copy(), _lights(series)
    ground = int(np.flatnonzero(series.days == GROUND)[0])
    starts = [int(date) for date in series.looked_at if series.tested[date]][: -WITHIN - 1]
    events = []
    for number, quarter in enumerate(draw.permutation(4)[:EVENTS]):
        subtle = (seed + number) % 2 == 1
        kind = SUBTLE[0] if subtle else STRONG[(seed * EVENTS + number) // 2 % len(STRONG)]
        start, share, where = starts[draw.integers(len(starts))], draw.uniform(*AREA), _box(series, quarter, draw)
        try:
            footprint = lay(
                kind, series.values[ground], series.valid[ground], series.bands, seed,
                key=str(number), share=float(share), where=where, light=lights[ground],
            )  # fmt: skip
        except CannotInject:
            continue
        for date in (date for date in lights if date >= start):
            changed = apply(footprint, values[date], series.valid[date], series.bands, light=lights[date])
            values[date] = np.where(series.valid[date], changed.values, np.float32(np.nan))
        events.append(_event(series, kind, start, footprint.amount >= 0.5))
    until = max((int(event.dates[-1]) for event in events), default=0)
    since = min((event.start for event in events), default=0)
    return Altered(replace(series, values=values), tuple(events), since, until)


def _lights(series: Series) -> dict[int, Light]:
    """The light of each date of the tests, and of the date that shows the ground; none where nothing is valid."""
    found = {}
    for date in np.flatnonzero(series.tested | (series.days == GROUND)):
        try:
            found[int(date)] = Light.of(series.values[date], series.valid[date], series.bands)
        except CannotInject:
            continue
    return found


def _box(series: Series, quarter: int, draw: np.random.Generator) -> Bools:
    """(H, W) a box within a quarter of the scene, away from the others."""
    height, width = series.values.shape[2:]
    where = np.zeros((height, width), dtype=bool)
    row = (quarter // 2) * height // 2 + draw.integers(4, height // 2 - BOX - 2)
    column = (quarter % 2) * width // 2 + draw.integers(4, width // 2 - BOX - 2)
    where[row : row + BOX, column : column + BOX] = True
    return where


def _event(series: Series, kind: str, start: int, mask: Bools) -> Event:
    tiles = np.flatnonzero(windows(mask).mean(axis=(-2, -1)) > CHANGED)
    seen = [date for date in series.looked_at if date >= start and series.clear[date, tiles].any()]
    return Event(kind, start, int(mask.sum()), tiles, np.array(seen[:WITHIN]))


def pooled(heatmap: Floats, percentile: float = 90.0) -> Scores:
    """(N,) a percentile of a (H, W) map over the pixels of each tile that have a number; NaN where too few have one."""
    pixels = windows(heatmap).reshape(-1, TILE * TILE)
    count = np.isfinite(pixels).sum(axis=1)
    ranked = np.sort(pixels, axis=1)  # NaN last
    rank = np.floor(percentile / 100 * np.maximum(count - 1, 0)).astype(int)
    found = np.take_along_axis(ranked, rank[:, None], axis=1)[:, 0].astype(np.float64)
    return np.where(count >= LEAST_VALID * TILE * TILE, found, np.nan)


def clear_images(series: Series, date: int, least: float = 0.5) -> Sequence[int]:
    """Indices of the dates before one on which at least half of the place is valid, oldest first."""
    share = series.valid[:date].mean(axis=(1, 2))
    return [int(index) for index in np.flatnonzero(share >= least)]

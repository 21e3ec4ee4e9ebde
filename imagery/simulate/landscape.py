"""The ground of a location, and the tools recipes lay it out with.

Everything lives on a grid twice as fine as the pixels (about 5 m), so that roads, roofs and field edges give mixed
pixels as in a real image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import ndimage

from imagery.simulate.noise import FloatArray, fractal
from imagery.simulate.seasons import COVERS, NAMES, Parcels, codes

FINE = 2  # ground cells along one side of a pixel


@dataclass(frozen=True)
class Landscape:
    """The ground of one location; all arrays are of (cells, cells), `FINE` cells a pixel.

    Attributes:
        parcels: Properties of the pieces of ground.
        piece: Which piece each cell belongs to.
        texture: Fine brightness pattern, a factor around 1.
        patchiness: Variation of green cover within pieces, about standard normal.
        east, north: Slope of the terrain (metres a metre).
        sediment: Factor on water's brightness, around 1.
        floodplain: Height above the river's usual level, in arbitrary units; infinite where no river is near.
    """

    parcels: Parcels
    piece: np.ndarray
    texture: FloatArray
    patchiness: FloatArray
    east: FloatArray
    north: FloatArray
    sediment: FloatArray
    floodplain: FloatArray

    @property
    def cover(self) -> np.ndarray:
        """Index into `seasons.NAMES` of every cell."""
        return cast(np.ndarray, self.parcels.cover[self.piece])

    def covered_by(self, *names: str) -> np.ndarray:
        """Cells with one of the named covers."""
        return np.isin(self.parcels.cover, codes(*names))[self.piece]


class Canvas:
    """A landscape while it is being laid out: what is painted later lies on top."""

    def __init__(self, rng: np.random.Generator, cells: int) -> None:
        """Start empty, with `cells` rows and columns."""
        self.rng = rng
        self.cells = cells
        self.shape = (cells, cells)
        self.piece = np.zeros(self.shape, dtype=np.int32)
        self.covers: list[np.ndarray] = []
        self.count = 0
        self.rows, self.columns = np.mgrid[0:cells, 0:cells].astype(np.float32)

    def noise(self, largest: float, slope: float = 1.8) -> FloatArray:
        """Fractal noise of the canvas's shape."""
        return fractal(self.rng, self.shape, largest, slope)

    def paint(self, where: np.ndarray, cover: str) -> None:
        """Cover cells with one new piece."""
        self.paint_pieces(where, np.zeros(self.shape, dtype=np.int32), codes(cover))

    def paint_pieces(self, where: np.ndarray, labels: np.ndarray, covers: Sequence[int] | np.ndarray) -> None:
        """Cover cells with several pieces: `covers[label]` is the cover of each."""
        self.piece[where] = self.count + labels[where]
        self.covers.append(np.asarray(covers, dtype=np.int32))
        self.count += len(covers)

    def is_cover(self, *names: str) -> np.ndarray:
        """Cells that have one of the named covers so far."""
        return np.isin(np.concatenate(self.covers), codes(*names))[self.piece]

    def distance(self, points: np.ndarray) -> FloatArray:
        """Distance in cells of every cell to a line given as (n, 2) rows and columns, densely enough to touch."""
        away = np.ones(self.shape, dtype=bool)
        at = np.rint(points).astype(int)
        inside = ((at >= 0) & (at < self.cells)).all(axis=1)
        away[at[inside, 0], at[inside, 1]] = False
        return cast(FloatArray, ndimage.distance_transform_edt(away).astype(np.float32))

    def finish(
        self, height: FloatArray | None = None, sediment: FloatArray | None = None, floodplain: FloatArray | None = None
    ) -> Landscape:
        """Give every piece its character and every cell its texture.

        Args:
            height: Height of the terrain in metres, with cells of 5 m; None: flat.
            sediment: See `Landscape`; None: uniform water.
            floodplain: See `Landscape`; None: no river.
        """
        rng = self.rng
        used, piece = np.unique(self.piece, return_inverse=True)
        cover = np.concatenate(self.covers)[used]
        count = len(used)
        built = np.isin(cover, codes("tile roof", "grey roof", "bright roof", "asphalt", "concrete"))
        woods = np.isin(cover, codes("deciduous", "conifer"))
        water = np.isin(cover, codes("river", "lake", "sea"))
        spread = np.select([built, woods, water], [0.16, 0.07, 0.0], 0.04)
        parcels = Parcels(
            cover=cover,
            shift=rng.normal(0, 3.5, count),
            soil=np.exp(rng.normal(0, 0.13, count)),
            vigour=np.clip(rng.normal(0.98, 0.05, count), 0.75, 1.05),
            brightness=np.exp(spread * np.clip(rng.standard_normal(count), -2, 2)),
        )
        piece = piece.reshape(self.shape).astype(np.int32)
        amount = np.array([COVERS[name].texture for name in NAMES], dtype=np.float32)[cover][piece]
        crowns = 0.8 * self.noise(5, 1.2) + 0.6 * self.noise(40, 1.5)
        level = height if height is not None else np.zeros(self.shape, dtype=np.float32)
        down, right = np.gradient(level, 5.0)
        return Landscape(
            parcels=parcels,
            piece=piece,
            texture=np.clip(1 + amount * crowns, 0.5, 1.6).astype(np.float32),
            patchiness=np.clip(self.noise(60, 1.7), -2.5, 2.5),
            east=right.astype(np.float32),
            north=(-down).astype(np.float32),
            sediment=sediment if sediment is not None else np.ones(self.shape, dtype=np.float32),
            floodplain=floodplain if floodplain is not None else np.full(self.shape, np.inf, dtype=np.float32),
        )


def rotated(canvas: Canvas, angle: float) -> tuple[FloatArray, FloatArray]:
    """Coordinates of every cell along and across a direction (radians), from the canvas's centre, in cells."""
    rows, columns = canvas.rows - canvas.cells / 2, canvas.columns - canvas.cells / 2
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = -np.sin(angle) * columns + np.cos(angle) * rows
    return along.astype(np.float32), across.astype(np.float32)


def meander(rng: np.random.Generator, cells: int, swing: float, wavelength: float) -> np.ndarray:
    """A river's centre line from left to right, as (n, 2) rows and columns.

    The direction swings like a sine along the way, which is the shape of real meanders (Langbein & Leopold 1966,
    USGS Professional Paper 422-H).

    Args:
        rng: Source of the randomness.
        cells: Side of the canvas.
        swing: Largest angle to the general direction, in radians.
        wavelength: Length of the way of one full swing, in cells.
    """
    way = np.arange(0, 5.0 * cells, 0.5)
    wander = ndimage.gaussian_filter1d(rng.standard_normal(len(way)), wavelength / 2)
    phase = 2 * np.pi * way / wavelength + 2.0 * wander / wander.std() + rng.uniform(0, 2 * np.pi)
    angle = swing * np.sin(phase)
    columns = np.cumsum(0.5 * np.cos(angle)) - 0.15 * cells
    rows = np.cumsum(0.5 * np.sin(angle))
    inside = (columns > 0) & (columns < cells)
    rows += cells / 2 - np.median(rows[inside])
    return np.stack([rows, columns], axis=1)


def curve(rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float], bend: float) -> np.ndarray:
    """A smooth road between two points, as (n, 2) rows and columns; `bend` is its largest detour in cells."""
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    t = np.linspace(0, 1, int(3 * length) + 2)
    aside = sum(rng.normal(0, 0.6 / k) * np.sin(np.pi * k * t) for k in (1, 2, 3)) * bend
    normal = np.array([end[1] - start[1], start[0] - end[0]]) / max(length, 1.0)
    return np.outer(1 - t, start) + np.outer(t, end) + np.outer(aside, normal)


def split(rng: np.random.Generator, side: int, largest: float, smallest: float) -> np.ndarray:
    """Divide a square into rectangles by cutting again and again; (side, side) labels from 0."""
    labels = np.zeros((side, side), dtype=np.int32)
    waiting, done = [(0, side, 0, side)], 0
    while waiting:
        top, bottom, left, right = waiting.pop()
        tall, wide = bottom - top, right - left
        limit = largest * rng.uniform(0.6, 1.3)
        if max(tall, wide) <= limit or max(tall, wide) < 2 * smallest:
            labels[top:bottom, left:right] = done
            done += 1
        elif tall > wide:
            cut = top + int(tall * rng.uniform(0.35, 0.65))
            waiting += [(top, cut, left, right), (cut, bottom, left, right)]
        else:
            cut = left + int(wide * rng.uniform(0.35, 0.65))
            waiting += [(top, bottom, left, cut), (top, bottom, cut, right)]
    return labels

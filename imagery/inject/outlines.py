"""Where something injected lies: outlines of natural and of built shape, with soft edges of a pixel.

A shape gives a field over the pixels, lower = rather inside; the wanted area decides where it is cut. So one shape
serves a patch of twenty pixels and a third of a scene, and the area is what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from imagery.simulate.noise import FloatArray, fractal, smoothstep

FAINT = 0.1  # a smaller share of a pixel is left out: it would be marked as changed, and show nothing
HALF = 0.5  # of a pixel: from there on it counts for the area


@dataclass(frozen=True)
class Site:
    """Pixels around the centre of something.

    Attributes:
        rng: Source of the randomness.
        down: (H, W) rows from the centre.
        right: (H, W) columns from the centre.
        radius: Of a disc with the area of one patch, pixels.
        spread: Many patches all over, not one around the centre.
    """

    rng: np.random.Generator
    down: FloatArray
    right: FloatArray
    radius: float
    spread: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.down.shape[0], self.down.shape[1]

    def noise(self, largest: float, slope: float = 1.8) -> FloatArray:
        """Fractal noise over the pixels, of mean 0 and standard deviation 1."""
        return fractal(self.rng, self.shape, max(largest, 2.0), slope)

    def turned(self, angle: float) -> tuple[FloatArray, FloatArray]:
        """Distances along and across a direction, in radii."""
        along = (np.cos(angle) * self.right + np.sin(angle) * self.down) / self.radius
        across = (np.cos(angle) * self.down - np.sin(angle) * self.right) / self.radius
        return along.astype(np.float32), across.astype(np.float32)


@dataclass(frozen=True)
class Outline:
    """What a shape gives.

    Attributes:
        field: (H, W) lower = rather inside.
        cover: (H, W) share of each pixel that is covered when it lies inside.
        detail: (H, W) structure of what lies there, about 0 ± 1; what it means is the kind's.
        edge: Width in pixels over which it fades out; 0 for a field that is constant on each piece, and taken whole.
    """

    field: FloatArray
    cover: FloatArray
    detail: FloatArray
    edge: float = 1.0

    def level(self, allowed: np.ndarray, area: int) -> float:
        """Below which field value `area` of the allowed pixels lie; pieces count by the pixels they cover.

        Args:
            allowed: (H, W) bool, where it may lie.
            area: Pixels; where there are fewer, all are taken.
        """
        levels = np.sort(self.field[allowed & (self.cover >= HALF)])
        return float(levels[min(area, len(levels)) - 1]) if len(levels) else -np.inf

    def density(self, allowed: np.ndarray, valid: np.ndarray, level: float) -> float:
        """Share of the valid pixels within a level where it may lie."""
        within = valid & (self.field <= level) & (self.cover >= HALF)
        return float(allowed[within].mean()) if within.any() else 0.0

    def cut(self, allowed: np.ndarray, level: float) -> FloatArray:
        """(H, W) amount from 0 to 1: at least a half within the level, and 0 where it is not allowed."""
        if self.edge:
            inside = np.clip((level - self.field) / (self.edge * self._steepness()) + HALF, 0, 1)
        else:
            inside = (self.field <= level).astype(np.float32)
        amount = np.where(allowed, inside * self.cover, 0)
        return np.where(amount < FAINT, 0, amount).astype(np.float32)

    def _steepness(self) -> float:
        """How much the field changes from pixel to pixel."""
        rows, columns = np.gradient(self.field)
        return max(float(np.hypot(rows, columns).mean()), 1e-6)


Shape = Callable[[Site], Outline]


def blob(site: Site) -> Outline:
    """A patch of ragged outline; spread, patches of many sizes."""
    return _natural(site, stretch=1.25, ragged=0.26, slope=1.9)


def front(site: Site) -> Outline:
    """What has run before the wind: longer than wide, ragged, with islands that were spared."""
    outline = _natural(site, stretch=1.7, ragged=0.22, slope=1.7)
    islands = smoothstep(site.noise(site.radius / 2, 1.8), 1.6, 2.1)
    return Outline(outline.field, (1 - islands).astype(np.float32), outline.detail)


def basin(site: Site) -> Outline:
    """What fills a hollow: long, winding, smooth of shore."""
    if site.spread:
        return _natural(site, stretch=1, ragged=0, slope=2.6)
    along, across = site.turned(site.rng.uniform(0, np.pi))
    bent = across + 0.35 * np.sin(1.6 * along + site.rng.uniform(0, 2 * np.pi))
    field = np.hypot(0.62 * along, 1.5 * bent) + 0.16 * site.noise(site.radius, 2.2)
    return Outline(field.astype(np.float32), _full(site), site.noise(site.radius, 2.0))


def film(site: Site) -> Outline:
    """What drifts on water: a winding band, frayed at its edges."""
    if site.spread:
        return _natural(site, stretch=1, ragged=0, slope=2.4)
    along, across = site.turned(site.rng.uniform(0, np.pi))
    bent = across + 0.35 * np.sin(1.3 * along) + 0.16 * site.noise(1.5 * site.radius, 2.3)
    field = np.hypot(0.45 * along, 2.2 * bent) + 0.08 * site.noise(site.radius / 2, 1.6)
    return Outline(field.astype(np.float32), _full(site), site.noise(site.radius, 2.0))


def plot(site: Site) -> Outline:
    """What is cleared by machines: a piece of land with straight edges; spread, parcels."""
    if site.spread:
        return _parcels(site)
    along, across = site.turned(site.rng.uniform(0, np.pi))
    longer = site.rng.uniform(1.0, 1.6)
    field = np.maximum(np.abs(along) / longer, np.abs(across) * longer) + 0.03 * site.noise(site.radius, 1.8)
    corner = (along > 0.35 * longer) & (across > 0.35 / longer) & (site.rng.random() < 0.5)  # an L, as often as not
    rows = np.sin(across * site.radius * (2 * np.pi / 3.3)).astype(np.float32)
    field = np.where(corner, field + 3, field).astype(np.float32)
    return Outline(field, _full(site), (0.5 * rows + 0.9 * site.noise(6, 1.4)).astype(np.float32))


def halls(site: Site) -> Outline:
    """Buildings in rows, each with a brightness of its own in `detail`; between them the ground stays."""
    angle = site.rng.uniform(0, np.pi)
    along, across = (site.radius * away for away in site.turned(angle))
    long, wide = site.rng.uniform(5, 9), site.rng.uniform(4, 6.5)  # from one building to the next, pixels
    u, v = along + site.rng.uniform(0, long), across + site.rng.uniform(0, wide)
    block_u, block_v = np.floor(u / long).astype(int), np.floor(v / wide).astype(int)
    block_u, block_v = block_u - block_u.min(), block_v - block_v.min()
    table = (block_u.max() + 1, block_v.max() + 1)
    length = site.rng.uniform(0.5, 0.8, table)[block_u, block_v] * long
    width = site.rng.uniform(0.45, 0.75, table)[block_u, block_v] * wide
    cover = _overlap(np.mod(u, long) - long / 2, length) * _overlap(np.mod(v, wide) - wide / 2, width)
    brightness = site.rng.uniform(-1, 1, table)[block_u, block_v]
    away = np.zeros(table) if site.spread else _block_distance(table, block_u, block_v, along, across) / site.radius
    order = (away + 0.3 * site.rng.random(table))[block_u, block_v]
    return Outline(order.astype(np.float32), cover.astype(np.float32), brightness.astype(np.float32), edge=0)


def veil(site: Site) -> Outline:
    """Shreds of thin cloud: they fade out over half their size, and are thicker and thinner within."""
    outline = _natural(site, stretch=1.3, ragged=0.3, slope=1.9)
    return Outline(outline.field, outline.cover, site.noise(site.radius, 1.6), edge=max(0.8 * site.radius, 2.0))


def _natural(site: Site, stretch: float, ragged: float, slope: float) -> Outline:
    detail = site.noise(8, 1.4)
    if site.spread:
        return Outline(-site.noise(3.5 * site.radius, slope + 0.3), _full(site), detail)
    along, across = site.turned(site.rng.uniform(0, np.pi))
    away = np.hypot(along / stretch, across * stretch) + ragged * site.noise(1.5 * site.radius, slope)
    return Outline(away.astype(np.float32), _full(site), detail)


def _parcels(site: Site) -> Outline:
    """Land split among random points, parcel by parcel in the order of a broad noise: neighbours rather go together."""
    rows, columns = np.indices(site.shape)
    count = max(int(rows.size / (np.pi * site.radius**2)), 8)
    seeds = site.rng.uniform(-0.05, 1.05, (count, 2)) * site.shape
    _, owner = cKDTree(seeds).query(np.stack([rows, columns], axis=-1).reshape(-1, 2))
    owner = owner.reshape(site.shape)
    broad = site.noise(6 * site.radius, 2.0)
    mean = np.bincount(owner.ravel(), broad.ravel(), count) / np.maximum(np.bincount(owner.ravel(), minlength=count), 1)
    order = (mean + 1e-3 * site.rng.random(count))[owner]  # no two alike
    shade = site.rng.uniform(-1, 1, count)[owner]
    inner = np.stack([ndimage.minimum_filter(owner, 2), ndimage.maximum_filter(owner, 2)])
    cover = np.where(inner[0] == inner[1], 1.0, 0.6)  # tracks and margins
    detail = shade + 0.5 * site.noise(6, 1.4)
    return Outline(order.astype(np.float32), cover.astype(np.float32), detail.astype(np.float32), edge=0)


def _full(site: Site) -> FloatArray:
    return np.ones(site.shape, np.float32)


def _overlap(offset: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Share of a pixel that lies within a piece of some length around zero."""
    return np.clip(length / 2 - np.abs(offset) + 0.5, 0, 1)


def _block_distance(
    table: tuple[int, int], block_u: np.ndarray, block_v: np.ndarray, along: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """(blocks, blocks) mean distance of each block's pixels from the centre, pixels."""
    index = np.ravel_multi_index((block_u, block_v), table).ravel()
    total = np.bincount(index, np.hypot(along, across).ravel(), table[0] * table[1])
    return (total / np.maximum(np.bincount(index, minlength=table[0] * table[1]), 1)).reshape(table)

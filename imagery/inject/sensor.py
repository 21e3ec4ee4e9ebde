"""Faults of the sensor and of the processing. They need no spectrum: any bands and units will do."""

from __future__ import annotations

import numpy as np

from imagery.inject.kinds import Canvas, Floats, everywhere, register
from imagery.inject.outlines import Outline, Site

STRIPE = 0.4  # of a band's median: how far off the detectors of the worst stripe are
MOST_SHIFT = 6  # pixels


def columns(site: Site) -> Outline:
    """Every few columns, the ones that a weak detector has seen."""
    period = int(site.rng.integers(3, 9))
    column = np.arange(site.shape[1])
    struck = np.broadcast_to(column % period == site.rng.integers(period), site.shape)
    flat = np.zeros(site.shape, np.float32)
    return Outline(flat, struck.astype(np.float32), flat, edge=0)


def side(site: Site) -> Outline:
    """All rows or columns beyond a straight line, as another detector module has seen them."""
    away = [site.down, -site.down, site.right, -site.right][site.rng.integers(4)]
    full = np.ones(site.shape, np.float32)
    return Outline((away - away.min()).astype(np.float32), full, full, edge=0)


@register(
    "stripes",
    "stripes",
    "error of the weak detectors: at 1 it is 0.4 of the band's median",
    event=False,
    local=False,
    strength=0.4,
    shape=columns,
    spectral=False,
)
def stripes(canvas: Canvas) -> Floats:
    """An offset on every few columns, in all bands."""
    middle = np.median(np.abs(canvas.values[:, canvas.valid]), axis=1).astype(np.float32)
    return canvas.values + canvas.share * STRIPE * middle[:, None, None]


@register(
    "dropped_band",
    "dropped bands",
    "share of the signal that is lost in one band",
    event=False,
    local=False,
    strength=1.0,
    shape=everywhere,
    spectral=False,
)
def dropped_band(canvas: Canvas) -> Floats:
    """One band, drawn at random, has lost its signal."""
    changed = canvas.values.copy()
    changed[canvas.rng.integers(len(changed))] *= np.float32(1 - canvas.strength)
    return changed


@register(
    "misregistration",
    "misregistration",
    f"shift, as a share of {MOST_SHIFT} pixels; whole pixels, at least one",
    event=False,
    strength=0.5,
    area=0.5,
    shape=side,
    spectral=False,
)
def misregistration(canvas: Canvas) -> Floats:
    """A part of the tile lies some pixels off; where the shift brings nothing valid, it stays as it was."""
    pixels = max(round(canvas.strength * MOST_SHIFT), 1)
    angle = canvas.rng.uniform(0, 2 * np.pi)
    down, right = round(pixels * np.sin(angle)), round(pixels * np.cos(angle))
    rows, cols = (_moved(count, by) for count, by in zip(canvas.valid.shape, (down, right), strict=True))
    moved = canvas.values[:, rows[:, None], cols]
    return np.where(canvas.valid[rows[:, None], cols], moved, canvas.values)


def _moved(count: int, by: int) -> np.ndarray:
    """(count,) where each row or column comes from; beyond the tile, from its mirror image."""
    period = max(2 * count - 2, 1)
    source = np.abs(np.arange(count) - by) % period
    return np.where(source < count, source, period - source)

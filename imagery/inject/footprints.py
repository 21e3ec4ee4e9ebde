"""Find a place for something: a footprint is laid once, and then applied to as many dates as it shows on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imagery.bands import find_common
from imagery.inject.kinds import KINDS, Floats, Kind
from imagery.inject.light import CannotInject, Light
from imagery.inject.outlines import Outline, Site
from imagery.simulate.noise import stream

Mask = NDArray[np.bool_]

DENSE = 0.6  # share of the ground within one patch that must be fit for it: it is a patch, not a sprinkle
TRIES = 12  # at such a place


@dataclass(frozen=True)
class Injection:
    """What is injected: all that one needs to do it again.

    Attributes:
        kind: One of `KINDS`.
        strength: 0 to 1; `KINDS[kind].strength_is` says of what.
        area: Pixels that are hit by half or more, about.
        seed: Of all that is drawn.
        key: Of what it is injected into, so that one seed gives each tile a thing of its own.
    """

    kind: str
    strength: float
    area: int
    seed: int
    key: str = ""


@dataclass(frozen=True)
class Footprint:
    """Where something lies.

    Attributes:
        injection: What.
        amount: (H, W) float32, share of each pixel that is hit where the strength is 1; 0 elsewhere.
        detail: (H, W) float32, structure of what lies there.
    """

    injection: Injection
    amount: Floats
    detail: Floats

    @property
    def mask(self) -> Mask:
        """(H, W) bool, where it lies."""
        return self.amount > 0


def lay(
    kind: str,
    values: Floats,
    valid: Mask,
    bands: Sequence[str],
    seed: int,
    *,
    key: str = "",
    strength: float | None = None,
    share: float | None = None,
    radius: float | None = None,
    light: Light | None = None,
    where: Mask | None = None,
) -> Footprint:
    """Find a place for something.

    Args:
        kind: One of `KINDS`.
        values: (C, H, W) float32: the ground it is to lie on. For something that lasts, that of a clear day.
        valid: (H, W) bool.
        bands: Names of the bands.
        seed: Same seed and key, same shapes; the strength changes none.
        key: Of the place.
        strength: As for `inject`.
        share: Of the valid pixels, as for `inject`.
        radius: With one, many patches of about this radius in pixels, all over; without, one patch.
        light: Of the whole scene.
        where: (H, W) bool, where it may lie.

    Raises:
        CannotInject: The bands cannot show it, or there is no room for it.
        ValueError: An unknown kind, or numbers out of their range.
    """
    known = find_kind(kind)
    if not valid.any():
        raise CannotInject("no pixel of the tile is valid: nothing can be injected")
    strength = _within(known.strength if strength is None else strength, "strength")
    share = _within(known.area if share is None else share, "share") if known.local else 1.0
    allowed = _allowed(known, values, valid, bands, light)
    allowed = allowed if where is None else allowed & where
    area = max(round(share * int(valid.sum())), 1)
    if (room := int(allowed.sum())) < area:
        raise CannotInject(f"{kind} needs {area} pixels of {known.ground}, and there are {room}")
    rng = stream(seed, "inject", kind, key)
    if radius is None:
        outline, level = _dense(known, allowed, valid, area, rng)
    else:
        outline = _outline(known, allowed, radius, True, rng)
        level = outline.level(allowed, area)
    amount = outline.cut(allowed, level)
    return Footprint(Injection(kind, strength, area, seed, key), amount, outline.detail.astype(np.float32))


def find_kind(kind: str) -> Kind:
    """A kind by its name.

    Raises:
        ValueError: There is none.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: there are {', '.join(KINDS)}")
    return KINDS[kind]


def light_for(kind: Kind, values: Floats, valid: Mask, bands: Sequence[str], light: Light | None) -> Light | None:
    """The light that a kind is seen in: the given one, else that of the values; None for kinds without a spectrum.

    Raises:
        CannotInject: The bands cannot show the kind, or the values are no reflectances.
    """
    missing = [name for name in kind.needs if name not in find_common(bands)]
    if missing:
        raise CannotInject(f"{kind.name} does not show without the bands {', '.join(missing)}; there are {list(bands)}")
    if not kind.spectral:
        return None
    return Light.of(values, valid, bands) if light is None else light


def _within(number: float, what: str) -> float:
    if not 0 < number <= 1:
        raise ValueError(f"the {what} must be above 0 and at most 1, not {number}")
    return float(number)


def _allowed(kind: Kind, values: Floats, valid: Mask, bands: Sequence[str], light: Light | None) -> Mask:
    light = light_for(kind, values, valid, bands, light)
    if light is None or kind.suited is None:
        return valid
    return valid & kind.suited(light.ground(values))


def _dense(kind: Kind, allowed: Mask, valid: Mask, area: int, rng: np.random.Generator) -> tuple[Outline, float]:
    """One patch, and the level that it is cut at: it is turned and moved until it lies on ground that is fit for it."""
    densities = []
    for _ in range(TRIES):
        outline = _outline(kind, allowed, float(np.sqrt(area / np.pi)), False, rng)
        level = outline.level(allowed, area)
        densities.append(outline.density(allowed, valid, level))
        if densities[-1] >= DENSE:
            return outline, level
    raise CannotInject(
        f"{kind.name} needs {area} pixels of {kind.ground} in one piece: {max(densities):.0%} is at best"
    )


def _outline(kind: Kind, allowed: Mask, radius: float, spread: bool, rng: np.random.Generator) -> Outline:
    row, column = _centre(allowed, radius, rng)
    height, width = allowed.shape
    rows, columns = np.mgrid[-row : height - row, -column : width - column].astype(np.float32)
    return kind.shape(Site(rng, rows, columns, radius, spread))


def _centre(allowed: Mask, radius: float, rng: np.random.Generator) -> tuple[int, int]:
    """A pixel with as much ground around it as there is anywhere."""
    around = ndimage.gaussian_filter(allowed.astype(np.float32), 0.7 * radius, mode="constant")
    choices = np.argwhere(allowed & (around >= np.quantile(around[allowed], 0.9)))
    row, column = choices[rng.integers(len(choices))]
    return int(row), int(column)

"""The kinds of things that can be injected: one registry.

A new kind is one function that changes pixels and one `register` before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imagery.inject.light import Ground, Light
from imagery.inject.outlines import Outline, Shape, Site, blob

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Canvas:
    """What a kind changes.

    Attributes:
        values: (C, H, W) as they were, physical units; 0 where not valid.
        valid: (H, W) bool.
        amount: (H, W) share of each pixel that is hit where the strength is 1.
        detail: (H, W) structure of what lies there, about 0 ± 1.
        strength: 0 to 1.
        rng: Draws what belongs to the injection as a whole, the same on every date.
        light: The scene's light; for kinds with a spectrum only.
        donor: (C, H, W) of another place, for patches only; NaN where it has nothing.
    """

    values: Floats
    valid: NDArray[np.bool_]
    amount: Floats
    detail: Floats
    strength: float
    rng: np.random.Generator
    lit: Light | None = None
    donor: Floats | None = None

    @property
    def light(self) -> Light:
        """The scene's light.

        Raises:
            TypeError: A kind that was registered without `needs`.
        """
        if self.lit is None:
            raise TypeError("a kind that uses the scene's light must be registered with the bands it needs")
        return self.lit

    @property
    def share(self) -> Floats:
        """(H, W) share of each pixel that is replaced."""
        return np.float32(self.strength) * self.amount

    def mixed(self, target: Floats, share: Floats | None = None) -> Floats:
        """(C, H, W) with a share of each pixel replaced; bands that do not see the ground stay.

        Args:
            target: (C, H, W), or (C,) for the same everywhere.
            share: (H, W); by default `share` of the canvas.
        """
        share = self.share if share is None else share
        target = target[:, None, None] if target.ndim == 1 else target
        return self.values + share * self.light.seen[:, None, None] * (target - self.values)


Change = Callable[[Canvas], Floats]
Suited = Callable[[Ground], NDArray[np.bool_]]


@dataclass(frozen=True)
class Kind:
    """A kind of thing that can be injected.

    Attributes:
        name: In settings, tables and messages.
        what: In the plural, as in "this detector would miss floods".
        change: Gives the changed values (C, H, W); only those where the footprint lies are used.
        event: Something on the ground, which a detector is there to find; else weather, or a fault of the data.
        local: Hits a part of the tile; else all of it.
        strength_is: What a strength of 0 to 1 means.
        strength: By default.
        area: Share of a tile's pixels, by default.
        shape: Its outline.
        spectral: It has a spectrum: it needs reflectances, and bands whose wavelengths are known.
        needs: Common names (`imagery.bands.NAMES`) of bands without which it cannot be shown.
        suited: Where it may lie; None for everywhere.
        ground: What that is, for messages.
    """

    name: str
    what: str
    change: Change
    event: bool
    local: bool
    strength_is: str
    strength: float
    area: float
    shape: Shape
    spectral: bool
    needs: Collection[str] = field(default_factory=tuple)
    suited: Suited | None = None
    ground: str = "ground"


KINDS: dict[str, Kind] = {}


def everywhere(site: Site) -> Outline:
    """All of the tile, with a broad structure."""
    flat = np.zeros(site.shape, np.float32)
    return Outline(flat, flat + 1, site.noise(2 * max(site.shape), 2.2), edge=0)


def register(
    name: str,
    what: str,
    strength_is: str,
    *,
    event: bool = True,
    local: bool = True,
    strength: float = 0.8,
    area: float = 0.15,
    shape: Shape = blob,
    spectral: bool = True,
    needs: Collection[str] = (),
    suited: Suited | None = None,
    ground: str = "ground",
) -> Callable[[Change], Change]:
    """Register the function below as the change of a kind. For the arguments see `Kind`."""

    def add(change: Change) -> Change:
        KINDS[name] = Kind(
            name, what, change, event, local, strength_is, strength, area, shape, spectral, tuple(needs), suited, ground
        )
        return change

    return add

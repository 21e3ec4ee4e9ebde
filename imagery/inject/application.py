"""Put something into a tile or a scene, where its footprint lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagery.inject.footprints import Footprint, Injection, Mask, find_kind, lay, light_for
from imagery.inject.kinds import KINDS, Canvas, Floats
from imagery.inject.light import Light
from imagery.simulate.noise import stream


@dataclass(frozen=True)
class Injected:
    """A changed tile or scene.

    Attributes:
        values: (C, H, W) float32, as given beyond the mask.
        mask: (H, W) bool, pixels whose numbers have changed; all of them are valid.
        footprint: Where it lies, and what it is.
    """

    values: Floats
    mask: Mask
    footprint: Footprint

    @property
    def injection(self) -> Injection:
        """What was injected."""
        return self.footprint.injection


def inject(
    values: Floats,
    valid: Mask,
    bands: Sequence[str],
    kind: str,
    seed: int,
    *,
    key: str = "",
    strength: float | None = None,
    share: float | None = None,
    donor: Floats | None = None,
    light: Light | None = None,
    where: Mask | None = None,
) -> Injected:
    """Inject one thing into a tile.

    Args:
        values: (C, H, W) float32, physical units: reflectance for kinds with a spectrum, anything for the others. It is
            not changed.
        valid: (H, W) bool; other pixels are left as they are.
        bands: Names of the bands.
        kind: One of `KINDS`.
        seed: Same seed and key, same shapes.
        key: Of the tile, e.g. its id and date.
        strength: Above 0 to 1; None is that of the kind.
        share: Of the valid pixels that are hit; None is that of the kind. Not used by kinds that hit the whole tile.
        donor: (C, H, W) of another place in the same units, for a patch.
        light: Of the whole scene, where there is more of it than this tile.
        where: (H, W) bool, where it may lie.

    Returns:
        The changed tile.

    Raises:
        CannotInject: The bands cannot show it, or there is no room for it: leave the tile out.
        ValueError: An unknown kind, or numbers out of their range.

    Example:
        >>> burned = inject(values, valid, ("B02", "B03", "B04", "B08"), "burn", seed=0, key="there-r0-c0")
        >>> burned.values[:, burned.mask]
    """
    footprint = lay(kind, values, valid, bands, seed, key=key, strength=strength, share=share, light=light, where=where)
    return apply(footprint, values, valid, bands, donor=donor, light=light)


def inject_scene(
    values: Floats,
    valid: Mask,
    bands: Sequence[str],
    kind: str,
    seed: int,
    share: float,
    *,
    key: str = "",
    strength: float | None = None,
    radius: float = 10.0,
    light: Light | None = None,
    where: Mask | None = None,
) -> Injected:
    """Turn a share of a scene, in many patches of all sizes.

    Args:
        values: (C, H, W) float32, as for `inject`.
        valid: (H, W) bool.
        bands: Names of the bands.
        kind: One of `KINDS` that hits a part of a tile, and needs no donor.
        seed: Same seed and key, same shapes. A greater share holds a smaller one of the same seed.
        share: Of the valid pixels that are hit by half or more.
        key: Of the scene.
        strength: As for `inject`.
        radius: Of a typical patch, pixels.
        light: Of the scene, when more of it is known.
        where: (H, W) bool, where it may lie.

    Raises:
        CannotInject: The bands cannot show it, or there is too little ground for it.
        ValueError: An unknown kind, one that hits the whole tile, or numbers out of their range.
    """
    if not find_kind(kind).local:
        raise ValueError(f"{kind} has no share: it hits all of a tile")
    footprint = lay(
        kind, values, valid, bands, seed,
        key=key, strength=strength, share=share, radius=radius, light=light, where=where,
    )  # fmt: skip
    return apply(footprint, values, valid, bands, light=light)


def apply(
    footprint: Footprint,
    values: Floats,
    valid: Mask,
    bands: Sequence[str],
    *,
    donor: Floats | None = None,
    light: Light | None = None,
) -> Injected:
    """Change the pixels of a footprint, on any day.

    Ground is brought into the light of that day. Snow and cloud hide what lies under them.

    Args:
        footprint: Where, and what.
        values: (C, H, W) float32 of the same pixels; not changed.
        valid: (H, W) bool.
        bands: Names of the bands.
        donor: (C, H, W) of another place, for a patch.
        light: Of the whole scene that day.

    Raises:
        CannotInject: The bands cannot show it, or no pixel is valid.
        ValueError: Another shape than the footprint's.
    """
    if values.shape[1:] != footprint.amount.shape or valid.shape != footprint.amount.shape:
        raise ValueError(f"the footprint is of {footprint.amount.shape} pixels, and the values of {values.shape[1:]}")
    if donor is not None and donor.shape != values.shape:
        raise ValueError(f"the donor is of shape {donor.shape}, and the values of {values.shape}")
    injection = footprint.injection
    known = KINDS[injection.kind]
    light = light_for(known, values, valid, bands, light)
    amount = np.where(valid, footprint.amount, 0).astype(np.float32)
    if light is not None and known.event:
        amount[light.ground(values).bright] = 0
    before = np.where(valid, values, 0).astype(np.float32)
    rng = stream(injection.seed, "change", injection.kind, injection.key)
    canvas = Canvas(before, valid, amount, footprint.detail, injection.strength, rng, light, donor)
    after = known.change(canvas)
    mask = (amount > 0) & (after != before).any(axis=0)
    changed = values.astype(np.float32)
    changed[:, mask] = after[:, mask]
    return Injected(changed, mask, footprint)

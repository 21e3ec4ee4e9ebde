"""What happens on the ground. Pixels are mixtures: what is lost of the old cover is replaced by a new one."""

from __future__ import annotations

import numpy as np

from imagery.inject.kinds import Canvas, Floats, register
from imagery.inject.light import CannotInject, shading
from imagery.inject.outlines import basin, blob, film, front, halls, plot
from imagery.spectra import CHARCOAL, CUT_SOIL, DRY_SOIL, FILM_LOSS, FILM_SHEEN, MUD_WATER, ROOF, at

PLANTS = ("red", "nir")


@register("patch", "patches of other places", "share of the other place in the mixture", strength=1.0, spectral=False)
def patch(canvas: Canvas) -> Floats:
    """Another place shows here: whatever a new thing looks like, it looks like some place."""
    if canvas.donor is None:
        raise CannotInject("a patch needs a donor: the values of another tile")
    usable = np.isfinite(canvas.donor).all(axis=0)
    share = (canvas.share * usable).astype(np.float32)
    return canvas.values + share * (np.nan_to_num(canvas.donor) - canvas.values)


@register(
    "burn",
    "burns",
    "severity: share of the plant cover that turned to char and ash",
    strength=0.85,
    shape=front,
    needs=PLANTS,
    suited=lambda ground: ground.green,
    ground="green ground",
)
def burn(canvas: Canvas) -> Floats:
    """Char takes the place of plants: dark, least in the near infrared."""
    return canvas.mixed(canvas.light.under(CHARCOAL)[:, None, None] * _texture(canvas, 0.10))


@register(
    "flood",
    "floods",
    "share of the ground under water; the rest stands out of it",
    strength=0.9,
    area=0.2,
    shape=basin,
    needs=("green", "nir"),
    suited=lambda ground: ~ground.water & ~ground.bright,
    ground="land",
)
def flood(canvas: Canvas) -> Floats:
    """Turbid water lies over the land: bright in the green, dark in the infrared, and smooth."""
    mud = np.clip(1 + 0.12 * canvas.detail, 0.7, 1.3)
    return canvas.mixed(canvas.light.under(MUD_WATER)[:, None, None] * mud)


@register(
    "bright_objects",
    "new bright roofs",
    "share of a roof's own pixels that is roof",
    strength=1.0,
    area=0.04,
    shape=halls,
    needs=("red",),
    suited=lambda ground: ~ground.water & (ground.visible < 0.18),
    ground="land darker than a roof",
)
def bright_objects(canvas: Canvas) -> Floats:
    """Roofs of metal and light concrete, each of its own brightness."""
    return canvas.mixed(canvas.light.under(ROOF)[:, None, None] * (1 + 0.3 * canvas.detail))


@register(
    "bare_soil",
    "new bare ground",
    "share of the old cover that was cleared",
    strength=0.9,
    shape=plot,
    needs=("red",),
    suited=lambda ground: ~ground.water & ~ground.bright & (ground.visible < 0.13),
    ground="land darker than soil",
)
def bare_soil(canvas: Canvas) -> Floats:
    """Ground stripped by machines, of a soil between moist and dry."""
    dry = canvas.rng.uniform(0.25, 1.0)
    soil = (1 - dry) * canvas.light.under(CUT_SOIL) + dry * canvas.light.under(DRY_SOIL)
    return canvas.mixed(soil[:, None, None] * np.clip(1 + 0.08 * canvas.detail, 0.75, 1.25))


def _loss(canvas: Canvas) -> Floats:
    """What lies bare in the scene shows where plants were: less near infrared, more red."""
    return canvas.mixed(canvas.light.soil[:, None, None] * _texture(canvas, 0.06))


for _name, _what, _strength in (
    ("vegetation_loss", "losses of vegetation", 0.8),
    ("vegetation_thinning", "thinned or ailing vegetation", 0.3),
):
    register(
        _name,
        _what,
        "share of the plant cover that is gone",
        strength=_strength,
        area=0.2,
        shape=blob,
        needs=PLANTS,
        suited=lambda ground: ground.green,
        ground="green ground",
    )(_loss)


@register(
    "slick",
    "slicks on water",
    "thickness of the film, from a trace to an emulsion",
    strength=0.9,
    shape=film,
    needs=("green", "nir"),
    suited=lambda ground: ground.water,
    ground="open water",
)
def slick(canvas: Canvas) -> Floats:
    """A film smooths the waves: less light from the surface, and the sheen of an emulsion in the infrared."""
    light = canvas.light
    loss, sheen = (at(spectrum, light.wavelengths)[:, None, None] for spectrum in (FILM_LOSS, FILM_SHEEN))
    path = light.path[:, None, None]
    water = np.maximum(canvas.values - path, 0)
    thickness = canvas.share * np.clip(0.85 + 0.15 * canvas.detail, 0.5, 1)
    return canvas.values + thickness * light.seen[:, None, None] * (sheen - loss * water)


def _texture(canvas: Canvas, own: float) -> Floats:
    """(H, W) factor on a spectrum: the shade of the relief stays, and what is new has a grain of its own."""
    return shading(canvas.values, canvas.valid) * np.clip(1 + own * canvas.detail, 0.6, 1.4)

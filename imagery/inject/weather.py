"""What lies between the ground and the sensor, or on the ground for a while: what masks have missed."""

from __future__ import annotations

import numpy as np

from imagery.inject.kinds import Canvas, Floats, everywhere, register
from imagery.inject.outlines import blob, veil
from imagery.spectra import CLOUD, OLD_SNOW

HAZE = 0.12  # reflectance that the thickest haze adds at 490 nm
ANGSTROM = 1.5  # haze scatters as wavelength ** -1.5 (Ångström exponent of fine aerosol)


@register(
    "haze",
    "haze",
    "optical thickness: at 1 it adds 0.12 to the reflectance in the blue",
    event=False,
    local=False,
    strength=0.5,
    shape=everywhere,
    needs=("red",),
)
def haze(canvas: Canvas) -> Floats:
    """Light scattered by fine aerosol over all of the tile: most in the blue, hardly any in the short-wave infrared."""
    light = canvas.light
    added = HAZE * (np.array(light.wavelengths, np.float32) / 490) ** -ANGSTROM * light.seen
    uneven = np.clip(1 + 0.15 * canvas.detail, 0.5, 1.5)
    return canvas.values + canvas.share * uneven * added[:, None, None].astype(np.float32)


@register(
    "cloud_remnant",
    "shreds of cloud",
    "share of the light that comes from the cloud where it is thickest",
    event=False,
    strength=0.6,
    area=0.2,
    shape=veil,
    needs=("red",),
    suited=lambda ground: ~ground.bright,
    ground="ground darker than a cloud",
)
def cloud_remnant(canvas: Canvas) -> Floats:
    """Thin cloud over the ground, which still shows through."""
    uneven = np.clip(0.8 + 0.2 * canvas.detail, 0.2, 1)
    return canvas.mixed(canvas.light.under(CLOUD), canvas.share * uneven)


@register(
    "snow_remnant",
    "remnants of snow",
    "share of the ground that the snow covers",
    event=False,
    strength=0.8,
    shape=blob,
    needs=("red",),
    suited=lambda ground: ~ground.water & ~ground.bright,
    ground="land without snow",
)
def snow_remnant(canvas: Canvas) -> Floats:
    """Old snow: bright up to the near infrared, dark beyond."""
    patchy = np.clip(0.85 + 0.2 * canvas.detail, 0.3, 1)
    return canvas.mixed(canvas.light.under(OLD_SNOW), canvas.share * patchy)

"""Seeded random streams and the fractal noise that landscapes, clouds and water are textured with."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import fft

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def stream(seed: int, *names: object) -> np.random.Generator:
    """A random generator of its own for every purpose, so that one draw more here changes nothing there.

    Args:
        seed: Seed of the whole simulation.
        names: What the numbers are for, e.g. `"cloud", location, day`.
    """
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def fractal(rng: np.random.Generator, shape: tuple[int, int], largest: float, slope: float = 1.8) -> FloatArray:
    """Isotropic noise with a power-law spectrum, of mean 0 and standard deviation 1.

    Args:
        rng: Source of the randomness.
        shape: Rows and columns.
        largest: Wavelength in pixels above which the spectrum is flat: the size of the largest features.
        slope: Amplitude falls as frequency ** -slope: 1 is rough, 3 is smooth.

    Returns:
        Float32 of (rows, columns). It is periodic: opposite edges fit together.
    """
    rows = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    amplitude = (rows**2 + columns**2 + np.float32(1 / largest**2)) ** np.float32(-slope / 2)
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * amplitude
    spectrum[0, 0] = 0
    field = fft.irfft2(spectrum, s=shape)
    return (field / field.std()).astype(np.float32)


def smoothstep(values: FloatArray, low: float, high: float) -> FloatArray:
    """0 below `low`, 1 above `high`, and a smooth ramp between."""
    ramp = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)

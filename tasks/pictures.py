"""Arrays to pictures: true colour, false colour and heatmaps, as exact bytes.

Images are uint8 arrays of shape (H, W, 3), row 0 in the north. A masked pixel is hatched in two greys, whatever
number lies beneath it, so that nobody mistakes missing data for ground.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil, isfinite

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from imagery.bands import find_common

Limits = Mapping[str, tuple[float, float]]

HATCH = np.array([(150, 154, 158), (182, 186, 190)], dtype=np.uint8)
HATCH_WIDTH = 3

# Two hatch greys and these fit in the 256 colours of a palette PNG, a third of the size of a true-colour one.
HEAT_LEVELS = 254

# What lies beyond the visible, the most telling first.
BEYOND = ("nir", "swir16", "swir22")
QUALITIES = (90, 80, 70, 55)  # of JPEG, best first
FULL_COLOUR = 80  # quality from which on colour is as sharp as brightness
MOST_SHRUNK = 1.25  # times: ground that is kept exactly has about as many characters as bytes
SMALLEST = 16  # pixels


def default_rgb(bands: Sequence[str]) -> tuple[str, str, str]:
    """Choose the bands shown as red, green and blue: by name, else the first three, else the first one in grey."""
    if not bands:
        raise ValueError("there is no band to show")
    known = find_common(bands)
    if {"red", "green", "blue"} <= known.keys():
        return known["red"], known["green"], known["blue"]
    if len(bands) >= 3:
        return bands[0], bands[1], bands[2]
    return bands[0], bands[0], bands[0]


def default_false_colour(bands: Sequence[str]) -> tuple[str, str, str] | None:
    """Choose the bands of a picture that shows what eyes do not see: near infrared, red and green where there are.

    Without near infrared it is the shortest infrared there is, and without any the first band that the picture in true
    colour does not show. None when that one shows every band.
    """
    known, rgb = find_common(bands), default_rgb(bands)
    invisible = [known[name] for name in BEYOND if name in known] + list(bands)
    beyond = next((band for band in invisible if band not in rgb), None)
    return None if beyond is None else (beyond, rgb[0], rgb[1])


def stretch_limits(
    values: NDArray[np.floating],
    bands: Sequence[str],
    valid: NDArray[np.bool_],
    percentiles: tuple[float, float] = (2, 98),
    max_pixels: int = 1_000_000,
) -> dict[str, tuple[float, float]]:
    """Find the values of each band that are shown as darkest and brightest.

    Args:
        values: (C, H, W), physical values.
        bands: Names of the C bands.
        valid: (H, W); other pixels do not count, nor do numbers that are not finite.
        percentiles: The two percentiles (0 to 100) to take.
        max_pixels: About how many pixels a band are looked at; more are thinned evenly.

    Returns:
        Low < high for each band: (0, 1) for a band without a valid pixel.
    """
    _check_stack(values, bands, valid)
    limits = {}
    for band, layer in zip(bands, values, strict=True):
        sample = layer[valid & np.isfinite(layer)]
        sample = sample[:: max(1, sample.size // max_pixels)]
        if sample.size == 0:
            limits[band] = (0.0, 1.0)
            continue
        low, high = (float(limit) for limit in np.percentile(sample.astype(np.float64), percentiles))
        # A band of one single value is shown in mid grey instead of dividing by zero.
        room = max(abs(low), 1e-6) * 0.01
        limits[band] = (low, high) if high > low else (low - room, low + room)
    return limits


def rgb_image(
    values: NDArray[np.floating],
    bands: Sequence[str],
    rgb: tuple[str, str, str],
    limits: Limits,
    valid: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Draw three bands as a colour picture.

    Args:
        values: (C, H, W), physical values.
        bands: Names of the C bands.
        rgb: Names of the bands shown as red, green and blue.
        limits: For each band the values shown as darkest and brightest; see `stretch_limits`.
        valid: (H, W); other pixels are hatched, as are those with a number that is not finite.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: A band of `rgb` is not among `bands` or has no limits, or the shapes do not fit.
    """
    _check_stack(values, bands, valid)
    channels = []
    shown = valid
    for name in rgb:
        if name not in bands:
            raise ValueError(f"band {name!r} cannot be shown: the bands are {', '.join(bands)}; change report.rgb")
        if name not in limits:
            raise ValueError(f"band {name!r} has no stretch limits: there are limits for {', '.join(limits)}")
        layer = values[list(bands).index(name)]
        channels.append(_unit_range(layer, *limits[name]))
        shown = shown & np.isfinite(layer)
    image = np.rint(np.stack(channels, axis=-1) * 255).astype(np.uint8)
    return np.where(shown[..., None], image, hatch(*shown.shape))


def heat_image(heatmap: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Draw a heatmap in a perceptually uniform ramp that colour-blind people can read (matplotlib's inferno).

    Args:
        heatmap: (H, W), higher = more anomalous; masked pixels are NaN, and are hatched.
        low: The number shown darkest.
        high: The number shown brightest; with `high <= low` everything is darkest.

    Returns:
        uint8 (H, W, 3).
    """
    level = np.rint(_unit_range(heatmap, low, high) * (HEAT_LEVELS - 1)).astype(np.intp)
    return np.where(np.isnan(heatmap)[..., None], hatch(*heatmap.shape), _heat_colours()[level])


def heat_ramp(steps: int) -> tuple[str, ...]:
    """Give `steps` evenly spaced colours (#rrggbb) of the heatmap's ramp, dark to bright, for a legend."""
    chosen = _heat_colours()[np.linspace(0, HEAT_LEVELS - 1, steps).round().astype(int)]
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in chosen.tolist())


def overlay(
    image: NDArray[np.uint8], heatmap: NDArray[np.floating], low: float, high: float, strength: float = 0.85
) -> NDArray[np.uint8]:
    """Lay a heatmap over a picture: grey ground where all is as expected, coloured where it is not.

    Args:
        image: uint8 (H, W, 3).
        heatmap: (H, W); where it is NaN the picture stays as it is.
        low: The number that leaves the ground visible.
        high: The number that covers it most.
        strength: How much of the ground is covered at most, 0 to 1.

    Returns:
        uint8 (H, W, 3).
    """
    if image.shape[:2] != heatmap.shape:
        raise ValueError(f"the picture is {image.shape[:2]} pixels and the heatmap {heatmap.shape}: they must be alike")
    grey = (image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))[..., None]
    cover = strength * _unit_range(heatmap, low, high)[..., None]
    mixed = np.rint((1 - cover) * grey + cover * heat_image(heatmap, low, high)).astype(np.uint8)
    return np.where(np.isnan(heatmap)[..., None], image, mixed)


def shrink(
    values: NDArray[np.floating], valid: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average blocks of valid pixels until the longer side is at most `side` pixels; see `shrink_by`."""
    return shrink_by(ceil(max(valid.shape) / side), values, valid)


def shrink_by(
    factor: int, values: NDArray[np.floating], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average blocks of `factor` by `factor` valid pixels.

    Args:
        factor: Side of a block, pixels.
        values: (..., H, W).
        valid: (H, W); other pixels count in no average, nor do numbers that are not finite.

    Returns:
        float32 (..., h, w) with NaN where a block holds no number, and bool (h, w): half of the block is valid.
    """
    height, width = valid.shape
    # The last block of a row or column may stick out; what sticks out is not valid.
    padding = ((0, -height % factor), (0, -width % factor))
    valid_padded = np.pad(valid, padding)
    usable = np.isfinite(values) & valid
    numbers = np.pad(np.where(usable, values, 0), [(0, 0)] * (values.ndim - 2) + list(padding))
    usable = np.pad(usable, [(0, 0)] * (values.ndim - 2) + list(padding))
    blocks = (valid_padded.shape[0] // factor, factor, valid_padded.shape[1] // factor, factor)
    count = usable.reshape(*values.shape[:-2], *blocks).sum(axis=(-3, -1))
    total = numbers.reshape(*values.shape[:-2], *blocks).sum(axis=(-3, -1), dtype=np.float64)
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    pixels = np.pad(np.ones_like(valid), padding).reshape(blocks).sum(axis=(1, 3))
    return mean.astype(np.float32), valid_padded.reshape(blocks).sum(axis=(1, 3)) * 2 >= pixels


def enlarge(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Repeat every pixel `factor` times in both directions."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def png_data_uri(image: NDArray[np.uint8], scale: int = 1) -> str:
    """Encode a picture without loss as a `data:` URI; the same picture gives the same text.

    Args:
        image: uint8 (H, W, 3).
        scale: Every pixel is repeated so often; browsers can do that as well, and the page is smaller.
    """
    large = enlarge(image, scale)
    picture = Image.fromarray(large)
    codes, index = np.unique(large.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_inverse=True)
    if len(codes) <= 256:
        colours = (codes[:, None] >> np.array([16, 8, 0], np.uint32)) & 255
        picture = Image.fromarray(index.reshape(large.shape[:2]).astype(np.uint8)).convert("P")
        picture.putpalette(colours.astype(np.uint8).tobytes())
    return _data_uri(picture, "png", optimize=True)


def jpeg_data_uri(image: NDArray[np.uint8], quality: int = 85) -> str:
    """Encode a large picture, uint8 (H, W, 3), with a little loss as a `data:` URI, always the same."""
    return _data_uri(Image.fromarray(image), "jpeg", quality=quality, subsampling=0)


def fitted_data_uri(image: NDArray[np.uint8], most: int) -> str:
    """Encode a picture so that its text has at most `most` characters: as well as that allows, and always the same.

    Without loss if that fits, else as JPEG, coarser and then smaller until it does, or is 16 pixels wide.

    Args:
        image: uint8 (H, W, 3).
        most: Characters of the `data:` URI.
    """
    if image.size <= MOST_SHRUNK * most:  # trying takes long
        exact = png_data_uri(image)
        if len(exact) <= most:
            return exact
    picture = Image.fromarray(image)
    while True:
        for quality in QUALITIES:
            uri = _data_uri(picture, "jpeg", quality=quality, subsampling=0 if quality >= FULL_COLOUR else 2)
            if len(uri) <= most:
                return uri
        if min(picture.size) < 2 * SMALLEST:
            return uri
        picture = picture.reduce(2)


def hatch(height: int, width: int) -> NDArray[np.uint8]:
    """Draw diagonal stripes in two greys, uint8 (H, W, 3)."""
    rows, columns = np.indices((height, width), sparse=True)
    return HATCH[(rows + columns) // HATCH_WIDTH % 2]


def _data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _unit_range(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.float64]:
    """Map low..high to 0..1, clipped; what is not a number becomes 0."""
    if not (isfinite(low) and isfinite(high)):
        raise ValueError(f"the limits of a picture must be finite numbers, not {low} and {high}")
    finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=max(low, high), neginf=low)
    return np.clip((finite - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)


def _check_stack(values: NDArray[np.floating], bands: Sequence[str], valid: NDArray[np.bool_]) -> None:
    if values.ndim != 3 or values.shape != (len(bands), *valid.shape):
        raise ValueError(
            f"the values have shape {values.shape}, which does not fit {len(bands)} bands of {valid.shape} pixels"
        )


@cache
def _heat_colours() -> NDArray[np.uint8]:
    ramp = colormaps["inferno"](np.linspace(0, 1, HEAT_LEVELS))[:, :3]
    colours: NDArray[np.uint8] = np.rint(ramp * 255).astype(np.uint8)
    colours.setflags(write=False)
    return colours

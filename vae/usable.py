"""Which arrays fit, which pixels of a tile can be used, which tiles are scored, and which compared with their past."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vae.errors import ShapeError
from vae.tile_scores import PastTiles


def check_shapes(
    values: np.ndarray, valid: np.ndarray, past: PastTiles | None, bands: Sequence[str], side: int
) -> None:
    """Refuse tiles that do not fit the bands and the side of a detector's, or a past that does not fit the tiles.

    Raises:
        ShapeError: Which does not, and what it should be.
    """
    images, masks = (len(values), len(bands), side, side), (len(values), side, side)
    if values.shape != images or valid.shape != masks:
        raise ShapeError(
            f"the detector takes values (N, {len(bands)}, {side}, {side}) of bands {', '.join(bands)} "
            f"and valid (N, {side}, {side}), got {values.shape} and {valid.shape}"
        )
    if past is None:
        return
    given = {
        "values": (past.values, images),
        "valid": (past.valid, masks),
        "witness": (past.witness, images),
        "witness_expected": (past.witness_expected, images),
        "witness_valid": (past.witness_valid, masks),
    }
    for name, (array, shape) in given.items():
        if array is not None and array.shape != shape:
            raise ShapeError(f"the past of these tiles must have {name} {shape}, got {array.shape}")


def usable_pixels(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(N, H, W) bool: valid, and finite in every band; tiles (N, C, H, W) are looked at one by one."""
    usable = np.array(valid, dtype=bool)
    for mask, tile in zip(usable, values, strict=True):
        mask &= np.isfinite(tile).all(axis=0)
    return usable


def shares_and_reasons(
    usable: np.ndarray, area: np.ndarray | None, needed: float
) -> tuple[np.ndarray, list[str | None]]:
    """Share of usable pixels of each tile, and why it gets no score.

    Args:
        usable: (N, H, W) bool.
        area: (N,) pixels of each tile's own window; None for H·W.
        needed: Least share of a tile with a score.

    Raises:
        ShapeError: Areas that are not one positive number a tile.
    """
    tiles, height, width = usable.shape
    pixels = np.full(tiles, height * width) if area is None else np.asarray(area)
    if pixels.shape != (tiles,) or not (pixels >= 1).all():
        raise ShapeError(
            f"area must give the pixels of each of the {tiles} tiles, at least 1, got shape {pixels.shape}"
            + (f" with a smallest of {pixels.min()}" if pixels.size else "")
        )
    counts = np.count_nonzero(usable, axis=(1, 2))
    shares = counts / pixels
    return shares, [
        None
        if count and share >= needed
        else f"{int(100 * share)} % of the tile is usable, {round(100 * needed)} % needed"
        if count
        else "nothing of the tile is usable"
        for count, share in zip(counts, shares, strict=True)
    ]


def remembered(usable: np.ndarray, known: np.ndarray, needed: float) -> np.ndarray:
    """(N,) bool: the past shows at least this share of a tile's usable pixels, and at least one.

    Args:
        usable: (N, H, W) bool, of the tiles.
        known: (N, H, W) bool, of their past.
        needed: Least share.
    """
    counts, both = (np.count_nonzero(mask, axis=(1, 2)) for mask in (usable, usable & known))
    found: np.ndarray = (both > 0) & (both >= needed * counts)
    return found

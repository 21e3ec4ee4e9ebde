"""What the past lets expect of an image in memory: `imagery.expected` without files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.problems.common import Bools, Floats
from configs.schema import AlignmentSettings, NormaliseSettings
from imagery.alignment import Alignment, align_pixels
from imagery.expected import Past, Transform
from imagery.expected.expectation import MOST_PIXELS
from imagery.expected.features import baseline, features, mapped
from imagery.robust import evenly

TRANSFORM = Transform.of(NormaliseSettings())


def expected(
    image: Floats,
    counts: Bools,
    earlier: Floats,
    known: Bools,
    bands: Sequence[str],
    witness: tuple[Floats, Bools] | None = None,
) -> Past | None:
    """What is expected of an image, and of the newest one before it, out of the same earlier ones.

    Args:
        image: (C, H, W) reflectance; may hold anything where it does not count.
        counts: (H, W) True where its pixel counts.
        earlier: (K, C, H, W) the images that predict.
        known: (K, H, W) True where theirs count.
        bands: Names of the C bands.
        witness: The newest earlier image, which predicts nothing, and where it counts.

    Returns:
        None when the map to the image is not to be trusted.
    """
    given, usable = features(_compared(earlier, known[:, None]), known)
    by = _map(given, usable, image, counts, bands)
    if by.reason is not None:
        return None
    values = TRANSFORM.inverse(mapped(by.matrix, by.offset, given))
    if witness is None:
        return Past(values, usable)
    before = _map(given, usable, *witness, bands)
    if before.reason is not None:
        return Past(values, usable)
    return Past(
        values, usable, witness[0], TRANSFORM.inverse(mapped(before.matrix, before.offset, given)), usable & witness[1]
    )


def _map(given: Floats, usable: Bools, image: Floats, counts: Bools, bands: Sequence[str]) -> Alignment:
    picked = np.flatnonzero(usable & counts)
    picked = picked[evenly(len(picked), MOST_PIXELS)]
    seen = (one.reshape(len(one), -1)[:, picked] for one in (given, _compared(image, counts)))
    earlier = len(given) // len(bands) - 2
    return align_pixels(*seen, bands, AlignmentSettings(), baseline(earlier, len(bands)))


def _compared(values: Floats, valid: Bools) -> Floats:
    """In units of comparison; what is not valid becomes a number, and counts for nothing."""
    return TRANSFORM.forward(np.where(valid, values, np.float32(1)))

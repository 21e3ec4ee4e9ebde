"""Problems made from OSCD's images and injected anomalies, so that every pixel's truth is known.

`single_date` hides things of every kind in single images. `widespread` turns a growing share of the later image of a
pair, which is where a method that adapts itself to the scene learns the event instead of finding it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.problems.common import CHANGED, TILE, Bools, Floats, Pair, changed_share, injected_pair
from imagery.inject import KINDS, CannotInject, Light, inject, inject_scene

SHARES = (0.05, 0.10, 0.20, 0.35)
TURNED = ("vegetation_loss", "bare_soil")
SEEN = tuple(kind for kind in KINDS if kind != "misregistration")  # a shift needs another date to be seen
PREVALENCE = 0.1  # share of the tiles that hold something
REGION = 60.0  # pixels: how smooth the outline is of the region that a widespread event keeps to
REGIONS = (0.06, 0.09, 0.13, 0.18, 0.24, 0.32, 0.42, 0.55, 0.7, 0.85)  # its share of the scene
FEWEST = 30  # untouched tiles that must be left to compare with
SPACING = 48  # pixels from one injected window to the next: at least a stride lies between them
SEED = 5


def single_images(pairs: Sequence[Pair]) -> list[Pair]:
    """Both dates of each pair as untouched images of their own."""
    images = []
    for pair in pairs:
        nothing = np.zeros_like(pair.truth)
        for after in (pair.before, pair.after):
            assert after is not None
            known = np.zeros(len(pair.tiles))
            images.append(replace(pair, before=None, after=after, truth=nothing, positive=known, condition="untouched"))
    return images


def single_date(pairs: Sequence[Pair]) -> list[Pair]:
    """The later images, with every kind of anomaly about as often, in windows off the grid of the tiles.

    Returns:
        Pairs without an earlier date; about a tenth of the tiles is positive.
    """
    made = []
    for number, pair in enumerate(pairs):
        donor = pairs[(number + 1) % len(pairs)].after
        draw = np.random.default_rng([SEED, number])
        image, mask, kind_map = _injected(pair, donor, draw)
        untouched = replace(pair, before=None, truth=np.zeros_like(pair.truth))
        made.append(replace(injected_pair(untouched, image, mask, "single date"), kinds=_kinds_of(pair, kind_map)))
    return made


def _injected(pair: Pair, donor: Floats, draw: Generator) -> tuple[Floats, Bools, NDArray[np.int64]]:
    """The changed image, where it was changed, and by which kind: (H, W) number of the kind + 1, 0 for none."""
    image, light = pair.after.copy(), Light.of(pair.after, pair.valid, pair.bands)
    mask, kind_map = np.zeros_like(pair.valid), np.zeros(pair.valid.shape, int)
    hit = np.zeros(len(SEEN), int)  # pixels by kind
    for rows, cols in _windows(pair, draw):
        where, key = np.s_[:, rows, cols], f"{pair.name}-{rows.start}-{cols.start}"
        patch = _window_of(donor, draw)
        for number in np.argsort(hit, kind="stable"):  # the rarest that this ground allows
            try:
                given = image[where], pair.valid[where[1:]], pair.bands
                done = inject(*given, SEEN[number], SEED, key=key, donor=patch, light=light)
            except CannotInject:
                continue
            image[where] = done.values
            mask[rows, cols] |= done.mask
            kind_map[rows, cols][done.mask] = number + 1
            hit[number] += done.mask.sum()
            break
        if np.mean(changed_share(mask, pair.valid, pair.tiles) > CHANGED) >= PREVALENCE:
            break
    return image, mask, kind_map


def _windows(pair: Pair, draw: Generator) -> Iterator[tuple[slice, slice]]:
    """Windows of a tile's size that keep apart, in random order and place."""
    height, width = pair.valid.shape
    corners = [(row, col) for row in range(0, height - SPACING, SPACING) for col in range(0, width - SPACING, SPACING)]
    for index in draw.permutation(len(corners)):
        row, col = np.array(corners[index]) + draw.integers(0, SPACING - TILE, 2)
        yield slice(int(row), int(row) + TILE), slice(int(col), int(col) + TILE)


def _window_of(image: Floats, draw: Generator) -> Floats:
    row, col = (int(draw.integers(0, side - TILE)) for side in image.shape[1:])
    return image[:, row : row + TILE, col : col + TILE]


def _kinds_of(pair: Pair, kind_map: NDArray[np.int64]) -> NDArray[np.str_]:
    """(N,) the kind that covers most of each tile, "" for none."""
    shares = np.stack([changed_share(kind_map == number + 1, pair.valid, pair.tiles) for number in range(len(SEEN))])
    names = np.array(["", *SEEN])
    return names[np.where(shares.max(axis=0) > 0, shares.argmax(axis=0) + 1, 0)]


def widespread(pairs: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """The pairs with a share of the later image turned, for each kind and share.

    Returns:
        The changed pairs, and in words the places that were left out because their ground does not allow every share.
    """
    made, refused = [], []
    for number, pair in enumerate(pairs):
        light = Light.of(pair.after, pair.valid, pair.bands)
        regions = _regions(pair.valid, np.random.default_rng([SEED, number]))
        for kind in TURNED:
            turned = [_turned(pair, kind, share, regions, light) for share in SHARES]
            if any(one is None for one in turned):
                refused.append(f"{pair.name}: {kind}")
            made += [one for one in turned if one is not None and all(turned)]
    return made, refused


def _regions(valid: Bools, draw: Generator) -> list[Bools]:
    """Regions of natural outline, each within the next, that hold more and more of the scene.

    An event of a scene keeps to a part of it; spread over the whole scene it would leave no tile untouched.
    """
    rough = gaussian_filter(draw.normal(size=valid.shape), REGION)
    return [rough <= np.quantile(rough[valid], share) for share in REGIONS]


def _turned(pair: Pair, kind: str, share: float, regions: list[Bools], light: Light) -> Pair | None:
    """The pair with the share turned in the smallest region whose ground allows it; None where none does."""
    for region in regions:
        try:
            done = inject_scene(
                pair.after, pair.valid, pair.bands, kind, SEED, share, key=pair.name, light=light, where=region
            )
        except CannotInject:
            continue
        turned = injected_pair(pair, done.values, done.footprint.amount >= 0.5, f"{kind} {share:.2f}")
        return turned if (turned.positive == 0).sum() >= FEWEST else None
    return None

"""Our own methods: the product's detector on image pairs in memory.

The earlier date is the only one of the past, so there is no witness, and no calibration: a benchmark of ranking needs
raw scores. What the scores learn of normal tiles, and the networks, come from other places, without their truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.expecting import expected
from benchmarks.problems.common import EVERY, TILE, Floats, Method, Pair
from configs.schema import ModelSettings, NormaliseSettings, ScoreSettings, TrainSettings
from imagery.expected import Past
from imagery.robust import evenly
from tasks.train import LEARNED_TILES
from vae.detector import BATCH, Detector, NormalTiles
from vae.networks import VAE
from vae.normalisation import Normalisation
from vae.scores import find
from vae.tiles import TileArrays
from vae.training import fit

DEFAULT = {True: "change, the default", False: "novelty, the default"}
WITH_A_NETWORK = {
    True: (
        "decoded_difference", "decoded_and_pixel", "latent_cosine", "latent_l2", "latent_kl", "latent_wasserstein",
        "reconstruction", "nll", "kl",
    ),
    False: (
        "novelty", "reconstruction", "squared_error", "nll", "kl", "reconstruction_probability", "latent_mahalanobis",
        "latent_knn", "complexity_corrected",
    ),
}  # fmt: skip
VISIBLE = ("B04", "B03", "B02")
SEED = 5
MODEL = {"width": 24, "depth": 2}
EPOCHS, QUICK_EPOCHS = 12, 2
MOST_TILES = 2000  # that a network is trained on: what a processor without accelerator can do ten times over


class Ours(Method):
    """Some scores of one detector; their cost is that of all together.

    Args:
        name: Of the method.
        scores: Names in the registry, and what they are called in the tables.
        members: Networks.
        epochs: Of their training.
    """

    family = "ours"

    def __init__(self, name: str, scores: Mapping[str, str], members: int = 0, epochs: int = EPOCHS) -> None:
        self.name, self._names, self._epochs = name, dict(scores), epochs
        self.uses_before = any("past" in find(score).needs for score in scores)
        self._model = ModelSettings(members=members, **MODEL)
        self._settings = ScoreSettings(
            name=next(iter(scores)), without_past="reconstruction" if members else "rx", also=tuple(scores)
        )

    def fit(self, train: Sequence[Pair]) -> None:
        normalisation = normalisation_of(train)
        networks = tuple(self._trained(train, normalisation, SEED + member) for member in range(self._model.members))
        visible = tuple(train[0].bands.index(band) for band in VISIBLE)
        detector = Detector(networks, normalisation, self._model, self._settings, TILE, SEED, visible=visible)
        self._detector = detector.with_constants(lambda: normal_tiles(train, detector.looks_back))
        weights = [parameter.numel() for network in networks for parameter in network.parameters()]
        learned = [
            part.numel() for one in self._detector.constants.values() for parts in one for part in parts.values()
        ]
        self.parameters = sum(weights) + sum(learned)

    def score(self, pair: Pair) -> NDArray[np.float64]:
        """(N,) the first of the scores."""
        return next(iter(self.scores(pair).values()))

    def scores(self, pair: Pair) -> dict[str, NDArray[np.float64]]:
        rows = np.arange(len(pair.tiles))
        values, valid, past = tiles_of(pair, rows, self._detector.looks_back)
        stats = self._detector.scene_stats(pair.after[:, pair.valid][:, ::EVERY].T)
        found = self._detector.score(values, valid, past=past, scene=stats)
        return {shown: found.components[name] for name, shown in self._names.items()}

    def _trained(self, train: Sequence[Pair], normalisation: Normalisation, seed: int) -> VAE:
        values, valid = training_tiles(train)
        settings = TrainSettings(epochs=self._epochs, device="cpu")
        return fit(TileArrays(values, valid), None, normalisation, self._model, settings, seed).network


def normalisation_of(train: Sequence[Pair]) -> Normalisation:
    """The product's default, by the pixels of all dates of some places."""
    settings = NormaliseSettings()
    pixels = np.concatenate([image[:, pair.valid][:, ::EVERY] for pair, image in _images(train)], axis=1)
    low, high = np.nanpercentile(pixels, settings.percentiles, axis=1)
    limits = {band: (float(low[index]), float(high[index])) for index, band in enumerate(train[0].bands)}
    return Normalisation.from_limits(limits, log=settings.log, clip=settings.clip, log_offset=settings.log_offset)


def training_tiles(train: Sequence[Pair]) -> tuple[Floats, NDArray[np.bool_]]:
    """(N, C, TILE, TILE) tiles that do not overlap, of all dates, evenly chosen, and their masks."""
    apart = [
        (replace(one, tiles=one.tiles[(one.tiles % TILE == 0).all(axis=1)]), image) for one, image in _images(train)
    ]
    values = np.concatenate([pair.crops(image) for pair, image in apart])
    valid = np.concatenate([masks(pair, pair.valid) for pair, _ in apart])
    some = evenly(len(values), MOST_TILES)
    return values[some], valid[some]


def normal_tiles(train: Sequence[Pair], looks_back: bool) -> Iterator[NormalTiles]:
    """Tiles of the later dates, evenly chosen and a batch at a time, as `Detector.with_constants` takes them."""
    share = max(LEARNED_TILES // len(train), 1)
    for pair in train:
        rows = evenly(len(pair.tiles), share)
        values, valid, past = tiles_of(pair, rows, looks_back)
        for start in range(0, len(rows), BATCH):
            some = slice(start, start + BATCH)
            before = None if past is None else past.each(lambda array, some=some: array[some])
            yield NormalTiles(values[some], valid[some], before)


def tiles_of(pair: Pair, rows: NDArray[np.integer], looks_back: bool) -> tuple[Floats, NDArray[np.bool_], Past | None]:
    """Some tiles of the later date, their masks, and what the earlier date lets expect of them."""
    some = replace(pair, tiles=pair.tiles[rows])
    past = past_of(pair) if looks_back else None
    given = None if past is None else Past(some.crops(past.values), masks(some, past.valid))
    return some.crops(pair.after), masks(some, pair.valid), given


def past_of(pair: Pair) -> Past | None:
    """What the earlier date lets expect of the later one; None when the two have too little in common."""
    assert pair.before is not None
    return expected(pair.after, pair.valid, pair.before[None], pair.valid[None], pair.bands)


def _images(train: Sequence[Pair]) -> list[tuple[Pair, Floats]]:
    return [(pair, image) for pair in train for image in (pair.before, pair.after) if image is not None]


def masks(pair: Pair, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, TILE, TILE) the tiles of an (H, W) mask."""
    return pair.crops(mask[None].astype(np.float32))[:, 0] > 0


def methods(pairs: bool, quick: bool) -> list[Method]:
    """Those for two dates, or those for one."""
    epochs = QUICK_EPOCHS if quick else EPOCHS
    networks = {name: name for name in WITH_A_NETWORK[pairs]}
    if not pairs:
        named = networks | {"novelty": DEFAULT[False]}
        return [Ours("novelty", named, members=1, epochs=epochs)]
    return [
        Ours("default", {"change": DEFAULT[True]}),
        Ours("fast", {"aligned_difference": "aligned_difference, no network"}),
        Ours("texture", {"texture_difference": "texture_difference"}),
        Ours("with a network", networks, members=1, epochs=epochs),
    ]

"""Peers that run in an environment of their own: PatchCore and PaDiM of anomalib, and detectors of PyOD.

All are made for single images. They are given the later date, or the difference of both dates after the earlier one was
mapped to the later by least squares: without that they find the season.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.environment import PEERS, Worker, environment
from benchmarks.peers.linear import Scaled, seen_as
from benchmarks.problems.common import Floats, Method, Pair

Doubles = NDArray[np.float64]

CHIP = 64  # pixels a side of what the backbone is shown: tiles are too small for it
COLOURS = ("B04", "B03", "B02")
PERCENTILES = (10, 50, 90)


class Elsewhere(Scaled):
    """A peer that lives in a worker process.

    Args:
        name: Of the peer.
        family: Of the peer.
        view: "after" or "difference".
        script: The worker's, below benchmarks/peers/workers.
        arguments: Of the script.
    """

    def __init__(self, name: str, family: str, view: str, script: str, *arguments: str) -> None:
        self.name, self.family, self.uses_before = f"{name} ({view})", family, view == "difference"
        self.view, self._script, self._arguments = view, script, arguments

    def start(self) -> None:
        python = environment(PEERS / "requirements.txt")
        self.worker = Worker(python, f"workers/{self._script}", *self._arguments)

    def close(self) -> None:
        self.worker.close()

    def learn(self, x: NDArray[np.float32]) -> None:
        """Hand over what is learned from."""
        answer, _ = self.worker.ask("fit", x=x)
        self.parameters, self.extra_megabytes = answer["parameters"], self.worker.peak_megabytes

    def judged(self, x: NDArray[np.float32]) -> NDArray[np.floating]:
        """What the worker makes of it."""
        _, scores = self.worker.ask("score", x=x)
        assert scores is not None
        self.extra_megabytes = self.worker.peak_megabytes
        return scores


class FeatureBank(Elsewhere):
    """PatchCore or PaDiM: maps of chips, put together and pooled over the tiles, by percentile and by maximum.

    Args:
        kind: "patchcore" or "padim".
        view: "after" or "difference".
        chips: How many chips it learns from.
        share: Of the patches that PatchCore keeps.
    """

    def __init__(self, kind: str, view: str, chips: int, share: float) -> None:
        name = {"patchcore": "PatchCore", "padim": "PaDiM"}[kind]
        super().__init__(name, "anomalib", view, "feature_banks.py", kind, str(share))
        self._chips = chips

    def fit(self, train: Sequence[Pair]) -> None:
        super().fit(train)
        chips = np.concatenate([self._chips_of(pair)[0] for pair in train])
        chosen = np.random.default_rng(0).permutation(len(chips))[: self._chips]
        self.learn(chips[np.sort(chosen)])

    def score(self, pair: Pair) -> Doubles:
        return self.scores(pair)[self.name]

    def scores(self, pair: Pair) -> dict[str, Doubles]:
        chips, corners = self._chips_of(pair)
        heatmap = np.zeros(pair.valid.shape)
        for part, (row, col) in zip(self.judged(chips), corners, strict=True):
            heatmap[row : row + CHIP, col : col + CHIP] = part
        return {self.name: pair.pooled(heatmap), f"{self.name}, maximum": pair.pooled(heatmap, 100.0)}

    def _chips_of(self, pair: Pair) -> tuple[Floats, list[tuple[int, int]]]:
        """(M, 3, CHIP, CHIP) chips that cover the scene, 0 to 1, and the first row and column of each."""
        image = seen_as(self.view, pair, self.scaling)[[pair.bands.index(band) for band in COLOURS]]
        image = np.clip((image + 1) / 2, 0, 1)  # a difference of zero becomes grey
        rows, cols = ([*range(0, side - CHIP, CHIP), side - CHIP] for side in image.shape[1:])
        corners = [(row, col) for row in rows for col in cols]
        return np.stack([image[:, row : row + CHIP, col : col + CHIP] for row, col in corners]), corners


class TileOutliers(Elsewhere):
    """A detector of PyOD on the means, deviations and percentiles of the bands of a tile.

    Args:
        kind: "ecod", "iforest", "autoencoder" or "vae".
        view: "after" or "difference".
        tiles: How many tiles it learns from.
        epochs: Of the networks.
        in_scene: Learn from the scored scene itself, unlabelled, instead of from other places.
    """

    NAMES: ClassVar = {"ecod": "ECOD", "iforest": "IForest", "autoencoder": "AutoEncoder", "vae": "PyOD VAE"}

    def __init__(self, kind: str, view: str, tiles: int, epochs: int, in_scene: bool = False) -> None:
        super().__init__(self.NAMES[kind], "PyOD", view, "outliers.py", kind, str(epochs))
        if in_scene:
            self.name = f"{self.name}, in scene"
        self._tiles, self._in_scene = tiles, in_scene

    def fit(self, train: Sequence[Pair]) -> None:
        super().fit(train)
        if not self._in_scene:
            features = np.concatenate([self._features(pair) for pair in train])
            chosen = np.random.default_rng(0).permutation(len(features))[: self._tiles]
            self.learn(features[np.sort(chosen)])

    def score(self, pair: Pair) -> Doubles:
        features = self._features(pair)
        if self._in_scene:
            self.learn(features)
        return self.judged(features).astype(float)

    def _features(self, pair: Pair) -> Floats:
        """(N, F); of a difference, its absolute value: more is more of a change."""
        image = seen_as(self.view, pair, self.scaling)
        if self.view == "difference":
            image = np.abs(image)
        crops = pair.crops(image).reshape(len(pair.tiles), len(image), -1)
        spread = np.percentile(crops, PERCENTILES, axis=2)
        return np.concatenate([crops.mean(axis=2), crops.std(axis=2), *spread], axis=1).astype(np.float32)


def feature_banks(pairs: bool, quick: bool) -> list[Method]:
    """PatchCore and PaDiM, for two dates or for one."""
    chips, share = (16, 0.02) if quick else (64, 0.02)
    views = ("after", "difference") if pairs else ("after",)
    return [FeatureBank(kind, view, chips, share) for kind in ("patchcore", "padim") for view in views]


def outliers(pairs: bool, quick: bool) -> list[Method]:
    """The detectors of PyOD, for two dates or for one."""
    tiles, epochs = (500, 2) if quick else (6000, 20)
    views = ("after", "difference") if pairs else ("after",)
    methods: list[Method] = []
    for view in views:
        methods += [TileOutliers(kind, view, tiles, epochs) for kind in TileOutliers.NAMES]
        methods += [TileOutliers(kind, view, tiles, epochs, in_scene=True) for kind in ("ecod", "iforest")]
    return methods

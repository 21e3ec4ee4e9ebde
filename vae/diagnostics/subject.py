"""A network with the tiles it is looked at through: batches, draws, and latents decoded to physical units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vae.networks import VAE, Draw, Given
from vae.normalisation import Normalisation
from vae.tiles import TileArrays
from vae.training.batches import Noise, Ready, prepare

BATCH = 64

Array = NDArray[np.floating]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode, a few tiles in memory, and the seed of all that is drawn.

    tiles.valid says which pixels count; these are finite.
    """

    network: VAE
    tiles: TileArrays
    normalisation: Normalisation
    seed: int

    def batch(self, rows: Rows) -> Ready:
        """Some of the tiles as the network takes them."""
        return prepare(self.tiles, rows, self.normalisation, self.network.sigma.device)

    def batches(self, rows: Rows | None = None) -> Iterator[Ready]:
        """Some tiles, or all, a batch at a time."""
        chosen = np.arange(len(self.tiles)) if rows is None else rows
        for start in range(0, len(chosen), BATCH):
            yield self.batch(chosen[start : start + BATCH])

    def draw(self, part: int) -> Draw:
        """Standard normal numbers: of each part its own, whatever the others draw."""
        return Noise(self.seed, part, self.network.sigma.device)

    @property
    def side(self) -> int:
        """Of the tiles, pixels."""
        return int(self.tiles.values.shape[-1])

    def expected(self, z: Tensor, given: Given | None) -> Tensor:
        """Latents of the coarsest level (B, L, h, w) as tiles (B, C, H, W), normalised; finer levels follow it."""
        return self.network.likelihood.expected(self.network.decode((z,), self.side, given))

    def decoded(self, z: Tensor, given: Given | None) -> NDArray[np.float32]:
        """The same in physical units."""
        return self.physical(self.expected(z, given))

    def physical(self, normalised: Tensor) -> NDArray[np.float32]:
        """(B, C, H, W) in physical units."""
        return self.normalisation.invert(normalised.float()).cpu().numpy()

    def originals(self, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Tiles as they are, physical units, and which pixels count."""
        return self.tiles.values[rows], self.tiles.valid[rows]


def told_again(given: Given | None, count: int) -> Given | None:
    """What one tile's network is told, for so many tiles."""
    if given is None:
        return None
    return Given(*(None if part is None else part.repeat(count, *[1] * (part.ndim - 1)) for part in given))


def features_of(levels: tuple[Tensor, ...]) -> Array:
    """(B, K) each channel of each level of a latent, averaged over its cells."""
    return torch.cat([level.mean(dim=(2, 3)) for level in levels], dim=1).double().cpu().numpy()


def spread(count: int, most: int) -> Rows:
    """Numbers of at most so many of the tiles, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))

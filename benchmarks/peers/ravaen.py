"""RaVÆn (Růžička et al. 2022): distances between the latents of a tile on two dates.

The smallest of the paper's networks, trained the paper's way: tiles of 32 × 32 pixels, a latent vector of 128 numbers,
mean squared error plus the divergence times the batch's share of the data set, Adam at 1e-3. The paper trains for 400
epochs on far more tiles; here the number of steps is what a processor without accelerator can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.problems.common import TILE, Floats, Method, Pair, Scaling

Doubles = NDArray[np.float64]

WIDTHS, LATENT = (16, 32, 64), 128
BATCH, LEARNING_RATE = 64, 1e-3
DIVERGENCE = 1e-4  # its weight
AT_ONCE = 256  # tiles that are scored at once
EVERY = 32  # pixels from one training tile to the next


class Block(nn.Sequential):
    """A 3 × 3 convolution, batch normalisation, leaky ReLU."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.LeakyReLU())


class VectorVAE(nn.Module):
    """Strided blocks down to a vector, the mirror image up to the tile."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        small = TILE // 2 ** len(WIDTHS)
        down: list[nn.Module] = []
        for before, after in pairwise((bands, *WIDTHS)):
            down.append(Block(before, after, stride=2))
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.mu, self.logvar = (nn.Linear(WIDTHS[-1] * small**2, LATENT) for _ in range(2))
        up: list[nn.Module] = [nn.Linear(LATENT, WIDTHS[-1] * small**2), nn.Unflatten(1, (WIDTHS[-1], small, small))]
        for before, after in pairwise(WIDTHS[::-1]):
            up += [nn.Upsample(scale_factor=2), Block(before, after)]
        self.decoder = nn.Sequential(*up, nn.Upsample(scale_factor=2), nn.Conv2d(WIDTHS[0], bands, 3, padding=1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, TILE, TILE) to mean and log-variance, (B, LATENT) each."""
        flat = self.encoder(x)
        return self.mu(flat), self.logvar(flat)


class Trained(Method):
    """A method around such a network.

    Args:
        steps: Of training.
    """

    family = "RaVÆn"

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def fit(self, train: Sequence[Pair]) -> None:
        self.scaling = Scaling.of(train)
        torch.manual_seed(0)
        images = [
            self.scaling.apply(image) for pair in train for image in (pair.before, pair.after) if image is not None
        ]
        tiles = torch.from_numpy(np.concatenate([_training_tiles(image) for image in images]))
        self.network = VectorVAE(tiles.shape[1])
        self.parameters = sum(parameter.numel() for parameter in self.network.parameters())
        optimiser = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        self.network.train()
        for _ in range(self._steps):
            x = tiles[torch.randint(len(tiles), (BATCH,))]
            mu, logvar = self.network.encode(x)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
            divergence = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1).mean()
            loss = F.mse_loss(self.network.decoder(z), x) + DIVERGENCE * divergence
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.network.eval()

    @torch.inference_mode()
    def encoded(self, tiles: Floats) -> tuple[Doubles, Doubles]:
        """Mean and log-variance of (N, C, TILE, TILE) scaled tiles, (N, LATENT) each."""
        found = [self.network.encode(batch) for batch in torch.from_numpy(tiles).split(AT_ONCE)]
        mu, logvar = (torch.cat(parts).double().numpy() for parts in zip(*found, strict=True))
        return mu, logvar


class Latents(Trained):
    """All of RaVÆn's distances between two dates, and its baseline on pixels; their cost is that of all together."""

    name = "RaVÆn"

    def score(self, pair: Pair) -> Doubles:
        return self.scores(pair)["RaVÆn, latent cosine"]

    def scores(self, pair: Pair) -> dict[str, Doubles]:
        assert pair.before is not None
        before, after = (self.scaling.apply(image) for image in (pair.before, pair.after))
        (mu, logvar), (mu_now, logvar_now) = (self.encoded(pair.crops(image)) for image in (before, after))
        return {
            "RaVÆn, latent cosine": 1 - _cosine(mu, mu_now, axis=1),
            "RaVÆn, latent L2": np.linalg.norm(mu - mu_now, axis=1),
            "RaVÆn, latent KL": _divergence(mu, logvar, mu_now, logvar_now),
            "RaVÆn, latent Wasserstein": _wasserstein(mu, logvar, mu_now, logvar_now),
            "RaVÆn, pixel cosine": pair.pooled(1 - _cosine(before, after, axis=0), None),
        }


class Reconstruction(Trained):
    """The same network on single dates: its reconstruction error, mean over the valid pixels (An & Cho 2015)."""

    name, uses_before = "VAE of RaVÆn, reconstruction error", False

    @torch.inference_mode()
    def score(self, pair: Pair) -> Doubles:
        tiles, valid = pair.crops(self.scaling.apply(pair.after)), pair.crops(pair.valid[None].astype(np.float32))
        batches = torch.from_numpy(tiles).split(AT_ONCE)
        expected = np.concatenate([self.network.decoder(self.network.encode(batch)[0]).numpy() for batch in batches])
        error = np.square(tiles - expected).mean(axis=1) * valid[:, 0]
        return (error.sum(axis=(1, 2)) / valid.sum(axis=(1, 2, 3))).astype(float)


def _training_tiles(image: Floats) -> Floats:
    channels, height, width = image.shape
    rows, cols = height // EVERY, width // EVERY
    cut = image[:, : rows * EVERY, : cols * EVERY].reshape(channels, rows, EVERY, cols, EVERY)
    return np.ascontiguousarray(cut.transpose(1, 3, 0, 2, 4)).reshape(-1, channels, EVERY, EVERY)


def _cosine(one: NDArray[np.floating], other: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    lengths = np.linalg.norm(one, axis=axis) * np.linalg.norm(other, axis=axis)
    cosine: NDArray[np.floating] = (one * other).sum(axis=axis) / np.maximum(lengths, 1e-12)
    return cosine


def _divergence(mu: Doubles, logvar: Doubles, mu_now: Doubles, logvar_now: Doubles) -> Doubles:
    """KL divergence of the earlier posterior from the later one, summed over the latent."""
    ratio = np.exp(logvar - logvar_now)
    distance = np.square(mu - mu_now) / np.exp(logvar_now)
    divergence: Doubles = 0.5 * (ratio + distance - 1 - (logvar - logvar_now)).sum(axis=1)
    return divergence


def _wasserstein(mu: Doubles, logvar: Doubles, mu_now: Doubles, logvar_now: Doubles) -> Doubles:
    """Squared 2-Wasserstein distance of both posteriors."""
    spread = np.square(np.exp(logvar / 2) - np.exp(logvar_now / 2))
    distance: Doubles = (np.square(mu - mu_now) + spread).sum(axis=1)
    return distance


def methods(pairs: bool, quick: bool) -> list[Method]:
    """Those for two dates, or those for one."""
    steps = 50 if quick else 1500
    return [Latents(steps)] if pairs else [Reconstruction(steps)]

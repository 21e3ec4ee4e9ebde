"""A fully convolutional variational autoencoder whose latent is a small map.

Kingma & Welling (2014), Auto-Encoding Variational Bayes. The latent keeps its place on the ground: one diagonal
Gaussian for each cell of 2**depth × 2**depth pixels. Nothing but the latent passes from encoder to decoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelSettings
from vae.errors import ShapeError

LOGVAR_BOUND = 10.0  # a posterior standard deviation lies between e**-5 and e**5
MOST_WIDENING = 8  # channels stop doubling at this many times the width


class Passed(NamedTuple):
    """What one pass through the network gives: expected (B, C, H, W); mu and logvar (B, L, h, w)."""

    expected: Tensor
    mu: Tensor
    logvar: Tensor


class Refine(nn.Module):
    """x + conv(SiLU(norm(x))): the sum keeps a tile's brightness, which group normalisation would take away."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(channels, 8), channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        return x + self.conv(F.silu(self.norm(x)))


class Up(nn.Module):
    """Twice the resolution by bilinear interpolation, then a 3×3 convolution: no checkerboard."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


class ConvVAE(nn.Module):
    """Encoder and decoder of one detector.

    Args:
        bands: How many bands a tile has.
        settings: Width, depth and latent channels.

    The buffer `sigma` (C,) is the standard deviation of the residuals of each band over the training tiles, in
    normalised units. Training sets it; scores and the held-out ELBO use it.
    """

    sigma: Tensor

    def __init__(self, bands: int, settings: ModelSettings) -> None:
        super().__init__()
        self.bands = bands
        self.settings = settings
        channels = [settings.width * min(2**i, MOST_WIDENING) for i in range(settings.depth)]

        down: list[nn.Module] = []
        for before, after in zip([bands + 1, *channels[:-1]], channels, strict=True):  # + 1: the mask
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1), Refine(after)]
        self.encoder = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(channels[-1], 2 * settings.latent_channels, 1))

        up: list[nn.Module] = [nn.Conv2d(settings.latent_channels, channels[-1], 1)]
        for before, after in zip(channels[::-1], [*channels[-2::-1], bands], strict=True):
            up += [Refine(before), nn.SiLU(), Up(before, after)]
        self.decoder = nn.Sequential(*up)

        self.register_buffer("sigma", torch.ones(bands))

    def encode(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of the latent map.

        Args:
            x: (B, C, H, W) normalised bands; what is masked is ignored, whatever it holds.
            valid: (B, H, W) bool.

        Returns:
            Mean and log-variance, each (B, L, H / 2**depth, W / 2**depth). The log-variance is bent smoothly into
            ±10, so that no variance vanishes or explodes while gradients still flow.

        Raises:
            ShapeError: The tiles have other bands, or a side that cannot be halved `depth` times.
        """
        step = 2**self.settings.depth
        if x.ndim != 4 or x.shape[1] != self.bands or x.shape[2] % step or x.shape[3] % step:
            raise ShapeError(
                f"the network takes tiles (B, {self.bands}, H, W) with sides that are multiples of {step}, "
                f"got {tuple(x.shape)}"
            )
        mask = valid[:, None]
        seen = torch.cat([torch.where(mask, x, 0.0), mask.to(x.dtype)], dim=1)
        mu, raw = self.encoder(seen.contiguous(memory_format=torch.channels_last)).chunk(2, dim=1)
        return mu, LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)

    def decode(self, z: Tensor) -> Tensor:
        """What is expected to be seen, (B, C, H, W) in normalised units, for a latent map (B, L, h, w)."""
        return self.decoder(z)

    def forward(self, x: Tensor, valid: Tensor, noise: Tensor | None = None) -> Passed:
        """Encode, draw from the posterior, decode.

        Args:
            x: (B, C, H, W) normalised bands.
            valid: (B, H, W) bool.
            noise: (B, L, h, w) standard normal numbers; without them the posterior mean is decoded.
        """
        mu, logvar = self.encode(x, valid)
        z = mu if noise is None else mu + noise * torch.exp(0.5 * logvar)
        return Passed(self.decode(z), mu, logvar)

    def latent_shape(self, tiles: int, side: int) -> tuple[int, int, int, int]:
        """(B, L, h, w) of the latent of so many tiles of this side."""
        step = 2**self.settings.depth
        return tiles, self.settings.latent_channels, side // step, side // step


def build(bands: int, settings: ModelSettings, seed: int) -> ConvVAE:
    """A network with freshly drawn weights; the same seed gives the same ones, and no other draw is disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvVAE(bands, settings)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

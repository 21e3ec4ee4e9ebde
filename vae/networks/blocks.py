"""What encoders and decoders are made of."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class Refine(nn.Module):
    """x + conv(SiLU(norm(x))): the sum keeps a tile's brightness, which group normalisation would take away."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        return x + self.conv(F.silu(self.norm(x)))


class Residual(nn.Module):
    """Two convolutions and a sum, normalised before each (He et al. 2016, Identity mappings in deep residual networks).

    The last convolution starts at zero, so that a deep stack starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = norm(channels), norm(channels)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        return x + self.outer(F.silu(self.second(self.inner(F.silu(self.first(x))))))


class Up(nn.Module):
    """Twice the resolution by bilinear interpolation, then a 3×3 convolution: no checkerboard."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


def refinement(network: str, channels: int) -> nn.Module:
    """What follows each change of resolution, by `model.network`."""
    return Refine(channels) if network == "convolutional" else nn.Sequential(Residual(channels), Residual(channels))


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with up to eight groups."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution that gives nothing until it has learned."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

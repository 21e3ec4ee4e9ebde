"""An adversary on the latent, that pulls the latents of all tiles together towards the prior.

Makhzani et al. (2015), Adversarial autoencoders. The KL term pulls each tile's posterior to the prior; the adversary
pulls the mixture of them. With `train.beta` = 0 it takes the place of the KL term, as in the paper.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from configs.schema import ModelSettings
from vae.errors import VaeError

WIDTH = 64  # channels of its two layers


class Verdict(NamedTuple):
    """Of a batch, means over the tiles that have a valid pixel.

    loss: what both sides minimise together; fooling: the network's part of it, nats a tile; telling: the adversary's,
    nats a cell. Where it cannot tell latents from the prior, `telling` is ln 2.
    """

    loss: Tensor
    fooling: Tensor
    telling: Tensor


class Adversary(nn.Module):
    """Tells latents from draws of the prior, cell by cell: the prior knows no neighbours.

    Args:
        channels: Of the latent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 1), nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 1), nn.SiLU(), nn.Conv2d(WIDTH, 1, 1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, 1, h, w) log-odds that latents (B, L, h, w) are of the prior."""
        return self.layers(z)

    def judge(self, z: Tensor, prior: Tensor, seen: Tensor, weight: float) -> Verdict:
        """Both sides' losses, whose gradients do not mix, so that one backward pass serves both.

        Args:
            z: (B, L, h, w) latents of tiles.
            prior: (B, L, h, w) draws of the prior.
            seen: (B,) bool, which tiles have a valid pixel.
            weight: Of the network's part.
        """
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        # Non-saturating (Goodfellow et al. 2014): the gradient is large while the adversary is sure.
        fooling = _mean(F.softplus(-functional_call(self, frozen, (z,))).sum(dim=(1, 2, 3)), seen)
        telling = F.softplus(self(z.detach())) + F.softplus(-self(prior))
        told = _mean(0.5 * telling.mean(dim=(1, 2, 3)), seen)
        return Verdict(weight * fooling + told, fooling.detach(), told.detach())


def build_adversary(settings: ModelSettings, seed: int) -> Adversary:
    """An adversary with freshly drawn weights; the same seed gives the same ones, and no other draw is disturbed.

    Raises:
        VaeError: The latent has no Gaussian prior.
    """
    if settings.posterior == "quantised":
        raise VaeError(
            "a quantised latent has codes and no Gaussian prior that an adversary could compare it with: set "
            "train.adversarial_weight to 0, or another model.posterior"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Adversary(settings.latent_channels)


def _mean(each: Tensor, seen: Tensor) -> Tensor:
    return torch.where(seen, each, 0.0).sum() / seen.sum().clamp(min=1)

"""From what the encoder saw to a latent: families of posteriors, each with its own divergence from the prior.

The prior of the coarsest level is N(0, 1); finer levels have a prior that depends on the coarser ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelSettings
from vae.networks.blocks import zeroed

Draw = Callable[[Sequence[int]], Tensor]  # standard normal numbers of a shape, on the network's device

LOGVAR_BOUND = 10.0  # a posterior standard deviation lies between e**-5 and e**5
BEND = 2.0  # a flow's layer scales by e**±2 at most
FLOW_WIDTH = 64  # channels within a layer of a flow
COMMITMENT = 0.25  # of the encoder to the code it was given


class Latent(NamedTuple):
    """One level of the latent.

    Attributes:
        z: (B, L, h, w) a draw, or without noise the most typical value.
        mu: (B, L, h, w) its mean.
        logvar: (B, L, h, w) logarithm of its variance.
        kl: (B, L) nats by channel, summed over the cells.
        log_ratio: (B,) log q(z|x) - log p(z) at the draw.
        penalty: (B,) what else training has to pay; nats.
    """

    z: Tensor
    mu: Tensor
    logvar: Tensor
    kl: Tensor
    log_ratio: Tensor
    penalty: Tensor


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, 1)), nats, of each element."""
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


class Gaussian(nn.Module):
    """A diagonal Gaussian: Kingma & Welling (2014), Auto-encoding variational Bayes.

    Args:
        channels: Of the features.
        settings: How many latent channels.
    """

    def __init__(self, channels: int, settings: ModelSettings) -> None:
        super().__init__()
        self.vector = settings.latent == "vector"
        if self.vector:
            self.placed = nn.Conv2d(channels + 2, channels, 1)  # where in the tile something is, before all is averaged
        self.head = nn.Conv2d(channels, 2 * settings.latent_channels, 1)

    def forward(self, features: Tensor, draw: Draw | None) -> Latent:
        """The latent of features (B, channels, h, w); without noise, its mean."""
        mu, logvar = self.parameters_of(features)
        return _gaussian_latent(mu, logvar, _noise(draw, mu))

    def parameters_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance. The latter is bent smoothly into ±10, so that no variance vanishes or explodes."""
        if self.vector:
            features = self.placed(torch.cat([features, coordinates(features)], dim=1))
            features = features.mean(dim=(2, 3), keepdim=True)
        mu, raw = self.head(F.silu(features)).float().chunk(2, dim=1)
        return mu, LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)

    def prior(self, shape: Sequence[int], draw: Draw) -> Tensor:
        """A draw of the prior."""
        return draw(shape)


class Flow(Gaussian):
    """A Gaussian bent by affine couplings, cell by cell: Rezende & Mohamed (2015); Dinh et al. (2017), Real NVP.

    One direction is all that is needed: the density of a draw is known on the way to it.
    """

    def __init__(self, channels: int, settings: ModelSettings) -> None:
        super().__init__(channels, settings)
        half = settings.latent_channels // 2
        self.couplings = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(settings.latent_channels - half, FLOW_WIDTH, 1),
                nn.SiLU(),
                zeroed(nn.Conv2d(FLOW_WIDTH, 2 * half, 1)),
            )
            for _ in range(settings.flow_steps)
        )

    def forward(self, features: Tensor, draw: Draw | None) -> Latent:
        """The latent; `mu` is where the flow brings the mean, and `logvar` the variance around it, to first order.

        The divergence is estimated at the draw, its Gaussian part by its expectation.
        """
        mu, logvar = self.parameters_of(features)
        noise = _noise(draw, mu)
        centre, around = self.bent(mu, 0.5 * logvar)
        if noise is None:
            z, spread, squared = centre, around, torch.zeros_like(mu)
        else:
            z, spread = self.bent(mu + noise * torch.exp(0.5 * logvar), 0.5 * logvar)
            squared = noise.square()
        return Latent(
            z=z,
            mu=centre,
            logvar=2 * around,
            kl=(0.5 * (z.square() - 1) - spread).sum(dim=(2, 3)),
            log_ratio=(0.5 * (z.square() - squared) - spread).flatten(1).sum(dim=1),
            penalty=_nothing(z),
        )

    def bent(self, z: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """A point and the logarithm of the spread around it through all layers; channels change their order alike."""
        for layer in self.couplings:
            half = z.shape[1] // 2
            kept, moved = z[:, half:], z[:, :half]
            scale, shift = layer(kept).float().chunk(2, dim=1)
            scale = BEND * torch.tanh(scale / BEND)
            # What was moved goes last, so that the next layer moves the other half.
            z = torch.cat([kept, moved * scale.exp() + shift], dim=1)
            spread = torch.cat([spread[:, half:], spread[:, :half] + scale], dim=1)
        return z, spread


class Quantised(nn.Module):
    """The nearest of a learned set of codes: van den Oord, Vinyals & Kavukcuoglu (2017), VQ-VAE.

    The prior is uniform over the codes, so that the divergence is the same for every tile and tells nothing.
    """

    def __init__(self, channels: int, settings: ModelSettings) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, settings.latent_channels, 1)
        self.codes = nn.Parameter(torch.randn(settings.codes, settings.latent_channels) * 0.5)

    def forward(self, features: Tensor, draw: Draw | None) -> Latent:
        """The latent; nothing is drawn. Gradients pass the choice by (straight-through)."""
        wanted = self.head(F.silu(features)).float()
        flat = wanted.movedim(1, -1).flatten(0, 2)
        distance = flat.square().sum(1, keepdim=True) - 2 * flat @ self.codes.T + self.codes.square().sum(1)
        chosen = self.codes[distance.argmin(dim=1)].view(*wanted.movedim(1, -1).shape).movedim(-1, 1)
        pull = (wanted.detach() - chosen).square() + COMMITMENT * (wanted - chosen.detach()).square()
        cells = wanted.shape[2] * wanted.shape[3]
        bits = torch.full((wanted.shape[0], 1), cells * math.log(len(self.codes)), device=wanted.device)
        return Latent(
            z=wanted + (chosen - wanted).detach(),
            mu=chosen,
            logvar=torch.full_like(chosen, -LOGVAR_BOUND),
            kl=bits,
            log_ratio=bits[:, 0],
            penalty=pull.flatten(1).sum(dim=1),
        )

    def prior(self, shape: Sequence[int], draw: Draw) -> Tensor:
        """Codes drawn alike."""
        tiles, _, height, width = shape
        share = 0.5 * (1 + torch.erf(draw((tiles, 1, height, width)) / math.sqrt(2)))
        index = (share * len(self.codes)).long().clamp(max=len(self.codes) - 1)[:, 0]
        return self.codes[index].movedim(-1, 1)


class Level(nn.Module):
    """A finer level of a hierarchy: prior from what the decoder has so far, posterior from that and the encoder.

    Sønderby et al. (2016), Ladder variational autoencoders; the posterior is relative to the prior as in Vahdat & Kautz
    (2020), NVAE, so that a level that learns nothing costs nothing.

    Args:
        channels: Of the decoder here.
        features: Of the encoder at this resolution.
        settings: How many latent channels.
    """

    def __init__(self, channels: int, features: int, settings: ModelSettings) -> None:
        super().__init__()
        count = settings.latent_channels
        self.believed = zeroed(nn.Conv2d(channels, 2 * count, 1))
        self.seen = zeroed(nn.Conv2d(channels + features, 2 * count, 1))
        self.into = nn.Conv2d(count, channels, 1)

    def infer(self, x: Tensor, features: Tensor, draw: Draw | None) -> Latent:
        """The latent of this level, for the decoder's x (B, channels, h, w) and the encoder's features."""
        mean, logvar = self._prior(x)
        away, narrower = self.seen(torch.cat([F.silu(x), F.silu(features)], dim=1)).float().chunk(2, dim=1)
        narrower = LOGVAR_BOUND * torch.tanh(narrower / LOGVAR_BOUND)
        # In units of the prior: the divergence from it is that from N(0, 1).
        own = _gaussian_latent(away, narrower, _noise(draw, away))
        spread = torch.exp(0.5 * logvar)
        return own._replace(z=mean + own.z * spread, mu=mean + away * spread, logvar=logvar + narrower)

    def prior(self, x: Tensor, draw: Draw | None) -> Tensor:
        """A draw of the prior; without noise, its mean."""
        mean, logvar = self._prior(x)
        noise = _noise(draw, mean)
        return mean if noise is None else mean + noise * torch.exp(0.5 * logvar)

    def _prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.believed(F.silu(x)).float().chunk(2, dim=1)
        return mean, LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)


def build_posterior(channels: int, settings: ModelSettings) -> Gaussian | Quantised:
    """The posterior of the coarsest level, for the encoder's last features."""
    if settings.posterior == "flow":
        return Flow(channels, settings)
    if settings.posterior == "quantised":
        return Quantised(channels, settings)
    return Gaussian(channels, settings)


def coordinates(like: Tensor) -> Tensor:
    """(B, 2, h, w) row and column from -1 to 1."""
    height, width = like.shape[-2:]
    rows, columns = (
        (2 * torch.arange(count, device=like.device, dtype=like.dtype) + 1) / count - 1 for count in (height, width)
    )
    both = torch.stack([rows[:, None].expand(height, width), columns[None].expand(height, width)])
    return both.expand(like.shape[0], 2, height, width)


def _gaussian_latent(mu: Tensor, logvar: Tensor, noise: Tensor | None) -> Latent:
    z = mu if noise is None else mu + noise * torch.exp(0.5 * logvar)
    squared = torch.zeros_like(mu) if noise is None else noise.square()
    ratio = 0.5 * (z.square() - squared - logvar)
    return Latent(
        z=z,
        mu=mu,
        logvar=logvar,
        kl=kl_divergence(mu, logvar).sum(dim=(2, 3)),
        log_ratio=ratio.flatten(1).sum(dim=1),
        penalty=_nothing(z),
    )


def _noise(draw: Draw | None, like: Tensor) -> Tensor | None:
    return None if draw is None else draw(like.shape)


def _nothing(z: Tensor) -> Tensor:
    return torch.zeros(z.shape[0], device=z.device)  # not len(): exported, it would be fixed

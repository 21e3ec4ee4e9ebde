"""What training minimises, and the ELBO it is judged by.

σ-VAE: Rybkin, Daniilidis & Levine (2021), Simple and Effective VAE Training with Calibrated Decoders. The variance of
the decoder is not learned but set to its maximum-likelihood value, here one for each band.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-5  # a band cannot be expected to better than 0.003 normalised units


class Sums(NamedTuple):
    """What a batch adds to the totals of an epoch. Everything is a sum over valid pixels and tiles.

    squared: (C,) squared residuals of each band; pixels: how many valid pixels; tiles: how many tiles have any;
    kl: nats. float64, detached.
    """

    squared: Tensor
    pixels: Tensor
    tiles: Tensor
    kl: Tensor

    def __add__(self, other: Sums) -> Sums:  # type: ignore[override]
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Objective(NamedTuple):
    """One batch. Nats, mean over the tiles that have a valid pixel.

    loss = reconstruction + β kl; sigma (C,): the standard deviation of each band's residuals in this batch.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    sigma: Tensor
    sums: Sums


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, 1)), nats, of each element."""
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def sigma_vae(x: Tensor, valid: Tensor, expected: Tensor, mu: Tensor, logvar: Tensor, beta: float = 1.0) -> Objective:
    """The σ-VAE's objective over the valid pixels.

    Args:
        x: (B, C, H, W) normalised bands; what is masked counts nowhere, whatever it holds.
        valid: (B, H, W) bool. A tile without a valid pixel contributes nothing.
        expected: (B, C, H, W) decoded.
        mu: (B, L, h, w) posterior means.
        logvar: (B, L, h, w) posterior log-variances.
        beta: Weight of the KL term.
    """
    squared = _squared_residuals(x, valid, expected)
    pixels = valid.sum()
    tiles_seen = valid.flatten(1).any(dim=1)
    tiles = tiles_seen.sum().clamp(min=1)

    # The optimal variance needs no gradient of its own: at an optimum the derivative with respect to it is zero.
    variance = (squared.detach() / pixels.clamp(min=1)).clamp(min=VARIANCE_FLOOR)
    nats = 0.5 * (squared / variance + pixels * torch.log(2 * math.pi * variance)).sum()
    kl = torch.where(tiles_seen, kl_divergence(mu, logvar).flatten(1).sum(dim=1), 0.0).sum()
    return Objective(
        loss=(nats + beta * kl) / tiles,
        reconstruction=nats / tiles,
        kl=kl / tiles,
        sigma=variance.sqrt(),
        sums=_sums(squared, pixels, tiles_seen.sum(), kl),
    )


def batch_sums(x: Tensor, valid: Tensor, expected: Tensor, mu: Tensor, logvar: Tensor) -> Sums:
    """What a batch adds to the totals, for `elbo_per_dimension`; arguments as for `sigma_vae`."""
    return sigma_vae(x, valid, expected, mu, logvar).sums


def fitted_sigma(sums: Sums) -> Tensor:
    """(C,) the standard deviation of each band's residuals over everything that was summed."""
    variance = sums.squared / sums.pixels.clamp(min=1)
    return variance.clamp(min=VARIANCE_FLOOR).sqrt().float()


def elbo_per_dimension(sums: Sums, sigma: Tensor) -> float:
    """The evidence lower bound (β = 1) in nats per valid dimension, one dimension being one band of one pixel.

    Args:
        sums: Totals over the tiles that are judged.
        sigma: (C,) fixed standard deviations, from the training tiles and never from the tiles that are judged.

    Returns:
        Higher is better; NaN when there is no valid pixel.
    """
    variance = sigma.double().square()
    nats = -0.5 * (sums.squared / variance + sums.pixels * torch.log(2 * math.pi * variance)).sum() - sums.kl
    dimensions = sums.pixels * len(sigma)
    return float(nats / dimensions) if dimensions > 0 else math.nan


def _squared_residuals(x: Tensor, valid: Tensor, expected: Tensor) -> Tensor:
    """(C,) sums of squared residuals; masked first, so that neither value nor gradient of a masked pixel passes."""
    mask = valid[:, None]
    return (torch.where(mask, x, 0.0) - torch.where(mask, expected, 0.0)).square().sum(dim=(0, 2, 3))


def _sums(squared: Tensor, pixels: Tensor, tiles: Tensor, kl: Tensor) -> Sums:
    return Sums(*(part.detach().double() for part in (squared, pixels, tiles, kl)))

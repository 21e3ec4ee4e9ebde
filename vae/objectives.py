"""What training minimises, and the ELBO it is judged by.

σ-VAE: Rybkin, Daniilidis & Levine (2021), Simple and Effective VAE Training with Calibrated Decoders. The variance of
a Gaussian decoder is not learned but set to its maximum-likelihood value; `vae.networks.likelihoods` has the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from configs.schema import TrainSettings
from vae.networks import VAE, Draw, Given, Passed
from vae.structure import structural_loss

VARIANCE_FLOOR = 1e-5  # a band cannot be expected to better than 0.003 normalised units

Forward = Callable[..., Passed]


class Sums(NamedTuple):
    """What a batch adds to the totals of an epoch. Everything is a sum over valid pixels and tiles.

    squared: (C,) squared residuals of each band; pixels: how many valid pixels; tiles: how many tiles have any;
    kl: nats; nats: negative log-likelihood. float64, detached.
    """

    squared: Tensor
    pixels: Tensor
    tiles: Tensor
    kl: Tensor
    nats: Tensor

    def __add__(self, other: Sums) -> Sums:  # type: ignore[override]
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Objective(NamedTuple):
    """One batch. Nats, mean over the tiles that have a valid pixel.

    loss: what is minimised; reconstruction and kl: its two main parts; sigma (C,): the standard deviation of each
    band's residuals in this batch; passed: what the network gave (of importance samples, all of them).
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    sigma: Tensor
    sums: Sums
    passed: Passed


def objective(
    network: Forward,
    x: Tensor,
    valid: Tensor,
    settings: TrainSettings,
    beta: float,
    draw: Draw,
    given: Given | None = None,
    core: VAE | None = None,
) -> Objective:
    """The loss of a batch over its valid pixels.

    Args:
        network: The network, or what wraps it (compiled, data parallel).
        x: (B, C, H, W) normalised bands; what is masked counts nowhere, whatever it holds.
        valid: (B, H, W) bool. A tile without a valid pixel contributes nothing.
        settings: Which objective.
        beta: Weight of the KL term now.
        draw: Gives standard normal numbers.
        given: What the network is told.
        core: The bare network, when `network` wraps it.
    """
    core = _bare(network) if core is None else core
    if settings.objective == "iwae":
        return _importance_weighted(network, core, x, valid, settings, beta, draw, given)
    shown = x + settings.input_noise * draw(x.shape) if settings.input_noise else x
    passed = network(shown, valid, draw, given)
    sums = _Sums.of(core, x, valid, passed)
    charged = sums.kl if not settings.free_bits else _beyond_free(passed, sums.seen, settings.free_bits)
    loss = sums.nats + beta * charged + torch.where(sums.seen, passed.penalty, 0.0).sum()
    if settings.structural != "none":
        values = sums.pixels * x.shape[1]
        loss = loss + settings.structural_weight * values * structural_loss(
            settings.structural, x, passed.expected.float(), valid
        )
    return sums.objective(loss, passed)


def importance_bound(
    network: VAE, x: Tensor, valid: Tensor, draw: Draw, samples: int, given: Given | None = None
) -> Tensor:
    """(B,) bound on the log-likelihood by so many importance samples, nats a tile; 0 without a valid pixel.

    Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders. σ of analytic likelihoods is the network's.
    """
    weights = []
    for _ in range(samples):
        passed = network(x, valid, draw, given)
        nats = _nats(network, x, valid, passed, network.sigma).sum(dim=(1, 2, 3))
        weights.append(-nats - passed.log_ratio)
    bound = torch.logsumexp(torch.stack(weights), dim=0) - math.log(samples)
    return torch.where(valid.flatten(1).any(dim=1), bound, 0.0)


def batch_sums(network: VAE, x: Tensor, valid: Tensor, passed: Passed) -> Sums:
    """What a batch adds to the totals, for `elbo_per_dimension`; σ of analytic likelihoods is the network's."""
    nats = _nats(network, x, valid, passed, network.sigma).sum()
    return _Sums.of(network, x, valid, passed).detached(nats)


def fitted_sigma(sums: Sums, shared: bool = False) -> Tensor:
    """(C,) the standard deviation of each band's residuals over everything that was summed, or of all together."""
    return _variance(sums.squared, sums.pixels, shared).sqrt().float()


def elbo_per_dimension(sums: Sums, sigma: Tensor | None = None) -> float:
    """The evidence lower bound (β = 1) in nats per valid dimension, one dimension being one band of one pixel.

    Args:
        sums: Totals over the tiles that are judged.
        sigma: (C,) fixed standard deviations of a Gaussian, from the training tiles and never from those that are
            judged; None takes the likelihood as it was summed.

    Returns:
        Higher is better; NaN when there is no valid pixel.
    """
    nats = sums.nats
    if sigma is not None:
        variance = sigma.double().square()
        nats = 0.5 * (sums.squared / variance + sums.pixels * torch.log(2 * math.pi * variance)).sum()
    dimensions = sums.pixels * len(sums.squared)
    return float(-(nats + sums.kl) / dimensions) if dimensions > 0 else math.nan


class _Sums(NamedTuple):
    """The same as `Sums`, with gradients, and what else the loss is made of."""

    squared: Tensor
    pixels: Tensor
    seen: Tensor
    kl: Tensor
    nats: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, core: VAE, x: Tensor, valid: Tensor, passed: Passed) -> _Sums:
        squared = _squared_residuals(x, valid, passed.expected.float())
        pixels = valid.sum()
        seen = valid.flatten(1).any(dim=1)
        # The optimal variance needs no gradient of its own: at an optimum the derivative with respect to it is zero.
        variance = _variance(squared.detach(), pixels, core.likelihood.analytic == "all").to(squared.dtype)
        if core.likelihood.analytic is None:
            nats = _nats(core, x, valid, passed, variance.sqrt()).sum()
        else:
            nats = 0.5 * (squared / variance + pixels * torch.log(2 * math.pi * variance)).sum()
        kl = torch.where(seen, passed.kl.sum(dim=1), 0.0).sum()
        return cls(squared, pixels, seen, kl, nats, variance.sqrt())

    def objective(self, loss: Tensor, passed: Passed) -> Objective:
        tiles = self.seen.sum().clamp(min=1)
        return Objective(
            loss=loss / tiles,
            reconstruction=self.nats / tiles,
            kl=self.kl / tiles,
            sigma=self.sigma,
            sums=self.detached(self.nats),
            passed=passed,
        )

    def detached(self, nats: Tensor) -> Sums:
        return Sums(*(part.detach().double() for part in (self.squared, self.pixels, self.seen.sum(), self.kl, nats)))


def _importance_weighted(
    network: Forward,
    core: VAE,
    x: Tensor,
    valid: Tensor,
    settings: TrainSettings,
    beta: float,
    draw: Draw,
    given: Given | None,
) -> Objective:
    """The importance-weighted bound; each tile stands `samples` times in the batch."""
    count = settings.samples

    def repeated(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.repeat_interleave(count, dim=0)

    many, masks = x.repeat_interleave(count, dim=0), valid.repeat_interleave(count, dim=0)
    shown = many + settings.input_noise * draw(many.shape) if settings.input_noise else many
    told = None if given is None else Given(*(repeated(part) for part in given))
    passed = network(shown, masks, draw, told)
    sums = _Sums.of(core, many, masks, passed)
    nats = _nats(core, many, masks, passed, sums.sigma.detach()).sum(dim=(1, 2, 3))
    weights = (-nats - beta * passed.log_ratio).view(-1, count)
    seen = valid.flatten(1).any(dim=1)
    bound = torch.where(seen, torch.logsumexp(weights, dim=1) - math.log(count), 0.0)
    penalty = torch.where(sums.seen, passed.penalty, 0.0).sum() / count
    found = sums.objective(penalty - bound.sum(), passed)
    # Sums and σ are those of all samples together, so that they stay comparable: pixels and tiles count `count` times.
    return found._replace(loss=(penalty - bound.sum()) / seen.sum().clamp(min=1))


def _beyond_free(passed: Passed, seen: Tensor, free: float) -> Tensor:
    """The KL that is charged: of each channel, its mean over the tiles, but no less than is free.

    Kingma et al. (2016), Improved variational inference with inverse autoregressive flow.
    """
    tiles = seen.sum()
    channels = torch.where(seen[:, None], passed.kl, 0.0).sum(dim=0) / tiles.clamp(min=1)
    return channels.clamp(min=free).sum() * tiles


def _nats(core: VAE, x: Tensor, valid: Tensor, passed: Passed, sigma: Tensor) -> Tensor:
    """(B, C, H, W) negative log-likelihood, 0 where masked; no gradient of a masked pixel passes."""
    mask = valid[:, None]
    raw = torch.where(mask, passed.raw.float(), 0.0)
    return torch.where(mask, core.likelihood.nats(torch.where(mask, x, 0.0), raw, sigma), 0.0)


def _squared_residuals(x: Tensor, valid: Tensor, expected: Tensor) -> Tensor:
    """(C,) sums of squared residuals; masked first, so that neither value nor gradient of a masked pixel passes."""
    mask = valid[:, None]
    return (torch.where(mask, x, 0.0) - torch.where(mask, expected, 0.0)).square().sum(dim=(0, 2, 3))


def _variance(squared: Tensor, pixels: Tensor, shared: bool) -> Tensor:
    """(C,) of each band, or of all together."""
    variance = squared / pixels.clamp(min=1)
    if shared:
        variance = variance.mean().expand_as(variance)
    return variance.clamp(min=VARIANCE_FLOOR)


def _bare(network: Forward) -> VAE:
    if not isinstance(network, VAE):
        raise TypeError(f"say which network {type(network).__name__} wraps: objective(..., core=network)")
    return network

"""Every score a tile can get: one registry of pure functions.

A score takes `Evidence` and gives either a map (B, H, W), which is then pooled over the valid pixels, or one number a
tile (B,). Higher means more anomalous. To add one, write the function and register it; calibration, drift, reports and
tests find it here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vae.errors import ScoreError
from vae.objectives import kl_divergence

Pool = Literal["mean", "p90"]


@dataclass(frozen=True)
class Evidence:
    """What a score may look at.

    Args:
        x: (B, C, H, W) normalised bands, 0 where masked.
        valid: (B, H, W) bool.
        expected: (B, C, H, W) decoded posterior mean.
        mu: (B, L, h, w) posterior means.
        logvar: (B, L, h, w) posterior log-variances.
        sigma: (C,) standard deviation of the residuals of each band over the training tiles.
    """

    x: Tensor
    valid: Tensor
    expected: Tensor
    mu: Tensor
    logvar: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Score:
    """A registered score. `least` gives the smallest value it can take, for a detector's sigma (C,)."""

    name: str
    compute: Callable[[Evidence], Tensor]
    least: Callable[[Tensor], float]


SCORES: dict[str, Score] = {}


def score(
    name: str, least: Callable[[Tensor], float] = lambda sigma: 0.0
) -> Callable[[Callable[[Evidence], Tensor]], Callable[[Evidence], Tensor]]:
    """Register a score under a name.

    ```python
    @score("brightest")
    def brightest(evidence: Evidence) -> Tensor:
        return (evidence.x - evidence.expected).amax(dim=1).clamp(min=0)
    ```
    """

    def register(compute: Callable[[Evidence], Tensor]) -> Callable[[Evidence], Tensor]:
        SCORES[name] = Score(name, compute, least)
        return compute

    return register


def find(name: str) -> Score:
    """The score of this name.

    Raises:
        ScoreError: There is none; names the nearest and all.
    """
    if name not in SCORES:
        near = difflib.get_close_matches(name, SCORES, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ScoreError(f"there is no score {name!r}.{meant} The scores are: {', '.join(sorted(SCORES))}")
    return SCORES[name]


def _least_nll(sigma: Tensor) -> float:
    return float(0.5 * torch.log(2 * math.pi * sigma.double().square()).sum())


@score("reconstruction")
def reconstruction(evidence: Evidence) -> Tensor:
    """(B, H, W) squared residual of each band in units of its variance in training, mean over the bands.

    1 is as well as the decoder does on its training tiles, whatever the band: the masked reconstruction error of a
    calibrated decoder (Rybkin, Daniilidis & Levine 2021).
    """
    sigma = evidence.sigma.view(1, -1, 1, 1)
    return ((evidence.x - evidence.expected) / sigma).square().mean(dim=1)


@score("squared_error")
def squared_error(evidence: Evidence) -> Tensor:
    """(B, H, W) squared residual in normalised units, mean over the bands: all bands alike, however hard they are."""
    return (evidence.x - evidence.expected).square().mean(dim=1)


@score("nll", least=_least_nll)
def nll(evidence: Evidence) -> Tensor:
    """(B, H, W) Gaussian negative log-likelihood, nats a pixel: bands that are always well expected count for more."""
    sigma = evidence.sigma.view(1, -1, 1, 1)
    standardised = (evidence.x - evidence.expected) / sigma
    return 0.5 * (standardised.square() + torch.log(2 * math.pi * sigma.square())).sum(dim=1)


@score("kl")
def kl(evidence: Evidence) -> Tensor:
    """(B,) how far the posterior lies from the prior, nats: the novelty of the latent."""
    return kl_divergence(evidence.mu, evidence.logvar).flatten(1).sum(dim=1)


def pool(values: Tensor, valid: Tensor, how: Pool) -> Tensor:
    """One number a tile from its valid pixels.

    Args:
        values: (B, H, W); what is masked may hold anything.
        valid: (B, H, W) bool.
        how: `mean`, or `p90`, the exact 90th percentile of the valid pixels with linear interpolation.

    Returns:
        (B,) float64, NaN for a tile without valid pixels.
    """
    flat, mask = values.flatten(1).double(), valid.flatten(1)
    count = mask.sum(dim=1)
    if how == "mean":
        return torch.where(mask, flat, 0.0).sum(dim=1) / count
    if how != "p90":
        raise ScoreError(f"there is no pooling {how!r}: use 'mean' or 'p90'")
    ordered = torch.where(mask, flat, math.inf).sort(dim=1).values
    position = 0.9 * (count - 1).clamp(min=0).double()
    below = position.floor().long()
    above = torch.minimum(below + 1, (count - 1).clamp(min=0))
    low, high = (ordered.gather(1, at[:, None])[:, 0] for at in (below, above))
    return torch.where(count > 0, low + (high - low) * (position - below), math.nan)

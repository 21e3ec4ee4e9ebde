"""Scores in the latent space: how far a tile lies from normal ones, and from what its past lets expect there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from vae.networks import Passed
from vae.scores.evidence import Evidence
from vae.scores.registry import score

NEIGHBOURS = 5
MOST_REMEMBERED = 4096  # tiles


def _means(evidence: Evidence) -> Tensor:
    """(B, L) posterior means, averaged over the tile."""
    return evidence.mu.mean(dim=(2, 3))  # both at once: from a mean over one OpenVINO 2026.4 subtracts wrongly


def _gathered(evidences: Iterable[Evidence]) -> Tensor:
    """(N, L) latent means of the tiles with a valid pixel."""
    return torch.cat([_means(evidence)[evidence.valid.flatten(1).any(dim=1)] for evidence in evidences])


def learn_covariance(evidences: Iterable[Evidence]) -> dict[str, Tensor]:
    """Mean (L,) and precision (L, L) of the latents, the covariance shrunk towards a multiple of the identity.

    The weight is that of Chen, Wiesel, Eldar & Hero (2010), Shrinkage algorithms for MMSE covariance estimation (OAS).
    """
    latents = _gathered(evidences).double()
    count, size = latents.shape
    mean = latents.mean(dim=0)
    away = latents - mean
    covariance = away.T @ away / count
    trace, squared = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / size) * squared + trace.square()
    below = (count + 1 - 2 / size) * (squared - trace.square() / size)
    weight = float((above / below).clamp(0, 1)) if float(below) > 0 else 1.0
    shrunk = (1 - weight) * covariance + weight * (trace / size).clamp(min=1e-12) * torch.eye(size).to(covariance)
    return {"mean": mean.float(), "precision": torch.linalg.inv(shrunk).float()}


def learn_memory(evidences: Iterable[Evidence]) -> dict[str, Tensor]:
    """Latents of normal tiles, (M, L), at most `MOST_REMEMBERED`, evenly chosen."""
    latents = _gathered(evidences)
    if len(latents) > MOST_REMEMBERED:
        latents = latents[torch.arange(MOST_REMEMBERED) * len(latents) // MOST_REMEMBERED]
    return {"memory": latents.contiguous()}


@score("latent_mahalanobis", "network", learn=learn_covariance)
def latent_mahalanobis(evidence: Evidence) -> Tensor:
    """(B,) squared Mahalanobis distance of the tile's latent mean from those of normal tiles, a dimension.

    Lee et al. (2018), A simple unified framework for detecting out-of-distribution samples and adversarial attacks.
    """
    away = _means(evidence) - evidence.constant("mean")
    return (away @ evidence.constant("precision") * away).sum(dim=1).clamp(min=0) / away.shape[1]


@score("latent_knn", "network", learn=learn_memory)
def latent_knn(evidence: Evidence) -> Tensor:
    """(B,) mean distance of the tile's latent mean to its nearest neighbours among normal tiles.

    Sun, Ming, Zhu & Li (2022), Out-of-distribution detection with deep nearest neighbors.
    """
    memory = evidence.constant("memory")
    distances = torch.cdist(_means(evidence), memory, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(min(NEIGHBOURS, len(memory)), largest=False).values.mean(dim=1)


def _nearest(evidence: Evidence, distance: Callable[[Passed, Passed], Tensor]) -> Tensor:
    """(B,) distance to what is remembered and nearest: what was to be expected and, where there is one, the witness.

    The memory of RaVÆn: Růžička et al. (2022), RaVÆn: unsupervised change detection of extreme events using ML on-board
    satellites.
    """
    found = distance(*evidence.beside_expected)
    witness, seen = evidence.beside_witness, evidence.before.witness_valid
    if witness is None or seen is None:
        return found
    remembered = (evidence.valid & seen).flatten(1).any(dim=1)
    return torch.where(remembered, torch.minimum(found, distance(*witness)), found)


@score("latent_cosine", "network", "past")
def latent_cosine(evidence: Evidence) -> Tensor:
    """(B,) cosine distance of the posterior means of the tile and of what is remembered, 0 to 2: RaVÆn's headline."""
    return _nearest(evidence, lambda one, other: 1 - F.cosine_similarity(one.mu.flatten(1), other.mu.flatten(1), dim=1))


@score("latent_l2", "network", "past")
def latent_l2(evidence: Evidence) -> Tensor:
    """(B,) Euclidean distance of the posterior means of the tile and of what is remembered."""
    return _nearest(evidence, lambda one, other: (one.mu - other.mu).flatten(1).square().sum(dim=1).sqrt())


@score("latent_kl", "network", "past")
def latent_kl(evidence: Evidence) -> Tensor:
    """(B,) divergence KL(q(z | tile) ‖ q(z | remembered)), nats."""

    def divergence(one: Passed, other: Passed) -> Tensor:
        ratio = (one.logvar - other.logvar).exp() + (one.mu - other.mu).square() / other.logvar.exp()
        return 0.5 * (ratio - 1 - one.logvar + other.logvar).flatten(1).sum(dim=1).clamp(min=0)

    return _nearest(evidence, divergence)


@score("latent_wasserstein", "network", "past")
def latent_wasserstein(evidence: Evidence) -> Tensor:
    """(B,) 2-Wasserstein distance of the two posteriors (diagonal Gaussians; Dowson & Landau 1982)."""

    def distance(one: Passed, other: Passed) -> Tensor:
        apart = (one.mu - other.mu).square() + ((0.5 * one.logvar).exp() - (0.5 * other.logvar).exp()).square()
        return apart.flatten(1).sum(dim=1).sqrt()

    return _nearest(evidence, distance)

"""How far two sets of features lie apart, and how one set is laid out flat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vae.errors import ShapeError

Features = NDArray[np.floating]  # (N, K), a row each


@dataclass(frozen=True)
class Discrepancy:
    """The squared maximum mean discrepancy of two samples, and what it is by chance.

    Attributes:
        squared: The unbiased estimate MMD²_u, of which 0 is expected where both come from one distribution: it can be
            negative.
        by_chance: What 95 of 100 random divisions of the pooled sample stay below.
        bandwidth: σ of the kernel exp(-d² / 2σ²), in the units of the features.
    """

    squared: float
    by_chance: float
    bandwidth: float


@dataclass(frozen=True)
class Principal:
    """The two directions of most variance.

    Attributes:
        centre: (K,) mean of the features.
        axes: (2, K) unit vectors.
        places: (N, 2) where each row lies along them.
        explained: (2,) share of the variance.
    """

    centre: Features
    axes: Features
    places: Features
    explained: Features


def maximum_mean_discrepancy(
    first: Features, second: Features, draw: np.random.Generator, permutations: int = 200
) -> Discrepancy:
    """MMD²_u with a Gaussian (RBF) kernel: equation 3 of Gretton et al. (2012), A Kernel Two-Sample Test, JMLR 13.

    The bandwidth is the median distance within the pooled sample, the heuristic of that paper's section 8, and chance
    is judged by permutations, as in its section 5. Time and memory grow with the square of the rows.

    Args:
        first: (M, K), two rows at least.
        second: (N, K), two rows at least.
        draw: Of the permutations.
        permutations: How often the pooled sample is divided at random.

    Raises:
        ShapeError: Too few rows, or different features.
    """
    _check(first, second)
    pooled = np.concatenate([first, second]).astype(np.float64)
    squares = _squared_distances(pooled)
    median = float(np.median(np.sqrt(squares[np.triu_indices(len(pooled), 1)])))
    bandwidth = median or 1.0  # most rows are the same: any width tells these from the rest
    kernel = np.exp(-squares / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0.0)  # a row with itself is what makes the simple estimate biased
    chosen = np.zeros((1 + permutations, len(pooled)))
    chosen[0, : len(first)] = 1.0
    for row in chosen[1:]:
        row[draw.permutation(len(pooled))[: len(first)]] = 1.0
    estimates = _unbiased(kernel, chosen, len(first), len(second))
    return Discrepancy(float(estimates[0]), float(np.quantile(estimates[1:], 0.95)), bandwidth)


def frechet_distance(first: Features, second: Features) -> float:
    """|μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½), the squared distance between Gaussians with these moments.

    Heusel et al. (2017), GANs Trained by a Two Time-Scale Update Rule, NeurIPS, there on features of a network for
    photographs. With few rows it is too large: compare values of equally many rows only.

    Args:
        first: (M, K), two rows at least.
        second: (N, K), two rows at least.

    Raises:
        ShapeError: Too few rows, or different features.
    """
    _check(first, second)
    one, other = (np.asarray(features, np.float64) for features in (first, second))
    shift = one.mean(axis=0) - other.mean(axis=0)
    one_spread, other_spread = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (one, other))
    root = _root(one_spread)
    # C₁ C₂ has the eigenvalues of the symmetric C₁^½ C₂ C₁^½, of which rounding makes none complex.
    common = np.linalg.eigvalsh(root @ other_spread @ root).clip(min=0)
    distance = shift @ shift + np.trace(one_spread) + np.trace(other_spread) - 2 * np.sqrt(common).sum()
    return max(0.0, float(distance))


def principal_plane(features: Features) -> Principal:
    """Principal components by singular value decomposition (Pearson 1901; Hotelling 1933).

    A component's sign is free; here its entry of largest size is positive, so that the same data give the same map.

    Args:
        features: (N, K). Fewer than two features, or less rank, leave a coordinate at 0.
    """
    values = np.asarray(features, np.float64)
    centre = values.mean(axis=0)
    _, singular, axes = np.linalg.svd(values - centre, full_matrices=False)
    plane, variance = np.zeros((2, values.shape[1])), np.zeros(2)
    kept = min(2, len(singular))
    largest = np.abs(axes[:kept]).argmax(axis=1)
    plane[:kept] = axes[:kept] * np.where(axes[np.arange(kept), largest] < 0, -1.0, 1.0)[:, None]
    variance[:kept] = singular[:kept] ** 2
    total = float((singular**2).sum())
    return Principal(centre, plane, (values - centre) @ plane.T, variance / total if total else variance)


def _unbiased(kernel: Features, chosen: Features, first: int, second: int) -> Features:
    """MMD²_u of several divisions of the rows at once; the kernel's diagonal is 0, `chosen` (P, M + N) is 1 or 0."""
    others = 1.0 - chosen
    across = chosen @ kernel
    within_first = (across * chosen).sum(axis=1) / (first * (first - 1))
    within_second = ((others @ kernel) * others).sum(axis=1) / (second * (second - 1))
    return within_first + within_second - 2 * (across * others).sum(axis=1) / (first * second)


def _squared_distances(rows: Features) -> Features:
    squares = (rows**2).sum(axis=1)
    return np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0)


def _root(symmetric: Features) -> Features:
    """The root of a covariance."""
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def _check(first: Features, second: Features) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ShapeError(
            f"two samples are compared by features (N, K) of two rows or more each, got {first.shape} "
            f"and {second.shape}"
        )

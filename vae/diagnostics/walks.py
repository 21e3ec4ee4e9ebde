"""Ways through the latent: between two tiles, along one channel, from one group of tiles to another.

All are ways through the coarsest level, whose prior is N(0, 1); finer levels follow it, as their prior expects them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vae.diagnostics.subject import Array, Rows, Subject, features_of, told_again

Tiles = NDArray[np.float32]  # (..., C, H, W), physical units

STEPS = 7
TRAVERSED, VALUES = 6, (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # channels, and standard deviations of the prior
SHOWN = 4  # tiles of a group
SMALL_ANGLE = 1e-4  # radians, between directions that are the same or opposite: there is no circle through them
FEWEST = 3  # tiles of a group whose mean says something


@dataclass(frozen=True)
class Interpolation:
    """Two tiles (2, C, H, W) with their masks (2, H, W), and decoded steps (T, C, H, W) from one to the other.

    A network that is told something is told the same on the whole way: what goes with the first tile.
    """

    ends: Tiles
    valid: NDArray[np.bool_]
    tiles: Tiles


@dataclass(frozen=True)
class Traversal:
    """One tile decoded with one channel of the latent set to the same value in all cells, for several values.

    channel: Its number. values: (V,) what it is set to. tiles: (V, C, H, W).
    """

    channel: int
    values: tuple[float, ...]
    tiles: Tiles


@dataclass(frozen=True)
class Arithmetic:
    """Tiles of one group with the difference of two groups' mean latents added.

    Attributes:
        start, goal: Names of the groups.
        originals, valid: (P, C, H, W) and (P, H, W), tiles of the start.
        reconstructed: (P, C, H, W) decoded as they are.
        moved: (P, C, H, W) decoded with the difference.
        goal_originals, goal_valid: (P, C, H, W) and (P, H, W), tiles of the goal to compare with.
        reached: Share of all tiles of the start that, moved, decoded and encoded again, lie nearer to the goal's mean.
    """

    start: str
    goal: str
    originals: Tiles
    valid: NDArray[np.bool_]
    reconstructed: Tiles
    moved: Tiles
    goal_originals: Tiles
    goal_valid: NDArray[np.bool_]
    reached: float


def between(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Latents (T, L, h, w) on a great circle from one latent to another, both (1, L, h, w).

    The direction turns at a steady pace and the length changes at one (Shoemake 1985, Animating Rotation with
    Quaternion Curves). Draws of a standard normal in many dimensions lie near a sphere, and a straight line between two
    of them cuts through where there are none: White (2016), Sampling Generative Networks. Between latents in one
    direction, or in opposite ones, the way is straight.
    """
    shares = torch.linspace(0, 1, steps, dtype=torch.float64, device=first.device)[:, None]
    one, other = first.flatten().double(), second.flatten().double()
    lengths = one.norm(), other.norm()
    apart = lengths[0] * lengths[1]
    angle = torch.arccos((one @ other / apart).clamp(-1, 1)) if apart > 0 else one.new_zeros(())
    if SMALL_ANGLE < angle < torch.pi - SMALL_ANGLE:
        turned = torch.sin((1 - shares) * angle) * one / lengths[0] + torch.sin(shares * angle) * other / lengths[1]
        way = torch.lerp(*lengths, shares) * turned / torch.sin(angle)
    else:
        way = one + shares * (other - one)
    return way.view(steps, *first.shape[1:]).to(first.dtype)


def along(latent: Tensor, channel: int, values: Sequence[float]) -> Tensor:
    """A latent (1, L, h, w) so many times, with one channel set to each of the values in all its cells."""
    repeated = latent.repeat(len(values), 1, 1, 1)
    repeated[:, channel] = repeated.new_tensor(values)[:, None, None]
    return repeated


def two_groups(labels: Sequence[str]) -> tuple[str, str] | None:
    """The two groups with most tiles, in the order of their names; None when there are no two of `FEWEST` tiles."""
    counts = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    large = [name for name, count in counts if count >= FEWEST]
    return (min(large[:2]), max(large[:2])) if len(large) >= 2 else None


def interpolations(subject: Subject, rows: Rows) -> Iterator[Interpolation]:
    """Ways between the first and second of these tiles, the third and fourth, and so on."""
    for first, second in zip(rows[::2], rows[1::2], strict=False):
        pair = np.array([first, second])
        x, valid, given = subject.batch(pair)
        mu = subject.network(x, valid, None, given).mu
        told = told_again(subject.batch(pair[:1]).given, STEPS)
        yield Interpolation(*subject.originals(pair), subject.decoded(between(mu[:1], mu[1:], STEPS), told))


def traversals(subject: Subject, features: Array, kl: Array) -> Iterator[Traversal]:
    """Along the channels with most KL, (L,), from the tile whose features (N, L) are nearest to the mean."""
    typical = np.square(features - features.mean(axis=0)).sum(axis=1).argmin()
    x, valid, given = subject.batch(np.array([typical]))
    mu, told = subject.network(x, valid, None, given).mu, told_again(given, len(VALUES))
    for channel in np.argsort(-kl, kind="stable")[:TRAVERSED]:
        yield Traversal(int(channel), VALUES, subject.decoded(along(mu, int(channel), VALUES), told))


def arithmetic(subject: Subject, features: Array, labels: Sequence[str]) -> Arithmetic | None:
    """From one of the two largest groups to the other, by the difference of their mean features (N, L).

    None when there are no two groups of `FEWEST` tiles.
    """
    groups = two_groups(labels)
    if groups is None:
        return None
    start, goal = (np.flatnonzero(np.array(labels) == name) for name in groups)
    means = np.stack([features[rows].mean(axis=0) for rows in (start, goal)])
    decoded: list[tuple[Tiles, Tiles]] = []
    nearer = 0
    for x, valid, given in subject.batches(start):
        mu = subject.network(x, valid, None, given).mu
        moved = subject.expected(mu + mu.new_tensor(means[1] - means[0]).view(1, -1, 1, 1), given)
        found = features_of((subject.network(moved, valid, None, given).mu,))
        away = np.square(found[:, None] - means).sum(axis=2)
        nearer += int((away[:, 1] < away[:, 0]).sum())
        if not decoded:
            shown = slice(min(SHOWN, len(start)))
            decoded.append((subject.decoded(mu, given)[shown], subject.physical(moved)[shown]))
    return Arithmetic(
        *groups,
        *subject.originals(start[:SHOWN]),
        *decoded[0],
        *subject.originals(goal[:SHOWN]),
        reached=nearer / len(start),
    )

"""Which latents lie nearest to another one, streamed over any number of them in bounded memory.

A latent map is averaged over its cells, channel by channel: what a tile shows counts, and not where in the tile, which
is a matter of how the grid lies. Distances are Euclidean in units of each channel's spread over the tiles, and channels
that are not in use are left out: in units of its spread, the noise of a collapsed channel would count as much as what
the others tell. (Cosine, the other usual choice, depends on where the origin lies, and calls a faint tile like a strong
one of the same direction.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vae.diagnostics.channels import ACTIVE
from vae.errors import VaeError

Floats = NDArray[np.float64]


class NothingLearned(VaeError):
    """No channel of the latents is in use, so that all tiles look alike to the network."""


@dataclass(frozen=True)
class Moments:
    """Count, mean (D,) and sum of squared deviations (D,) of vectors; merged as Chan, Golub & LeVeque (1979) do."""

    count: int
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Moments:
        """Of (N, D) vectors, N > 0."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        return cls(len(vectors), mean, np.square(vectors - mean).sum(axis=0))

    def merge(self, other: Moments) -> Moments:
        """Of these vectors and others together."""
        count = self.count + other.count
        off = other.mean - self.mean
        squares = self.squares + other.squares + np.square(off) * (self.count * other.count / count)
        return Moments(count, self.mean + off * (other.count / count), squares)

    @property
    def variance(self) -> Floats:
        """(D,)."""
        return self.squares / self.count


@dataclass(frozen=True)
class Spread:
    """How latents vary over tiles, cell by cell and averaged over the cells; put together batch by batch.

    Attributes:
        shape: (L, h, w) of a latent.
        cells: Of the L · h · w numbers.
        means: Of the L averages over the cells.
    """

    shape: tuple[int, int, int]
    cells: Moments
    means: Moments

    @classmethod
    def of(cls, latents: NDArray[np.float32], shape: tuple[int, int, int]) -> Spread:
        """Of (N, L · h · w) latents, N > 0."""
        return cls(shape, Moments.of(latents), Moments.of(averaged(latents, shape)))

    def merge(self, other: Spread) -> Spread:
        """Of these latents and others together."""
        return Spread(self.shape, self.cells.merge(other.cells), self.means.merge(other.means))

    @property
    def active(self) -> NDArray[np.bool_]:
        """(L,) whether a channel is in use, as `vae.diagnostics.channels` has it: Burda et al. (2016)."""
        activity = self.cells.variance.reshape(self.shape[0], -1).mean(axis=1)
        return np.asarray((activity > ACTIVE) & (self.means.variance > 0))

    def metric(self) -> Metric:
        """Distances in units of these spreads.

        Raises:
            NothingLearned: No channel is in use.
        """
        active = self.active
        if not active.any():
            raise NothingLearned(
                f"none of the {len(active)} latent channels is in use (posterior collapse), so all tiles look alike: "
                "see the diagnosis of the training"
            )
        return Metric(self.shape, active, np.sqrt(self.means.variance[active]))


@dataclass(frozen=True)
class Metric:
    """Distances between tiles by their latents.

    Attributes:
        shape: (L, h, w) of a latent.
        active: (L,) which channels count.
        spread: Standard deviation over the tiles of each of these.
    """

    shape: tuple[int, int, int]
    active: NDArray[np.bool_]
    spread: Floats

    def point(self, latents: NDArray[np.float32]) -> Floats:
        """(N, A) latents (N, L · h · w) in units of the spreads."""
        return averaged(latents, self.shape)[:, self.active] / self.spread

    def distances(self, latents: NDArray[np.float32], to: Floats) -> Floats:
        """(N,) root mean square over the channels of the differences to a `point` (A,), in spreads.

        Two tiles drawn at random are about √2 apart.
        """
        return np.asarray(np.sqrt(np.square(self.point(latents) - to).mean(axis=1)))


def averaged(latents: NDArray[np.float32], shape: tuple[int, int, int]) -> Floats:
    """(N, L) means over the cells of latents (N, L · h · w)."""
    return latents.reshape(len(latents), shape[0], -1).mean(axis=2, dtype=np.float64)


@dataclass(frozen=True, order=True)
class Neighbour:
    """A tile on a scene, and how far it is. Equally far ones are in the order of their names."""

    distance: float
    scene_id: str
    tile_id: str


class Nearest:
    """The nearest of all tiles that are added, in any order.

    Args:
        count: So many.
        each: At most so many scenes of one tile.
    """

    def __init__(self, count: int, each: int = 1) -> None:
        self._count, self._each = count, each
        self._kept: list[Neighbour] = []

    @property
    def found(self) -> list[Neighbour]:
        """The nearest first."""
        return list(self._kept)

    @property
    def bound(self) -> float:
        """A tile that is farther than this is none of the nearest."""
        return self._kept[-1].distance if len(self._kept) == self._count else np.inf

    def candidates(self, distances: Floats) -> NDArray[np.intp]:
        """Which tiles of one scene can be among the nearest, by their distances; no tile may come twice in it."""
        near = np.flatnonzero(distances <= self.bound)
        if len(near) > self._count:
            limit = np.partition(distances[near], self._count - 1)[self._count - 1]
            near = near[distances[near] <= limit]
        return near

    def add(self, distances: Sequence[float], scene_id: str, tile_ids: Sequence[str]) -> None:
        """Take up tiles of a scene.

        What falls out could not come back: of a tile, `each` nearer scenes are known, or `count` nearer tiles.
        """
        new = [Neighbour(float(one), scene_id, name) for one, name in zip(distances, tile_ids, strict=True)]
        seen: Counter[str] = Counter()
        kept: list[Neighbour] = []
        for one in sorted(self._kept + new):
            if len(kept) == self._count:
                break
            if seen[one.tile_id] < self._each:
                seen[one.tile_id] += 1
                kept.append(one)
        self._kept = kept

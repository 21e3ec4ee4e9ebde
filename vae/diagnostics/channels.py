"""Which channels of a latent are in use, and what is wrong when few are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

ACTIVE = 0.01  # variance of a posterior mean over tiles above which its channel is in use: Burda et al. (2016)
FEW_ACTIVE = 0.25  # a smaller share of active channels is called a collapse
IDLE = 0.1  # nats a tile: a finer level of less has learned nothing
FEW_CODES = 0.1  # the same of the codes that are used in effect
MEANS, SPREADS = np.linspace(-4, 4, 49), np.linspace(0, 1.5, 46)  # edges of the histograms


@dataclass(frozen=True)
class Channels:
    """The channels of the coarsest level, whose prior is N(0, 1).

    Attributes:
        activity: (L,) variance over the tiles of the posterior mean, averaged over the cells. What varies over the
            cells does not count: the rim of a tile is seen differently from its middle, by idle channels as well.
        means: (L, 48) how many posterior means lie between the edges `MEANS`; the outermost hold what lies beyond.
        spreads: (L, 45) the same of the posterior standard deviations and `SPREADS`.
    """

    activity: Array
    means: NDArray[np.int64]
    spreads: NDArray[np.int64]

    @property
    def active(self) -> NDArray[np.bool_]:
        """(L,) whether a channel is in use: Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders."""
        return self.activity > ACTIVE

    @classmethod
    def of(cls, mu: Array, sigma: Array) -> Channels:
        """From posterior means and standard deviations (N, L, h, w)."""
        return cls(mu.astype(np.float64).var(axis=0).mean(axis=(1, 2)), _counted(mu, MEANS), _counted(sigma, SPREADS))


@dataclass(frozen=True)
class Codes:
    """Of a quantised latent: codes there are, codes that the tiles use, and how many these are in effect.

    perplexity: Exponential of the entropy of their use; all codes used alike give their number.
    """

    known: int
    used: int
    cells: int
    perplexity: float

    @classmethod
    def of(cls, chosen: Array, known: int) -> Codes:
        """From the codes (N, L, h, w) that tiles got, of so many."""
        flat = np.moveaxis(chosen, 1, -1).reshape(-1, chosen.shape[1])
        _, counts = np.unique(flat, axis=0, return_counts=True)
        shares = counts / counts.sum()
        return cls(known, len(counts), len(flat), float(np.exp(-(shares * np.log(shares)).sum())))


def collapses(channels: Channels | None, kl: Array | None, codes: Codes | None) -> Iterator[str]:
    """What of the latent is not in use, in words.

    Args:
        channels: Of the coarsest level.
        kl: (levels, L) nats a tile, coarsest level first.
        codes: Of a quantised latent.
    """
    if channels is not None and channels.active.mean() < FEW_ACTIVE:
        yield (
            f"posterior collapse: {channels.active.sum()} of {len(channels.active)} latent channels are active "
            f"(variance of the posterior mean over tiles above {ACTIVE:g}); the others stay as they are whatever the "
            "tile shows. "
            "Try a longer train.kl_warmup, train.free_bits, a smaller train.beta, or fewer model.latent_channels"
        )
    for level, nats in enumerate([] if kl is None else kl.sum(axis=1)[1:], start=2):
        if nats < IDLE:
            yield (
                f"level {level} of the latent is not in use: its KL is {nats:.2g} nats a tile. "
                "Fewer model.levels do as well; train.free_bits makes it learn"
            )
    if codes is not None and codes.perplexity < FEW_CODES * min(codes.known, codes.cells):
        yield (
            f"the codes have collapsed: {codes.used} of {codes.known} are used, and they are worth "
            f"{codes.perplexity:.1f} that are used alike. Fewer model.codes do as well"
        )


def _counted(values: Array, edges: Array) -> NDArray[np.int64]:
    """(L, bins) of (N, L, h, w)."""
    within = np.clip(values, edges[0], edges[-1])
    return np.stack([np.histogram(within[:, channel], edges)[0] for channel in range(values.shape[1])])

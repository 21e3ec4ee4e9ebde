"""A diagnosis: everything that is worked out of a network on a few held-out tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vae.diagnostics import walks
from vae.diagnostics.channels import Channels, Codes, collapses
from vae.diagnostics.distances import (
    Discrepancy,
    Principal,
    frechet_distance,
    maximum_mean_discrepancy,
    principal_plane,
)
from vae.diagnostics.subject import Array, Rows, Subject, features_of, spread
from vae.errors import ShapeError
from vae.networks import VAE
from vae.normalisation import Normalisation
from vae.objectives import Sums, batch_sums, elbo_per_dimension, importance_bound
from vae.tiles import TileArrays

MOST_TILES = 256
BOUND_TILES, BOUND_DRAWS = 64, 16  # of the importance-weighted bound, for which every draw passes the network
PICTURES, SAMPLES = 6, 12
ELBO_DRAWS, SAMPLE_DRAWS, BOUND_PART, CHANCE = range(4)  # parts with a seed of their own


@dataclass(frozen=True)
class Pictures:
    """Tiles to look at, physical units.

    Attributes:
        originals, valid: (P, C, H, W) and (P, H, W).
        reconstructed: (P, C, H, W) decoded posterior means.
        samples: (S, C, H, W) decoded draws of the prior. Like all that is decoded they are means: no noise is added.
    """

    originals: walks.Tiles
    valid: NDArray[np.bool_]
    reconstructed: walks.Tiles
    samples: walks.Tiles


@dataclass(frozen=True)
class Bound:
    """The importance-weighted bound of some tiles beside the ELBO of the same ones, nats per valid dimension."""

    importance: float
    elbo: float
    tiles: int
    draws: int


@dataclass(frozen=True)
class Diagnosis:
    """A network on held-out tiles. What has no meaning for it is None or empty, and `left_out` says why.

    Attributes:
        bands: Their names.
        tiles: How many tiles were looked at.
        seed: Of all draws.
        elbo: Evidence lower bound at β = 1, one draw a tile, nats per valid dimension.
        reconstruction: Negative log-likelihood of the valid pixels, nats a tile.
        kl: Divergence of the posterior from the prior, nats a tile.
        bound: The importance-weighted bound.
        kl_channels: (levels, L) nats a tile of each latent channel, coarsest level first.
        channels: What the channels of the coarsest level do.
        codes: Of a quantised latent.
        features: (N, K) posterior mean of each channel of each level, averaged over the cells.
        labels: Group of each tile.
        plane: Principal components of the features.
        sampled: (N, K) features of decoded draws of the prior, encoded under the masks of the tiles.
        discrepancy: Between `sampled` and `features`.
        frechet: Squared Fréchet distance between them.
        pictures: Tiles to look at.
        interpolations: Between tiles.
        traversals: Along the channels with most KL.
        arithmetic: From one group to another.
        warnings: What is wrong, in words.
        left_out: What has no meaning here, and why.
    """

    bands: tuple[str, ...]
    tiles: int
    seed: int
    elbo: float
    reconstruction: float
    kl: float
    bound: Bound | None
    kl_channels: Array | None
    channels: Channels | None
    codes: Codes | None
    features: Array
    labels: tuple[str, ...] | None
    plane: Principal
    sampled: Array
    discrepancy: Discrepancy | None
    frechet: float | None
    pictures: Pictures
    interpolations: tuple[walks.Interpolation, ...]
    traversals: tuple[walks.Traversal, ...]
    arithmetic: walks.Arithmetic | None
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]

    def numbers(self) -> dict[str, float]:
        """Every number that has a meaning, by name; those of single channels are not among them."""
        found: dict[str, float] = {"elbo": self.elbo, "reconstruction": self.reconstruction, "kl": self.kl}
        if self.bound is not None:
            found |= {"importance_bound": self.bound.importance, "importance_bound_elbo": self.bound.elbo}
        if self.channels is not None:
            found["active_channels"] = float(self.channels.active.sum())
        if self.codes is not None:
            found |= {"codes_used": float(self.codes.used), "codes_perplexity": self.codes.perplexity}
        if self.discrepancy is not None:
            found |= {"mmd2_u": self.discrepancy.squared, "mmd2_u_by_chance": self.discrepancy.by_chance}
        if self.frechet is not None:
            found["frechet"] = self.frechet
        if self.arithmetic is not None:
            found["arithmetic_reached"] = self.arithmetic.reached
        return found


class _Look(NamedTuple):
    """One pass over the tiles: sums, kl (K,) nats a tile, features (N, K), and the coarsest level (N, L, h, w)."""

    sums: Sums
    kl: Array
    features: Array
    mu: Array
    sigma: Array


@torch.inference_mode()
def diagnose(
    network: VAE, tiles: TileArrays, normalisation: Normalisation, seed: int, labels: Sequence[str] | None = None
) -> Diagnosis:
    """Look at a network through held-out tiles. The same network, tiles and seed give the same diagnosis.

    Args:
        network: Left as it was, and in the mode it was in.
        tiles: Of these at most `MOST_TILES` are read, evenly spread; of those, ones without a valid pixel are left out.
        normalisation: Physical to normalised units.
        seed: Of the draws.
        labels: Group of each of the tiles, such as its location: for latent arithmetic and the map.

    Raises:
        ShapeError: No tile with a valid pixel, or a number of labels other than that of the tiles.
    """
    if labels is not None and len(labels) != len(tiles):
        raise ShapeError(f"{len(labels)} labels do not fit {len(tiles)} tiles: give one each")
    rows = spread(len(tiles), MOST_TILES)
    found, values = tiles.rows(rows), tiles.physical(rows)
    valid = found.valid & np.isfinite(values).all(axis=1)
    seen = valid.any(axis=(1, 2))
    if not seen.any():
        raise ShapeError("a network is diagnosed on held-out tiles with valid pixels, and there is none")
    conditions = None if found.conditions is None else found.conditions.rows(seen)
    chosen, rows = TileArrays(values[seen], valid[seen], conditions), rows[seen]
    was_training = network.training
    network.eval()
    try:
        subject = Subject(network, chosen, normalisation, seed)
        return _diagnosis(subject, None if labels is None else tuple(labels[row] for row in rows))
    finally:
        network.train(was_training)


def _diagnosis(subject: Subject, labels: tuple[str, ...] | None) -> Diagnosis:
    settings, count = subject.network.settings, len(subject.tiles)
    ordered = settings.posterior != "quantised"  # latents that have a spread, and others between them
    look = _look(subject)
    coarsest = look.features[:, : settings.latent_channels]
    kl_channels = look.kl.reshape(-1, settings.latent_channels) if ordered else None
    channels = Channels.of(look.mu, look.sigma) if ordered else None
    codes = None if ordered else Codes.of(look.mu, settings.codes)
    sampled, samples = _samples(subject)
    shown = spread(count, PICTURES)
    moved = walks.arithmetic(subject, coarsest, labels) if ordered and labels is not None else None
    chance = np.random.default_rng([subject.seed, CHANCE])
    return Diagnosis(
        bands=subject.normalisation.bands,
        tiles=count,
        seed=subject.seed,
        elbo=elbo_per_dimension(look.sums),
        reconstruction=float(look.sums.nats) / count,
        kl=float(look.sums.kl) / count,
        bound=_bound(subject) if ordered else None,
        kl_channels=kl_channels,
        channels=channels,
        codes=codes,
        features=look.features,
        labels=labels,
        plane=principal_plane(look.features),
        sampled=sampled,
        discrepancy=maximum_mean_discrepancy(sampled, look.features, chance) if count > 1 else None,
        frechet=frechet_distance(sampled, look.features) if count > 1 else None,
        pictures=_pictures(subject, shown, samples),
        interpolations=tuple(walks.interpolations(subject, shown)) if ordered else (),
        traversals=() if kl_channels is None else tuple(walks.traversals(subject, coarsest, kl_channels[0])),
        arithmetic=moved,
        warnings=tuple(collapses(channels, kl_channels, codes)),
        left_out=tuple(_left_out(subject, ordered, labels is not None and moved is None)),
    )


def _look(subject: Subject) -> _Look:
    network, draw = subject.network, subject.draw(ELBO_DRAWS)
    sums: list[Sums] = []
    parts: list[tuple[Array, ...]] = []
    for x, valid, given in subject.batches():
        drawn = network(x, valid, draw, given)
        sums.append(batch_sums(network, x, valid, drawn))
        typical = network(x, valid, None, given)
        numbers = (drawn.kl.double(), typical.mu, (0.5 * typical.logvar).exp())
        parts.append((features_of(typical.z), *(part.cpu().numpy() for part in numbers)))
    features, kl, mu, sigma = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Look(_total(sums), kl.mean(axis=0), features, mu, sigma)


def _bound(subject: Subject) -> Bound:
    network, draw = subject.network, subject.draw(BOUND_PART)
    rows = spread(len(subject.tiles), BOUND_TILES)
    sums: list[Sums] = []
    nats = 0.0
    for x, valid, given in subject.batches(rows):
        sums.append(batch_sums(network, x, valid, network(x, valid, draw, given)))
        nats += float(importance_bound(network, x, valid, draw, BOUND_DRAWS, given).double().sum())
    total = _total(sums)
    dimensions = float(total.pixels) * len(total.squared)
    return Bound(nats / dimensions, elbo_per_dimension(total), len(rows), BOUND_DRAWS)


def _samples(subject: Subject) -> tuple[Array, walks.Tiles]:
    """Features of as many draws of the prior as there are tiles, and the first ones in physical units.

    The encoder sees a sample under the mask of a tile, and a network is told what it is told of that tile: else the two
    would differ by clouds and seasons, and not by what the network believes.
    """
    network, draw = subject.network, subject.draw(SAMPLE_DRAWS)
    features, pictures = [], []
    for _, valid, given in subject.batches():
        tiles = network.sample(len(valid), subject.side, draw, given)
        features.append(features_of(network(tiles, valid, None, given).z))
        pictures.append(subject.physical(tiles[:SAMPLES]))
    return np.concatenate(features), pictures[0]


def _pictures(subject: Subject, rows: Rows, samples: walks.Tiles) -> Pictures:
    x, valid, given = subject.batch(rows)
    made = subject.physical(subject.network(x, valid, None, given).expected)
    return Pictures(*subject.originals(rows), made, samples)


def _left_out(subject: Subject, ordered: bool, alone: bool) -> Iterator[str]:
    settings = subject.network.settings
    if not ordered:
        yield (
            "KL by channel, active channels, histograms, importance-weighted bound, interpolation, traversals and "
            f"latent arithmetic: a quantised latent is one of {settings.codes} codes, with no spread and nothing "
            "between them; its KL is the same for every tile"
        )
    if settings.skips:
        yield (
            "skips: they hold what the encoder saw of a tile, so samples, interpolations, traversals and latent "
            "arithmetic are decoded without them"
        )
    if ordered and alone:
        yield f"latent arithmetic: it needs two groups of {walks.FEWEST} tiles or more"
    if len(subject.tiles) == 1:
        yield "MMD and Fréchet distance: they compare two tiles or more"


def _total(sums: Sequence[Sums]) -> Sums:
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total

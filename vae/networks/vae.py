"""The network: encoder, latent, decoder, fully convolutional, so that a tile of any fitting side passes.

Kingma & Welling (2014), Auto-encoding variational Bayes. Nothing but the latent passes from encoder to decoder, unless
`model.skips` says so, and but what the network is told (`model.condition`), which is not the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from configs.schema import ModelSettings
from vae.errors import ShapeError
from vae.networks.blocks import Up, refinement
from vae.networks.conditions import Given, Pyramid, Told
from vae.networks.likelihoods import build_likelihood
from vae.networks.posteriors import Draw, Latent, Level, build_posterior, coordinates

MOST_WIDENING = 8  # channels stop doubling at this many times the width
CLIP = 3.0

Finer = Callable[[int, Tensor], Tensor]  # number of a finer level and the decoder's state there, to its latent


class Passed(NamedTuple):
    """What one pass through the network gives.

    Attributes:
        expected: (B, C, H, W) the decoder's mean, normalised units.
        raw: (B, C·k, H, W) all that the decoder says, for the likelihood.
        mu: (B, L, h, w) posterior mean of the coarsest level; h = w = 1 of a vector.
        logvar: (B, L, h, w) its log-variance.
        z: The draw of each level, coarsest first, as `VAE.decode` takes it.
        kl: (B, K) nats by latent channel, of all levels one after another, summed over the cells.
        log_ratio: (B,) log q(z|x) - log p(z) at the draw.
        penalty: (B,) what else training has to pay, nats.
    """

    expected: Tensor
    raw: Tensor
    mu: Tensor
    logvar: Tensor
    z: tuple[Tensor, ...]
    kl: Tensor
    log_ratio: Tensor
    penalty: Tensor


class Encoder(nn.Module):
    """Halves the resolution stage by stage."""

    def __init__(self, channels_in: int, channels: Sequence[int], network: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), refinement(network, after))
            for before, after in zip([channels_in, *channels[:-1]], channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """What each stage gives, finest first."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Decoder(nn.Module):
    """Doubles the resolution stage by stage, taking up finer levels, the reference and skips where there are any.

    Args:
        channels_in: Of the latent and what is told.
        channels: Of the encoder's stages.
        channels_out: Of the image.
        settings: The parts.
        image_size: Channels of the reference; 0 without.
    """

    def __init__(
        self, channels_in: int, channels: Sequence[int], channels_out: int, settings: ModelSettings, image_size: int
    ) -> None:
        super().__init__()
        widths = list(channels[::-1])
        self.entry = nn.Conv2d(channels_in, widths[0], 1)
        self.stages = nn.ModuleList(
            nn.Sequential(refinement(settings.network, before), nn.SiLU(), Up(before, after))
            for before, after in zip(widths, [*widths[1:], channels_out], strict=True)
        )
        levels = settings.levels - 1 if settings.posterior == "hierarchical" else 0
        self.levels = nn.ModuleList(Level(widths[n + 1], widths[n + 1], settings) for n in range(levels))
        self.skips = nn.ModuleList(nn.Conv2d(width, width, 1) for width in (widths[1:] if settings.skips else []))
        self.pyramid = Pyramid([*widths, channels_out], image_size) if image_size else None

    def forward(
        self, z: Tensor, finer: Finer, image: Tensor | None = None, features: Sequence[Tensor] | None = None
    ) -> Tensor:
        """(B, channels_out, H, W).

        Args:
            z: (B, channels_in, h, w) coarsest level with what is told.
            finer: Gives the latents of the finer levels on the way.
            image: (B, image_size, H, W) reference.
            features: Of the encoder's stages, finest first, for skips; None leaves them out.
        """
        x = self.entry(z)
        if self.pyramid is not None and image is not None:
            x = self.pyramid(0, x, image)
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number < len(self.levels):
                x = x + self.level(number).into(finer(number, x))
            if number < len(self.skips) and features is not None:
                x = x + self.skips[number](features[-2 - number])
            if self.pyramid is not None and image is not None:
                x = self.pyramid(number + 1, x, image)
        return x

    def level(self, number: int) -> Level:
        """One of the finer levels, the coarsest of them being 0."""
        found = self.levels[number]
        assert isinstance(found, Level)
        return found


class VAE(nn.Module):
    """Encoder, latent and decoder of one detector.

    Args:
        bands: How many bands a tile has.
        settings: Its parts.
        clip: Normalised values lie within ± this.

    The buffer `sigma` (C,) is the standard deviation of the residuals of each band over the training tiles, in
    normalised units. Training sets it; scores and the held-out ELBO use it.
    """

    sigma: Tensor

    def __init__(self, bands: int, settings: ModelSettings, clip: float = CLIP) -> None:
        super().__init__()
        self.bands, self.settings = bands, settings
        channels = [settings.width * min(2**i, MOST_WIDENING) for i in range(settings.depth)]
        self.told = Told(bands, settings)
        told, image = self.told.vector_size, self.told.image_size
        self.likelihood = build_likelihood(bands, settings, clip)
        self.encoder = Encoder(bands + 1 + told + image, channels, settings.network)  # + 1: the mask
        self.posterior = build_posterior(channels[-1], settings)
        placed = 2 if settings.latent == "vector" else 0
        self.decoder = Decoder(
            settings.latent_channels + placed + told, channels, bands * self.likelihood.outputs, settings, image
        )
        self.register_buffer("sigma", torch.ones(bands))

    def forward(self, x: Tensor, valid: Tensor, draw: Draw | None = None, given: Given | None = None) -> Passed:
        """Encode, draw from the posterior, decode.

        Args:
            x: (B, C, H, W) normalised bands; what is masked is ignored, whatever it holds.
            valid: (B, H, W) bool.
            draw: Gives standard normal numbers; without it the posterior mean of each level is decoded.
            given: What the network is told.

        Raises:
            ShapeError: The tiles have other bands, or a side that cannot be halved `depth` times; something that the
                network is to be told is missing.
        """
        vector, image = self.told.vector(given), self.told.image(given)
        features = self.encoder(self._seen(x, valid, vector, image))
        coarsest = self.posterior(features[-1], draw)
        levels: list[Latent] = [coarsest]

        def infer(number: int, state: Tensor) -> Tensor:
            level = self.decoder.level(number).infer(state, features[-2 - number], draw)
            levels.append(level)
            return level.z

        raw = self._decoded(coarsest.z, features[-1].shape[-2:], infer, vector, image, features)
        return Passed(
            expected=self.likelihood.expected(raw),
            raw=raw,
            mu=coarsest.mu,
            logvar=coarsest.logvar,
            z=tuple(level.z for level in levels),
            kl=torch.cat([level.kl for level in levels], dim=1),
            log_ratio=torch.stack([level.log_ratio for level in levels]).sum(dim=0),
            penalty=coarsest.penalty,
        )

    def decode(self, z: tuple[Tensor, ...], side: int, given: Given | None = None) -> Tensor:
        """What the decoder says of latents, (B, C·k, H, W); `likelihood.expected` makes an image of it.

        Args:
            z: (B, L, h, w) of each level, coarsest first. Finer levels that are not given are those that the coarser
                ones let expect.
            side: Of the tiles, pixels.
            given: What the network is told.
        """
        _, _, height, width = self.latent_shape(1, side, cells=True)

        def known(number: int, state: Tensor) -> Tensor:
            return z[number + 1] if number + 1 < len(z) else self.decoder.level(number).prior(state, None)

        return self._decoded(z[0], (height, width), known, self.told.vector(given), self.told.image(given))

    def sample(self, count: int, side: int, draw: Draw, given: Given | None = None) -> Tensor:
        """(count, C, side, side) what the prior lets expect, normalised units."""
        z = self.posterior.prior(self.latent_shape(count, side), draw)
        _, _, height, width = self.latent_shape(1, side, cells=True)

        def drawn(number: int, state: Tensor) -> Tensor:
            return self.decoder.level(number).prior(state, draw)

        raw = self._decoded(z, (height, width), drawn, self.told.vector(given), self.told.image(given))
        return self.likelihood.expected(raw)

    def latent_shape(self, tiles: int, side: int, cells: bool = False) -> tuple[int, int, int, int]:
        """(B, L, h, w) of the coarsest latent of so many tiles of this side; `cells`: of its map, of a vector too."""
        step = 2**self.settings.depth
        across = 1 if self.settings.latent == "vector" and not cells else side // step
        return tiles, self.settings.latent_channels, across, across

    def _seen(self, x: Tensor, valid: Tensor, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """What the encoder sees: bands, mask, and what it is told."""
        step = 2**self.settings.depth
        if x.ndim != 4 or x.shape[1] != self.bands or x.shape[2] % step or x.shape[3] % step:
            raise ShapeError(
                f"the network takes tiles (B, {self.bands}, H, W) with sides that are multiples of {step}, "
                f"got {tuple(x.shape)}"
            )
        mask = valid[:, None]
        parts = [torch.where(mask, x, 0.0), mask.to(x.dtype)]
        if vector is not None:
            parts.append(_everywhere(vector, x.shape[-2:]))
        if image is not None:
            parts.append(image)
        return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)

    def _decoded(
        self,
        z: Tensor,
        size: Sequence[int],
        finer: Finer,
        vector: Tensor | None,
        image: Tensor | None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        parts = [z]
        if self.settings.latent == "vector":
            # A vector is laid out over the map, with coordinates: Watters et al. (2019), Spatial broadcast decoder.
            spread = z.expand(*z.shape[:2], *size)
            parts = [spread, coordinates(spread)]
        if vector is not None:
            parts.append(_everywhere(vector, size))
        return self.decoder(torch.cat(parts, dim=1) if len(parts) > 1 else z, finer, image, features)


def build(bands: int, settings: ModelSettings, seed: int, clip: float = CLIP) -> VAE:
    """A network with freshly drawn weights; the same seed gives the same ones, and no other draw is disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VAE(bands, settings, clip)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _everywhere(vector: Tensor, size: Sequence[int]) -> Tensor:
    """(B, V, h, w) the same numbers in each cell."""
    return vector[:, :, None, None].expand(*vector.shape, *size)

"""Scores of a tile alone: how badly the network explains it, and how odd its spectra are in its scene."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from vae.scores.evidence import Evidence, SceneStats
from vae.scores.registry import score

SAMPLES = 8  # of the reconstruction probability
REGRET_STEPS, REGRET_RATE = 30, 0.1
MOST_A_BATCH = 20_000  # pixels that spectra are learned from
SPECTRUM_WEIGHT = 0.25  # of rare spectra beside the reconstruction, in `novelty`
GREYS = 32  # levels that a tile is rounded to before it is packed
PLAIN_BITS = 8  # of a value that is not packed


def _least_nll(evidence: Evidence) -> float:
    return evidence.model.likelihood.least(evidence.sigma)


@score("reconstruction", "network")
def reconstruction(evidence: Evidence) -> Tensor:
    """(B, H, W) squared residual of each band in units of its variance in training, mean over the bands.

    1 is as well as the decoder does on its training tiles, whatever the band: the masked reconstruction error of a
    calibrated decoder (Rybkin, Daniilidis & Levine 2021).
    """
    return _standardised(evidence).square().mean(dim=1)


@score("squared_error", "network")
def squared_error(evidence: Evidence) -> Tensor:
    """(B, H, W) squared residual in normalised units, mean over the bands: all bands alike, however hard they are."""
    return (evidence.x - evidence.expected).square().mean(dim=1)


@score("nll", "network", least=_least_nll)
def nll(evidence: Evidence) -> Tensor:
    """(B, H, W) negative log-likelihood, nats a pixel: bands that are always well expected count for more."""
    return _nll(evidence, evidence.passed.raw)


@score("kl", "network")
def kl(evidence: Evidence) -> Tensor:
    """(B,) how far the posterior lies from the prior, nats: the novelty of the latent.

    Of a flow it is estimated at the mean, and no less than 0; of a quantised latent it is the same for all tiles.
    """
    return evidence.passed.kl.sum(dim=1).clamp(min=0)


@score("reconstruction_probability", "network", least=_least_nll)
def reconstruction_probability(evidence: Evidence) -> Tensor:
    """(B, H, W) expected negative log-likelihood over draws from the posterior, nats a pixel.

    An & Cho (2015), Variational autoencoder based anomaly detection using reconstruction probability. The draws are the
    same for every tile and night.
    """
    return torch.stack(_draws(evidence)).mean(dim=0)


@score("reconstruction_uncertainty", "network")
def reconstruction_uncertainty(evidence: Evidence) -> Tensor:
    """(B, H, W) standard deviation of the negative log-likelihood over draws from the posterior, nats a pixel."""
    return torch.stack(_draws(evidence)).std(dim=0)


def _least_corrected(evidence: Evidence) -> float:
    return _least_nll(evidence) - PLAIN_BITS * math.log(2) * len(evidence.sigma)


@score("complexity_corrected", "network", least=_least_corrected)
def complexity_corrected(evidence: Evidence) -> Tensor:
    """(B,) nats a valid pixel that the network needs beyond what a general compressor needs.

    Serrà et al. (2020), Input complexity and out-of-distribution detection with likelihood-based generative models: the
    likelihood of simple images is high whatever they show. The compressor is zlib on tiles rounded to 32 greys; no
    tile needs more than eight bits a value, as if it were stored plainly.
    """
    per_tile = _valid_mean(_nll(evidence, evidence.passed.raw), evidence.valid)
    greys = ((evidence.x / 4 + 0.5).clamp(0, 1) * (GREYS - 1)).round().byte().cpu().numpy()
    packed = [len(zlib.compress(np.ascontiguousarray(tile).tobytes(), 6)) for tile in greys]
    pixels = evidence.valid.flatten(1).sum(dim=1).clamp(min=1).double()
    bits = 8 * torch.tensor(packed, dtype=torch.float64, device=per_tile.device) / pixels
    return per_tile - bits.clamp(max=PLAIN_BITS * evidence.x.shape[1]) * math.log(2)


@score("likelihood_regret", "network")
def likelihood_regret(evidence: Evidence) -> Tensor:
    """(B,) how much better the tile is explained once its own posterior mean is optimised, nats a valid pixel.

    Xiao, Yan & Amit (2020), Likelihood regret: an out-of-distribution detection score for variational auto-encoder.
    About a hundred times the cost of the others: for the top candidates of another score.
    """
    x, valid, network = evidence.x, evidence.valid, evidence.model
    before = _valid_mean(_nll(evidence, evidence.passed.raw), valid)
    with torch.inference_mode(False), torch.enable_grad():
        z = evidence.mu.detach().clone().requires_grad_(True)
        x, valid = x.clone(), valid.clone()
        sigma, finer = evidence.sigma.detach().clone(), evidence.passed.z[1:]
        optimiser = torch.optim.Adam([z], lr=REGRET_RATE)
        for _ in range(REGRET_STEPS):
            nats = network.likelihood.nats(x, network.decode((z, *finer), x.shape[-1], evidence.given), sigma)
            loss = torch.where(valid[:, None], nats, 0.0).sum() + 0.5 * z.square().sum()
            (z.grad,) = torch.autograd.grad(loss, [z])  # the network's own parameters gather none
            optimiser.step()
        better = network.decode((z.detach(), *finer), x.shape[-1], evidence.given)
    return (before - _valid_mean(_nll(evidence, better), evidence.valid)).clamp(min=0)


def learn_spectra(evidences: Iterable[Evidence]) -> dict[str, Tensor]:
    """Mean (C,) and precision (C, C) of the pixels of normal tiles, for tiles that come without their scene."""
    pixels = torch.cat(
        [
            found[:: max(len(found) // MOST_A_BATCH, 1)]
            for evidence in evidences
            for found in [evidence.x.movedim(1, -1)[evidence.valid]]
        ]
    )
    stats = SceneStats.of(pixels)
    return {"mean": stats.mean, "precision": stats.precision}


@score("rx", "scene", learn=learn_spectra)
def rx(evidence: Evidence) -> Tensor:
    """(B, H, W) squared Mahalanobis distance of a pixel from those of its scene, a band: 1 is as far as they lie.

    Reed & Yu (1990), Adaptive multiple-band CFAR detection of an optical pattern with unknown spectral distribution.
    """
    return _rx(evidence)


@score("novelty", "network", "scene", learn=learn_spectra)
def novelty(evidence: Evidence) -> dict[str, Tensor]:
    """The score of tiles without a past: what the network does not explain, and spectra that are rare in the scene.

    The network leads. Rare spectra add thin veils, as of haze, that a decoder follows, and as much as the network they
    would also add all that is merely rare. See `docs/detection.md` for what else was tried.
    """
    reconstruction = _standardised(evidence).square().mean(dim=1)
    return {"reconstruction": reconstruction, "spectrum": SPECTRUM_WEIGHT * _rx(evidence)}


def off_bands(evidence: Evidence) -> Tensor:
    """(B, C, H, W) how far each band is off: from what the network makes of it, else from its scene's mean.

    Squared, in units of the variance: of the band's residuals, or of what the other bands do not tell of it. 0 when
    there is neither.
    """
    if evidence.network is not None:
        return _standardised(evidence).square()
    if evidence.scene is None and "mean" not in evidence.constants:
        return torch.zeros_like(evidence.x)
    scene = _scene(evidence)
    return (evidence.x - scene.mean.view(1, -1, 1, 1)).square() * scene.precision.diagonal().view(1, -1, 1, 1)


def _standardised(evidence: Evidence) -> Tensor:
    return (evidence.x - evidence.expected) / evidence.sigma.view(1, -1, 1, 1)


def _rx(evidence: Evidence) -> Tensor:
    scene = _scene(evidence)
    away = evidence.x - scene.mean.view(1, -1, 1, 1)
    return torch.einsum("bchw,cd,bdhw->bhw", away, scene.precision, away).clamp(min=0) / away.shape[1]


def _scene(evidence: Evidence) -> SceneStats:
    """Of the tiles' own scene, else of normal tiles."""
    return evidence.scene or SceneStats(evidence.constant("mean"), evidence.constant("precision"))


def _nll(evidence: Evidence, raw: Tensor) -> Tensor:
    return evidence.model.likelihood.nats(evidence.x, raw, evidence.sigma).sum(dim=1)


def _draws(evidence: Evidence) -> list[Tensor]:
    """Negative log-likelihoods (B, H, W) of some draws; one draw is the same noise for all tiles."""
    source = torch.Generator().manual_seed(evidence.seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape[1:]), generator=source).to(evidence.x.device).expand(*shape)

    passed = (evidence.model(evidence.x, evidence.valid, draw, evidence.given) for _ in range(SAMPLES))
    return [_nll(evidence, one.raw) for one in passed]


def _valid_mean(values: Tensor, valid: Tensor) -> Tensor:
    """(B,) float64 mean over the valid pixels."""
    count = valid.flatten(1).sum(dim=1).clamp(min=1)
    return torch.where(valid, values.double(), 0.0).flatten(1).sum(dim=1) / count

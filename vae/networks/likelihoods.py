"""What a decoder says of a value: the density, and what it needs besides the mean.

All densities are of the normalised value, so that evidence bounds of different likelihoods can be compared.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ModelSettings

LOG_2PI = math.log(2 * math.pi)
SMALLEST_LOG_SCALE = 0.5 * math.log(1e-5)  # no value is expected to better than 0.003 normalised units
LARGEST_LOG_SCALE = 3.0
PACE = 10.0  # a learned σ moves so much faster than a weight, else it would be the last thing to settle
LARGEST_LOGIT = 15.0  # no density is steeper: over a fifteenth of the range it falls by e


class Likelihood(nn.Module):
    """A Gaussian whose σ is the best there is for what is left over, a band or all together (σ-VAE).

    Rybkin, Daniilidis & Levine (2021), Simple and effective VAE training with calibrated decoders.

    Attributes:
        outputs: Numbers that the decoder gives for each value.
        analytic: Whether σ is set from the residuals, for each band or for all together, or not at all.
    """

    outputs = 1
    analytic: Literal["band", "all"] | None

    def __init__(self, analytic: Literal["band", "all"] | None = "band") -> None:
        super().__init__()
        self.analytic = analytic

    def expected(self, raw: Tensor) -> Tensor:
        """(B, C, H, W) mean, normalised units, from what the decoder gave, (B, C·outputs, H, W)."""
        return raw

    def log_scale(self, raw: Tensor) -> Tensor | None:
        """(B, C, H, W) logarithm of the decoder's own scale; None where it has none for each value."""
        return None

    def nats(self, x: Tensor, raw: Tensor, sigma: Tensor) -> Tensor:
        """(B, C, H, W) negative log-density of each value.

        Args:
            x: (B, C, H, W) normalised values.
            raw: (B, C·outputs, H, W) from the decoder.
            sigma: (C,) standard deviations of residuals, for likelihoods that do not learn their own.
        """
        return _gaussian(x - self.expected(raw), torch.log(sigma).view(1, -1, 1, 1))

    def least(self, sigma: Tensor) -> float:
        """The fewest nats that a pixel can need."""
        return float((0.5 * LOG_2PI + torch.log(sigma.double())).sum())


class LearnedGaussian(Likelihood):
    """A Gaussian with a learned σ for each band."""

    def __init__(self, bands: int) -> None:
        super().__init__(None)
        self.log_sigma = nn.Parameter(torch.zeros(bands))  # divided by PACE

    def nats(self, x: Tensor, raw: Tensor, sigma: Tensor) -> Tensor:
        """(B, C, H, W); `sigma` is not asked for."""
        return _gaussian(x - raw, _bounded(PACE * self.log_sigma).view(1, -1, 1, 1))

    def least(self, sigma: Tensor) -> float:
        """The fewest nats that a pixel can need."""
        return float((0.5 * LOG_2PI + _bounded(PACE * self.log_sigma.detach()).double()).sum())


class Heteroscedastic(Likelihood):
    """A Gaussian whose σ the decoder gives for each value: Kendall & Gal (2017), What uncertainties do we need."""

    outputs = 2

    def __init__(self) -> None:
        super().__init__(None)

    def expected(self, raw: Tensor) -> Tensor:
        """The first half of the channels."""
        return raw.chunk(2, dim=1)[0]

    def log_scale(self, raw: Tensor) -> Tensor:
        """The second half, bounded."""
        return _bounded(raw.chunk(2, dim=1)[1])

    def nats(self, x: Tensor, raw: Tensor, sigma: Tensor) -> Tensor:
        """(B, C, H, W); `sigma` is not asked for."""
        return _gaussian(x - self.expected(raw), self.log_scale(raw))

    def least(self, sigma: Tensor) -> float:
        """The fewest nats that a pixel can need."""
        return len(sigma) * (0.5 * LOG_2PI + SMALLEST_LOG_SCALE)


class StudentT(Likelihood):
    """Student's t with a learned scale for each band: single bright pixels cost their logarithm, not their square.

    Takahashi et al. (2018), Student-t variational autoencoder for robust density estimation; degrees of freedom fixed.
    """

    def __init__(self, bands: int, degrees: float) -> None:
        super().__init__(None)
        self.degrees = degrees
        self.log_sigma = nn.Parameter(torch.zeros(bands))  # divided by PACE
        self._constant = math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2) + 0.5 * math.log(degrees * math.pi)

    def nats(self, x: Tensor, raw: Tensor, sigma: Tensor) -> Tensor:
        """(B, C, H, W); `sigma` is not asked for."""
        log_scale = _bounded(PACE * self.log_sigma).view(1, -1, 1, 1)
        squared = ((x - raw) / log_scale.exp()).square()
        return 0.5 * (self.degrees + 1) * torch.log1p(squared / self.degrees) + log_scale + self._constant

    def least(self, sigma: Tensor) -> float:
        """The fewest nats that a pixel can need."""
        return float((self._constant + _bounded(PACE * self.log_sigma.detach()).double()).sum())


class Bernoulli(Likelihood):
    """A continuous Bernoulli for values as shares of the range that normalisation leaves, ±clip.

    Loaiza-Ganem & Cunningham (2019), The continuous Bernoulli: fixing a pervasive error in variational autoencoders.
    The plain Bernoulli's is no density of a value between 0 and 1.
    """

    def __init__(self, clip: float) -> None:
        super().__init__(None)
        self.clip = clip

    def expected(self, raw: Tensor) -> Tensor:
        """The mean for these logits: Langevin's function of their half, by its series where the terms cancel."""
        half = 0.5 * self._logits(raw)
        small = half.abs() < 0.1
        apart = torch.where(small, 1.0, half)
        return self.clip * torch.where(small, half / 3 - half**3 / 45, 1 / torch.tanh(apart) - 1 / apart)

    def nats(self, x: Tensor, raw: Tensor, sigma: Tensor) -> Tensor:
        """(B, C, H, W); `sigma` is not asked for."""
        logits = self._logits(raw)
        from_middle = (x / (2 * self.clip)).clamp(-0.5, 0.5)  # share of the range
        return self._normaliser(logits) - from_middle * logits

    def least(self, sigma: Tensor) -> float:
        """The fewest nats that a pixel can need: of values at an end of the range, with the steepest density."""
        steepest = self._normaliser(torch.tensor(LARGEST_LOGIT, dtype=torch.float64)) - 0.5 * LARGEST_LOGIT
        return len(sigma) * float(steepest)

    def _logits(self, raw: Tensor) -> Tensor:
        return LARGEST_LOGIT * torch.tanh(raw / LARGEST_LOGIT)

    def _normaliser(self, logits: Tensor) -> Tensor:
        """Logarithm of the integral over the range; in the logits, since probabilities near 1 have no digits left."""
        steep = logits.abs().clamp(min=1e-3)  # below, the integral is that of a constant
        return math.log(2 * self.clip) + 0.5 * steep + torch.log(-torch.expm1(-steep) / steep)


def build_likelihood(bands: int, settings: ModelSettings, clip: float) -> Likelihood:
    """The likelihood that `model.likelihood` names, for values that are clipped to ±clip."""
    if settings.likelihood == "gaussian_learned":
        return LearnedGaussian(bands)
    if settings.likelihood == "heteroscedastic":
        return Heteroscedastic()
    if settings.likelihood == "student_t":
        return StudentT(bands, settings.degrees_of_freedom)
    if settings.likelihood == "bernoulli":
        return Bernoulli(clip)
    return Likelihood("all" if settings.likelihood == "gaussian_shared" else "band")


def _gaussian(residual: Tensor, log_sigma: Tensor) -> Tensor:
    return 0.5 * (residual * torch.exp(-log_sigma)).square() + log_sigma + 0.5 * LOG_2PI


def _bounded(log_scale: Tensor) -> Tensor:
    """Above the smallest, smoothly, so that no likelihood grows without bound."""
    return (SMALLEST_LOG_SCALE + F.softplus(log_scale - SMALLEST_LOG_SCALE)).clamp(max=LARGEST_LOG_SCALE)

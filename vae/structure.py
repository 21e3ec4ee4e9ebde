"""Further terms of the loss: structure and frequencies, that a sum over pixels does not see."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7  # pixels across
RANGE = 2.0  # of normalised values: training scenes lie mostly within ±1
STEADY = ((0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2)
SCALES = (0.0448, 0.2856, 0.3001)  # exponents of the three finest scales


def structural_loss(name: Literal["ms_ssim", "focal_frequency"], x: Tensor, expected: Tensor, valid: Tensor) -> Tensor:
    """One number, the mean over the tiles that have a valid pixel, and over bands; 0 where both images are the same.

    Args:
        name: Which.
        x: (B, C, H, W) normalised.
        expected: (B, C, H, W) decoded.
        valid: (B, H, W) bool. Where it is not, both images show the decoded one, without gradient.
    """
    mask, filling = valid[:, None], expected.detach()
    seen, decoded = torch.where(mask, x, filling), torch.where(mask, expected, filling)
    found = 1 - ms_ssim(seen, decoded) if name == "ms_ssim" else focal_frequency(seen, decoded)
    counts = valid.flatten(1).any(dim=1)
    return torch.where(counts, found, 0.0).sum() / counts.sum().clamp(min=1)


def ms_ssim(one: Tensor, other: Tensor) -> Tensor:
    """(B,) similarity of structure over up to three scales, 1 at most, mean over bands.

    Wang, Simoncelli & Bovik (2003), Multiscale structural similarity for image quality assessment; flat windows, and as
    many scales as the tile has room for, their exponents brought to the sum of 1.
    """
    count = max(1, min(len(SCALES), 1 + sum(one.shape[-1] // 2**step >= WINDOW for step in (1, 2))))
    exponents = [exponent / sum(SCALES[:count]) for exponent in SCALES[:count]]
    product = torch.ones((), device=one.device)
    for step, exponent in enumerate(exponents):
        light, structure = _similarity(one, other)
        found = (light * structure if step == count - 1 else structure).clamp(min=1e-6)
        product = product * found**exponent
        one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
    return product.mean(dim=1)


def focal_frequency(one: Tensor, other: Tensor) -> Tensor:
    """(B,) squared difference of the spectra, those frequencies weighing most that are hardest, mean over all of them.

    Jiang et al. (2021), Focal frequency loss for image reconstruction and synthesis.
    """
    apart = torch.fft.rfft2(one, norm="ortho") - torch.fft.rfft2(other, norm="ortho")
    squared = apart.real.square() + apart.imag.square()
    weights = squared.detach().sqrt()
    weights = weights / weights.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    return (weights * squared).mean(dim=(1, 2, 3))


def _similarity(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) similarity of luminance, and of contrast and structure, means over the windows."""
    window = min(WINDOW, one.shape[-1])

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, window, stride=1)

    first, second = mean(one), mean(other)
    variances = (mean(one.square()) - first.square()).clamp(min=0) + (mean(other.square()) - second.square()).clamp(
        min=0
    )
    covariance = mean(one * other) - first * second
    light = (2 * first * second + STEADY[0]) / (first.square() + second.square() + STEADY[0])
    structure = (2 * covariance + STEADY[1]) / (variances + STEADY[1])
    return light.mean(dim=(2, 3)), structure.mean(dim=(2, 3))

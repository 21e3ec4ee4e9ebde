"""Structural terms: nothing for equal images, nothing of masked pixels, and what others measure of one scale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as trials
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from tests.vae.combinations import batch
from vae.structure import RANGE, WINDOW, focal_frequency, ms_ssim, structural_loss

NAMES = ("ms_ssim", "focal_frequency")


def images(side: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tiles, something like them, and their masks."""
    x, valid = batch(4, side=side, seed=seed, filling=0.0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return x, x + 0.3 * noise, valid


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [4, 16, 64])
def test_equal_images_cost_nothing_and_others_the_more_the_less_they_are_alike(name: str, side: int) -> None:
    x, other, valid = images(side)
    assert structural_loss(name, x, x.clone(), valid) == pytest.approx(0, abs=1e-6)
    little, much = (structural_loss(name, x, x + share * (other - x), valid) for share in (0.2, 1.0))
    assert 0 < little < much


@pytest.mark.parametrize("name", NAMES)
@trials(max_examples=20, deadline=None)
@drawn(filling=st.sampled_from([float("nan"), float("inf"), 1e30, -7.0]), seed=st.integers(0, 9))
def test_masked_pixels_change_neither_value_nor_gradient(name: str, filling: float, seed: int) -> None:
    x, expected, valid = images(seed=seed)

    def found(filling: float) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = expected.clone().requires_grad_()
        value = structural_loss(name, torch.where(valid[:, None], x, filling), decoded, valid)
        (gradient,) = torch.autograd.grad(value, decoded)
        return value, gradient

    (value, gradient), (other, its) = found(0.0), found(filling)
    assert torch.equal(value, other)
    assert torch.equal(gradient, its)
    assert (gradient[~valid[:, None].expand_as(x)] == 0).all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_tile_without_valid_pixels_counts_for_nothing(name: str) -> None:
    x, expected, valid = images()
    alone = structural_loss(name, x[:3], expected[:3], valid[:3])
    valid[3] = False
    assert structural_loss(name, x, expected, valid) == pytest.approx(float(alone), rel=1e-5)
    assert structural_loss(name, x, expected, torch.zeros_like(valid)) == 0


def test_one_scale_of_similarity_is_that_of_skimage() -> None:
    one, other, _ = images(12)  # too small for a second scale
    each = [
        [
            structural_similarity(
                first.numpy(), second.numpy(), win_size=WINDOW, data_range=RANGE, use_sample_covariance=False, full=True
            )[1][3:-3, 3:-3].mean()
            for first, second in zip(tile, changed, strict=True)
        ]
        for tile, changed in zip(one, other, strict=True)
    ]
    # They take the mean of the product over the windows, this the product of the means.
    torch.testing.assert_close(ms_ssim(one, other), torch.tensor(each).float().mean(dim=1), rtol=0, atol=0.05)


def test_more_scales_forgive_what_is_only_noise_of_single_pixels() -> None:
    flat = torch.nn.functional.interpolate(
        torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), scale_factor=8, mode="bilinear"
    )
    noise = 0.2 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    whole, part = ms_ssim(flat, flat + noise), ms_ssim(flat[..., :12, :12], (flat + noise)[..., :12, :12])
    assert (whole > part).all()


def test_the_worst_frequency_weighs_most() -> None:
    rows = torch.arange(16.0)
    wave = torch.cos(2 * torch.pi * rows * 3 / 16).expand(1, 1, 16, 16)
    nothing = torch.zeros_like(wave)
    twice = focal_frequency(2 * wave, nothing) / focal_frequency(wave, nothing)
    assert float(twice) == pytest.approx(4, rel=1e-4)
    faint = 0.1 * torch.cos(2 * torch.pi * rows * 5 / 16).expand(1, 1, 16, 16)
    added = focal_frequency(wave + faint, nothing) - focal_frequency(wave, nothing)
    assert float(added / focal_frequency(faint, nothing)) == pytest.approx(0.1, rel=0.01)

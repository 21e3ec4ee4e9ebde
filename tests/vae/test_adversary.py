"""An adversary on the latent: it tells, and it pulls."""

from __future__ import annotations

import math

import pytest
import torch

from configs.schema import ModelSettings
from vae.errors import VaeError
from vae.training.adversary import Adversary, build_adversary

SMALL = ModelSettings(width=8, depth=2, latent_channels=4)


def latents(count: int, seed: int, mean: float = 0.0, spread: float = 1.0) -> torch.Tensor:
    return mean + spread * torch.randn(count, 4, 1, 1, generator=torch.Generator().manual_seed(seed))


def told_apart(adversary: Adversary, mean: float, spread: float, steps: int = 150) -> float:
    """The adversary's loss once it has learned, when latents have this mean and spread."""
    optimiser = torch.optim.Adam(adversary.parameters(), 1e-2)
    everything = torch.ones(64, dtype=torch.bool)
    for step in range(steps):
        verdict = adversary.judge(latents(64, step, mean, spread), latents(64, 10_000 + step), everything, 1.0)
        optimiser.zero_grad()
        verdict.loss.backward()
        optimiser.step()
    return float(verdict.telling)


def test_it_learns_to_tell_other_latents_from_the_prior_and_cannot_tell_the_prior_from_itself():
    assert told_apart(build_adversary(SMALL, 0), mean=2.0, spread=0.3) < 0.1
    assert told_apart(build_adversary(SMALL, 0), mean=0.0, spread=1.0) == pytest.approx(math.log(2), abs=0.03)


def test_latents_that_follow_it_become_like_the_prior():
    adversary, far = build_adversary(SMALL, 0), torch.nn.Parameter(latents(64, 1, mean=2.0, spread=0.2))
    optimiser = torch.optim.Adam([{"params": [far], "lr": 3e-2}, {"params": adversary.parameters(), "lr": 5e-3}])
    for step in range(250):
        verdict = adversary.judge(far, latents(64, step), torch.ones(64, dtype=torch.bool), 1.0)
        optimiser.zero_grad()
        verdict.loss.backward()
        optimiser.step()
    assert abs(float(far.detach().mean())) < 0.5
    assert 0.5 < float(far.detach().std()) < 1.6


def test_each_side_gets_the_gradient_of_its_own_loss_alone():
    adversary, z = build_adversary(SMALL, 0), latents(8, 1, mean=1.0).requires_grad_()
    prior, everything = latents(8, 2), torch.ones(8, dtype=torch.bool)

    adversary.judge(z, prior, everything, weight=0.5).loss.backward()

    fooling = torch.nn.functional.softplus(-adversary(z)).sum(dim=(1, 2, 3)).mean()
    (expected,) = torch.autograd.grad(fooling, z)
    torch.testing.assert_close(z.grad, 0.5 * expected)
    telling = (
        torch.nn.functional.softplus(adversary(z.detach())) + torch.nn.functional.softplus(-adversary(prior))
    ).mean() / 2
    for parameter, gradient in zip(
        adversary.parameters(), torch.autograd.grad(telling, list(adversary.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_tile_without_a_valid_pixel_counts_for_neither_side():
    adversary, z, prior = build_adversary(SMALL, 0), latents(8, 1), latents(8, 2)
    seen = torch.tensor([True] * 6 + [False] * 2)
    some = adversary.judge(z, prior, seen, 1.0)
    z[6:], prior[6:] = 1e3, -1e3
    other = adversary.judge(z, prior, seen, 1.0)
    assert some == other


def test_the_same_seed_gives_the_same_adversary_and_leaves_other_draws_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, other = (build_adversary(SMALL, 7).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_latent_without_a_gaussian_prior_is_refused():
    with pytest.raises(VaeError, match="quantised latent has codes"):
        build_adversary(ModelSettings(width=8, depth=2, latent_channels=4, posterior="quantised"), 0)

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from configs.schema import ModelSettings
from tests.vae.conftest import make_normalisation, make_tiles
from vae.errors import ShapeError, VaeError
from vae.model import build
from vae.normalisation import Normalisation
from vae.objectives import batch_sums, elbo_per_dimension, fitted_sigma, kl_divergence, sigma_vae

SMALL = ModelSettings(width=8, depth=2, latent_channels=4)


def batch(count: int = 6, seed: int = 0):
    tiles = make_tiles(count, seed=seed)
    values, valid = torch.from_numpy(tiles.values), torch.from_numpy(tiles.valid)
    return make_normalisation().apply(values, valid), valid


@pytest.mark.parametrize("side", [16, 32, 64, 128])
@pytest.mark.parametrize(("bands", "depth"), [(2, 1), (4, 3), (13, 4)])
def test_a_tile_comes_back_in_its_own_shape(side, bands, depth):
    network = build(bands, ModelSettings(width=4, depth=depth, latent_channels=5), seed=0)
    passed = network(torch.zeros(2, bands, side, side), torch.ones(2, side, side, dtype=torch.bool))
    assert passed.expected.shape == (2, bands, side, side)
    assert passed.mu.shape == passed.logvar.shape == (2, 5, side // 2**depth, side // 2**depth)


def test_a_tile_that_cannot_be_halved_is_refused():
    with pytest.raises(ShapeError, match="multiples of 4"):
        build(3, SMALL, 0).encode(torch.zeros(1, 3, 18, 18), torch.ones(1, 18, 18, dtype=torch.bool))


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e30, -7.0])
def test_masked_pixels_change_neither_loss_nor_gradient(filling):
    def loss_and_gradient(fill):
        tiles = make_tiles(6)
        values = torch.from_numpy(tiles.values.copy())
        valid = torch.from_numpy(tiles.valid)
        values[~valid[:, None].expand_as(values)] = fill
        values.requires_grad_()
        network = build(3, SMALL, seed=1)
        x = make_normalisation().apply(values, valid)
        objective = sigma_vae(x, valid, *network(x, valid, torch.ones(6, 4, 4, 4)))
        objective.loss.backward()
        return objective, [values.grad, *(weight.grad for weight in network.parameters())], valid

    (one, gradients, valid), (other, other_gradients, _) = loss_and_gradient(0.1), loss_and_gradient(filling)
    assert torch.isfinite(one.loss)
    assert one.loss == other.loss
    assert all(torch.equal(left, right) for left, right in zip(gradients, other_gradients, strict=True))
    assert (other_gradients[0][~valid[:, None].expand_as(other_gradients[0])] == 0).all()


def test_what_lies_under_the_mask_of_the_network_itself_is_ignored():
    x, valid = batch()
    garbage = torch.where(valid[:, None], x, torch.nan)
    network = build(3, SMALL, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(network(x, valid), network(garbage, valid), strict=True))


def test_a_tile_without_valid_pixels_contributes_nothing():
    x, valid = batch(4)
    network = build(3, SMALL, seed=1)
    alone = sigma_vae(x, valid, *network(x, valid))
    more_x = torch.cat([x, torch.full_like(x[:1], torch.nan)])
    more_valid = torch.cat([valid, torch.zeros_like(valid[:1])])
    together = sigma_vae(more_x, more_valid, *network(more_x, more_valid))
    assert together.loss.item() == pytest.approx(alone.loss.item(), rel=1e-5)
    nothing = sigma_vae(more_x[4:], more_valid[4:], *network(more_x[4:], more_valid[4:]))
    assert nothing.loss == 0
    assert torch.isfinite(nothing.sigma).all()


@settings(max_examples=25, deadline=None)
@given(mu=st.floats(-3, 3), logvar=st.floats(-5, 2))
def test_kl_agrees_with_numerical_integration(mu, logvar):
    posterior = norm(mu, math.exp(logvar / 2))
    spread = 12 * posterior.std()
    expected, _ = quad(lambda z: posterior.pdf(z) * (posterior.logpdf(z) - norm.logpdf(z)), mu - spread, mu + spread)
    given_kl = kl_divergence(torch.tensor(mu, dtype=torch.float64), torch.tensor(logvar, dtype=torch.float64))
    assert float(given_kl) == pytest.approx(expected, abs=1e-6)


def test_the_variance_is_the_maximum_of_the_likelihood():
    x, valid = batch()
    expected = torch.zeros_like(x)
    objective = sigma_vae(x, valid, expected, torch.zeros(6, 4, 4, 4), torch.zeros(6, 4, 4, 4))
    residuals = x.movedim(1, -1)[valid].double().numpy()
    np.testing.assert_allclose(objective.sigma, np.sqrt((residuals**2).mean(0)), rtol=1e-5)
    best = -norm.logpdf(residuals, scale=objective.sigma.numpy()).sum() / 6
    assert objective.reconstruction.item() == pytest.approx(best, rel=1e-5)
    for factor in (0.9, 1.1):
        assert -norm.logpdf(residuals, scale=factor * objective.sigma.numpy()).sum() / 6 > best


def test_the_gradient_is_that_of_the_logarithm_of_the_mean_squared_error():
    # With σ² = MSE the loss is N/2 log MSE + constant: its gradient must not be changed by how σ² is treated.
    x, valid = batch()
    expected = torch.zeros_like(x).requires_grad_()
    sigma_vae(x, valid, expected, torch.zeros(6, 1, 1, 1), torch.zeros(6, 1, 1, 1)).loss.backward()
    by_hand = torch.zeros_like(x).requires_grad_()
    pixels = valid.sum()
    squared = torch.where(valid[:, None], x - by_hand, 0.0).square().sum((0, 2, 3))
    (0.5 * pixels * torch.log(squared / pixels)).sum().div(6).backward()
    torch.testing.assert_close(expected.grad, by_hand.grad, rtol=1e-4, atol=1e-8)


def test_the_elbo_of_batches_is_that_of_all_tiles_at_once():
    x, valid = batch(6)
    network = build(3, SMALL, seed=1)
    whole = batch_sums(x, valid, *network(x, valid))
    parts = batch_sums(x[:2], valid[:2], *network(x[:2], valid[:2])) + batch_sums(
        x[2:], valid[2:], *network(x[2:], valid[2:])
    )
    sigma = fitted_sigma(whole)
    assert elbo_per_dimension(parts, sigma) == pytest.approx(elbo_per_dimension(whole, sigma), rel=1e-5)
    assert elbo_per_dimension(whole, 2 * sigma) < elbo_per_dimension(whole, sigma)


def test_one_step_lowers_the_loss():
    x, valid = batch(16)
    network = build(3, SMALL, seed=1)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    noise = torch.zeros(16, 4, 4, 4)
    before = sigma_vae(x, valid, *network(x, valid, noise)).loss
    before.backward()
    optimiser.step()
    assert sigma_vae(x, valid, *network(x, valid, noise)).loss < before


def test_normalising_and_back_gives_the_physical_values():
    normalisation = make_normalisation()
    values = torch.rand(2, 3, 8, 8) * 0.5 + 0.05
    torch.testing.assert_close(normalisation.invert(normalisation.apply(values)), values)
    limits = torch.tensor([0.03, 0.6]).expand(1, 3, 1, 2)
    torch.testing.assert_close(normalisation.apply(limits)[0, 0, 0], torch.tensor([-1.0, 1.0]))
    assert Normalisation.from_dict(normalisation.to_dict()) == normalisation


@settings(max_examples=50, deadline=None)
@given(offset=st.floats(0, 1), physical=st.floats(1e-4, 2), log=st.booleans())
def test_values_come_back_whatever_is_added_before_the_logarithm(offset, physical, log):
    normalisation = Normalisation.from_limits({"B2": (0.01, 0.5)}, log=log, clip=20.0, log_offset=offset)
    value = torch.full((1, 1, 1, 1), physical)
    assert float(normalisation.invert(normalisation.apply(value))) == pytest.approx(physical, rel=1e-3, abs=1e-5)
    ends = normalisation.apply(torch.tensor([0.01, 0.5]).view(1, 1, 1, 2)).flatten()
    torch.testing.assert_close(ends, torch.tensor([-1.0, 1.0]), rtol=1e-4, atol=1e-4)
    assert Normalisation.from_dict(normalisation.to_dict()) == normalisation


def test_an_offset_before_the_logarithm_leaves_dark_ground_alone():
    dark = torch.tensor([0.002, 0.004]).view(1, 1, 1, 2)
    steps = [
        float(Normalisation.from_limits({"B2": (0.01, 0.5)}, log=True, clip=20.0, log_offset=offset).apply(dark).diff())
        for offset in (0.0, 0.1)
    ]
    assert steps[1] < 0.1 * steps[0]


def test_what_a_network_makes_of_a_tile_is_never_darker_than_a_logarithm_can_tell():
    normalisation = make_normalisation(log_offset=0.1)
    assert float(normalisation.invert(torch.full((1, 3, 2, 2), -5.0)).min()) == pytest.approx(1e-4)


@pytest.mark.parametrize("offset", [-0.1, math.nan, math.inf])
def test_an_offset_without_a_logarithm_is_refused(offset):
    with pytest.raises(VaeError, match="log_offset"):
        make_normalisation(log_offset=offset)
    with pytest.raises(VaeError, match="log_offset"):
        Normalisation(("B2",), True, (0.0,), (1.0,), 3.0, offset)


def test_a_constant_band_cannot_be_normalised():
    with pytest.raises(VaeError, match="B8"):
        Normalisation(("B2", "B8"), False, (0.0, 0.0), (1.0, 0.0), 3.0)

"""Posteriors: what they cost is what theory says they cost."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from configs.schema import ModelSettings
from tests.vae.combinations import TINY, batch, draws, lively
from vae.networks import build
from vae.networks.posteriors import LOGVAR_BOUND, Flow, Gaussian, Quantised, kl_divergence

MANY = 4000
FLOW = ModelSettings(width=4, depth=1, latent_channels=2, posterior="flow", flow_steps=3)


def noise(seed: int = 0):
    source = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(tuple(shape), generator=source)


def agrees(numbers: torch.Tensor, expected: float) -> bool:
    """Whether the mean of independent estimates lies within four standard errors, or rounding, of a number."""
    error = float(numbers.double().std()) / math.sqrt(len(numbers))
    return abs(float(numbers.double().mean()) - expected) < 4 * error + 1e-4 * abs(expected)


def bent_flow(settings: ModelSettings = FLOW, seed: int = 0) -> Flow:
    """A flow that bends."""
    torch.manual_seed(seed)
    flow = Flow(4, settings)
    with torch.no_grad():
        for weight in flow.couplings.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape))
    return flow


@trials(max_examples=25, deadline=None)
@drawn(mu=st.floats(-3, 3), logvar=st.floats(-5, 2))
def test_kl_agrees_with_numerical_integration(mu: float, logvar: float) -> None:
    posterior = norm(mu, math.exp(logvar / 2))
    spread = 12 * posterior.std()
    expected, _ = quad(lambda z: posterior.pdf(z) * (posterior.logpdf(z) - norm.logpdf(z)), mu - spread, mu + spread)
    found = kl_divergence(torch.tensor(mu, dtype=torch.float64), torch.tensor(logvar, dtype=torch.float64))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_log_ratio_of_a_gaussian_is_that_of_the_densities_and_its_mean_the_kl() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 4, 2, 2).expand(MANY, -1, -1, -1)
    with torch.no_grad():
        found = Gaussian(4, ModelSettings(**TINY))(features, noise())
    posterior = norm(found.mu.numpy(), np.exp(0.5 * found.logvar.numpy()))
    ratio = (posterior.logpdf(found.z.numpy()) - norm.logpdf(found.z.numpy())).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.log_ratio, ratio, rtol=1e-4, atol=1e-4)
    assert agrees(found.log_ratio, float(found.kl[0].sum()))


@drawn(raw=st.floats(-1e4, 1e4))
def test_no_variance_vanishes_or_explodes(raw: float) -> None:
    posterior = Gaussian(1, ModelSettings(**TINY))
    with torch.no_grad():
        for weight in posterior.head.parameters():
            weight.fill_(raw)
    logvar = posterior.parameters_of(torch.ones(1, 1, 1, 1))[1]
    assert (logvar.abs() <= LOGVAR_BOUND).all()


def test_a_flow_that_has_not_learned_anything_is_a_gaussian() -> None:
    torch.manual_seed(0)
    flow, features = Flow(4, ModelSettings(**TINY | {"posterior": "flow"})), torch.randn(3, 4, 2, 2)
    gaussian = Gaussian(4, ModelSettings(**TINY))
    gaussian.load_state_dict({key: part for key, part in flow.state_dict().items() if key.startswith("head")})
    with torch.no_grad():
        bent, plain = flow(features, draws()), gaussian(features, draws())
    # Layers reorder the channels, which all posteriors of one network do alike; three layers of four channels swap.
    order = [2, 3, 0, 1]
    torch.testing.assert_close(bent.z, plain.z[:, order])
    torch.testing.assert_close(bent.mu, plain.mu[:, order])
    torch.testing.assert_close(bent.logvar, plain.logvar[:, order])
    torch.testing.assert_close(bent.log_ratio, plain.log_ratio)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_the_log_determinant_of_a_flow_is_that_of_its_jacobian(channels: int) -> None:
    flow = bent_flow(FLOW.model_copy(update={"latent_channels": channels})).double()
    point, spread = torch.randn(channels).double(), torch.randn(channels).double()

    def pushed(eps: torch.Tensor) -> torch.Tensor:
        z, _ = flow.bent((0.3 + eps * spread.exp()).view(1, -1, 1, 1), spread.view(1, -1, 1, 1))
        return z.flatten()

    jacobian = torch.autograd.functional.jacobian(pushed, point)
    _, found = flow.bent((0.3 + point * spread.exp()).view(1, -1, 1, 1), spread.view(1, -1, 1, 1))
    assert float(found.detach().sum()) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-5)
    assert torch.linalg.matrix_rank(jacobian) == channels


def test_the_kl_of_a_flow_is_on_average_that_of_numerical_integration() -> None:
    flow = bent_flow()
    torch.manual_seed(3)
    features = torch.randn(1, 4, 1, 1)
    with torch.no_grad():
        mu, logvar = flow.parameters_of(features)
        # KL = E over ε of log N(ε) - log |dz/dε| - log N(z(ε)), here as a sum over a grid of ε.
        axis = torch.linspace(-7, 7, 281)
        eps = torch.cartesian_prod(axis, axis).view(-1, 2, 1, 1)
        z, spread = flow.bent(mu + eps * (0.5 * logvar).exp(), (0.5 * logvar).expand(len(eps), -1, -1, -1))
        density = norm.pdf(eps.numpy()).prod(axis=(1, 2, 3)) * (14 / 280) ** 2
        terms = norm.logpdf(eps.numpy()) - spread.numpy() - norm.logpdf(z.numpy())
        expected = float((density * terms.sum(axis=(1, 2, 3))).sum())
        found = flow(features.expand(MANY, -1, -1, -1), noise())
    assert density.sum() == pytest.approx(1, abs=1e-5)
    assert expected > 0.1
    assert agrees(found.kl.sum(dim=1), expected)
    assert agrees(found.log_ratio, expected)
    # Of the Gaussian part the expectation is taken, so that less of the estimate is chance.
    assert found.kl.sum(dim=1).std() != found.log_ratio.std()


def test_finer_levels_that_have_not_learned_anything_cost_nothing() -> None:
    network = build(3, ModelSettings(**TINY | {"posterior": "hierarchical"}), 0)
    with torch.inference_mode():
        passed = network(*batch(), draws())
    assert (passed.kl[:, 4:] == 0).all()
    assert (passed.kl[:, :4] > 0).all()


def test_the_log_ratio_of_a_hierarchy_is_on_average_its_kl() -> None:
    settings = ModelSettings(**TINY | {"posterior": "hierarchical", "depth": 3, "levels": 3})
    network = lively(settings)
    x, valid = batch(1)
    with torch.inference_mode():
        passed = network(x.expand(1000, -1, -1, -1), valid.expand(1000, -1, -1), noise())
    assert passed.kl.shape == (1000, 3 * 4)
    # The divergence of finer levels depends on the coarser draws, so that the difference of the two is what averages 0.
    assert agrees(passed.log_ratio - passed.kl.sum(dim=1), 0.0)
    assert (passed.kl.mean(dim=0) > 0).all()


def test_what_a_finer_level_is_drawn_from_is_what_its_log_ratio_is_of() -> None:
    torch.manual_seed(0)
    network = lively(ModelSettings(**TINY | {"posterior": "hierarchical"}))
    level, x, features = network.decoder.levels[0], torch.randn(5, 4, 4, 4), torch.randn(5, 4, 4, 4)
    with torch.inference_mode():
        found = level.infer(x, features, noise())
        mean, logvar = level._prior(x)
        drawn_prior = level.prior(x, lambda shape: torch.ones(tuple(shape)))
    posterior = norm(found.mu.numpy(), np.exp(0.5 * found.logvar.numpy()))
    prior = norm(mean.numpy(), np.exp(0.5 * logvar.numpy()))
    ratio = (posterior.logpdf(found.z.numpy()) - prior.logpdf(found.z.numpy())).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.log_ratio, ratio, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(drawn_prior, mean + torch.exp(0.5 * logvar))


def test_a_quantised_latent_holds_the_nearest_codes_and_costs_their_number() -> None:
    torch.manual_seed(0)
    posterior, features = Quantised(4, ModelSettings(**TINY)), torch.randn(3, 4, 2, 2)
    found = posterior(features, None)
    wanted = posterior.head(torch.nn.functional.silu(features)).movedim(1, -1).reshape(-1, 4)
    nearest = torch.cdist(wanted, posterior.codes).argmin(dim=1)
    torch.testing.assert_close(found.mu.movedim(1, -1).reshape(-1, 4), posterior.codes[nearest])
    torch.testing.assert_close(found.z, found.mu)
    assert found.kl.sum(dim=1).tolist() == pytest.approx([4 * math.log(16)] * 3)
    assert found.log_ratio.tolist() == pytest.approx([4 * math.log(16)] * 3)

    # What is decoded pulls the encoder past the choice, and no code; the penalty pulls both towards each other.
    (weight,) = torch.autograd.grad(found.z.sum(), posterior.head.weight, retain_graph=True)
    assert (weight != 0).any()
    assert torch.autograd.grad(found.z.sum(), posterior.codes, retain_graph=True, allow_unused=True)[0] is None
    (codes,) = torch.autograd.grad(found.penalty.sum(), posterior.codes)
    assert ((codes != 0).any(dim=1) == torch.isin(torch.arange(16), nearest)).all()


def test_the_prior_of_a_quantised_latent_draws_all_codes_alike() -> None:
    torch.manual_seed(0)
    posterior = Quantised(4, ModelSettings(**TINY))
    found = posterior.prior((100, 4, 8, 8), noise()).movedim(1, -1).reshape(-1, 4)
    counts = torch.bincount(torch.cdist(found, posterior.codes).argmin(dim=1), minlength=16)
    assert (counts - 400).abs().max() < 4.5 * math.sqrt(400)


def test_a_prior_is_standard_normal_at_the_coarsest_level() -> None:
    for name in ("gaussian", "flow"):
        network = build(3, ModelSettings(**TINY | {"posterior": name}), 0)
        z = network.posterior.prior(network.latent_shape(50, 16), noise())
        assert z.shape == (50, 4, 4, 4)
        assert abs(float(z.mean())) < 0.06
        assert abs(float(z.std()) - 1) < 0.06


def test_more_steps_of_a_flow_bend_more_channels() -> None:
    changed = []
    for steps in (1, 2):
        flow = bent_flow(FLOW.model_copy(update={"latent_channels": 4, "flow_steps": steps}))
        z = torch.ones(1, 4, 1, 1)
        with torch.no_grad():
            bent = flow.bent(z, torch.zeros_like(z))[0]
        changed.append(int((bent.flatten() != 1).sum()))
    assert all(one < other for one, other in pairwise(changed))

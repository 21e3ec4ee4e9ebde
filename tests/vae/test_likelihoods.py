"""Likelihoods: each is a density, its mean is what is expected, and nothing is below its least."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from configs.schema import ModelSettings
from tests.vae.combinations import choices
from vae.networks.likelihoods import PACE, SMALLEST_LOG_SCALE, Likelihood, build_likelihood

NAMES = choices("likelihood")
CLIP = 3.0
SIGMA = torch.tensor([0.2, 0.7], dtype=torch.float64)
raws = st.floats(-4, 4)


def made(name: str, degrees: float = 4.0, log_sigma: float = -0.5) -> Likelihood:
    """For two bands, what it learns set to a number."""
    likelihood = build_likelihood(2, ModelSettings(likelihood=name, degrees_of_freedom=degrees), CLIP).double()
    with torch.no_grad():
        for learned in likelihood.parameters():
            learned.fill_(log_sigma / PACE)
    return likelihood


def raw_of(likelihood: Likelihood, *numbers: float) -> torch.Tensor:
    """What a decoder would have to say: the same for both bands."""
    each = [torch.full((1, 2, 1, 1), number, dtype=torch.float64) for number in numbers[: likelihood.outputs]]
    return torch.cat(each, dim=1)


def bounded(log_scale: float) -> float:
    """Learned scales are kept off zero by a softplus, which moves them a little."""
    return SMALLEST_LOG_SCALE + math.log1p(math.exp(log_scale - SMALLEST_LOG_SCALE))


def density(likelihood: Likelihood, value: float, raw: torch.Tensor, band: int = 0) -> float:
    x = torch.full((1, 2, 1, 1), value, dtype=torch.float64)
    with torch.no_grad():
        return math.exp(-float(likelihood.nats(x, raw, SIGMA)[0, band, 0, 0]))


@pytest.mark.parametrize("name", NAMES)
@trials(max_examples=6, deadline=None)
@drawn(first=raws, second=st.floats(-2, 1))
def test_it_is_a_density_whose_mean_is_what_is_expected(name: str, first: float, second: float) -> None:
    likelihood = made(name)
    raw = raw_of(likelihood, first, second)
    ends = (-CLIP, CLIP) if name == "bernoulli" else (-np.inf, np.inf)

    def integral(power: int) -> float:
        return quad(lambda value: value**power * density(likelihood, value, raw), *ends, limit=200)[0]

    total, mean = integral(0), integral(1)
    assert total == pytest.approx(1, abs=1e-5)
    assert mean == pytest.approx(float(likelihood.expected(raw)[0, 0, 0, 0]), abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
@trials(max_examples=40, deadline=None)
@drawn(value=st.floats(-CLIP, CLIP), first=st.floats(-1e3, 1e3), second=st.floats(-30, 30), log_sigma=st.floats(-9, 2))
def test_no_pixel_needs_fewer_nats_than_the_least(
    name: str, value: float, first: float, second: float, log_sigma: float
) -> None:
    likelihood = made(name, log_sigma=log_sigma).float()
    sigma = SIGMA.float()
    raw = raw_of(likelihood, first, second).float().requires_grad_()
    for at in (value, float(likelihood.expected(raw).detach()[0, 0, 0, 0]), CLIP, -CLIP):
        nats = likelihood.nats(torch.full((1, 2, 1, 1), at), raw, sigma)
        assert torch.isfinite(nats).all()
        assert float(nats.detach().sum()) >= likelihood.least(sigma) - 1e-4
        assert torch.isfinite(torch.autograd.grad(nats.sum(), raw)[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_least_is_reached(name: str) -> None:
    likelihood = made(name)
    raw = raw_of(likelihood, 1e6 if name == "bernoulli" else 0.5, -50.0)
    at = CLIP if name == "bernoulli" else 0.5
    nats = likelihood.nats(torch.full((1, 2, 1, 1), at, dtype=torch.float64), raw, SIGMA)
    assert float(nats.detach().sum()) == pytest.approx(likelihood.least(SIGMA), abs=1e-3)


@drawn(value=st.floats(-3, 3), mean=raws)
def test_gaussians_agree_with_scipy(value: float, mean: float) -> None:
    for name, scales in (
        ("gaussian", SIGMA.tolist()),
        ("gaussian_shared", SIGMA.tolist()),
        ("gaussian_learned", [math.exp(bounded(-0.5))] * 2),
        ("heteroscedastic", [math.exp(bounded(-1.0))] * 2),
    ):
        likelihood = made(name)
        for band, scale in enumerate(scales):
            found = density(likelihood, value, raw_of(likelihood, mean, -1.0), band)
            assert found == pytest.approx(stats.norm.pdf(value, mean, scale), rel=1e-6)


@drawn(value=st.floats(-3, 3), mean=raws, degrees=st.sampled_from([1.5, 4.0, 30.0]))
def test_students_t_agrees_with_scipy(value: float, mean: float, degrees: float) -> None:
    likelihood = made("student_t", degrees, log_sigma=0.3)
    found = density(likelihood, value, raw_of(likelihood, mean))
    assert math.log(found) == pytest.approx(stats.t.logpdf(value, degrees, mean, math.exp(bounded(0.3))), abs=1e-6)


def test_a_bright_pixel_costs_a_t_its_logarithm_and_a_gaussian_its_square() -> None:
    x = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 2, 1, 1)
    raw = torch.zeros_like(x)
    tail, square = (made(name).nats(x, raw, SIGMA)[:, 0, 0, 0].detach().diff() for name in ("student_t", "gaussian"))
    assert float(tail[1] / tail[0]) < 2
    assert float(square[1] / square[0]) == pytest.approx(100)


@drawn(logit=st.floats(-14, 14).filter(lambda logit: abs(logit) > 0.1), share=st.floats(0, 1))
def test_the_continuous_bernoulli_agrees_with_its_closed_form(logit: float, share: float) -> None:
    likelihood = made("bernoulli")
    raw = raw_of(likelihood, 15 * math.atanh(logit / 15))
    closed = logit * share + math.log(logit / math.expm1(logit)) - math.log(2 * CLIP)
    found = density(likelihood, (2 * share - 1) * CLIP, raw)
    assert math.log(found) == pytest.approx(closed, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_only_a_likelihood_with_a_spread_of_each_pixel_has_a_log_scale(name: str) -> None:
    likelihood = made(name)
    scale = likelihood.log_scale(raw_of(likelihood, 0.0, 1.0))
    assert (scale is None) == (name != "heteroscedastic")
    assert scale is None or scale.shape == (1, 2, 1, 1)
    assert likelihood.expected(raw_of(likelihood, 0.0, 1.0)).shape == (1, 2, 1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_the_decoder_is_finite_wherever_it_goes(name: str) -> None:
    likelihood = made(name).float()
    for number in (-1e6, -15.0, -1e-3, 0.0, 1e-3, 15.0, 1e6):
        raw = raw_of(likelihood, number, number).float().requires_grad_()
        nats = likelihood.nats(torch.full((1, 2, 1, 1), 0.3), raw, SIGMA.float())
        assert torch.isfinite(torch.autograd.grad(nats.sum(), raw)[0]).all()

"""Objectives: the loss is the bound it is said to be, and each addition does what it is for and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import multivariate_normal, norm

from configs.schema import ModelSettings, TrainSettings
from tests.vae.combinations import TINY, batch, draws, lively
from tests.vae.test_posteriors import agrees, noise
from vae.networks import VAE, build
from vae.objectives import batch_sums, elbo_per_dimension, fitted_sigma, importance_bound, objective

SETTINGS = TrainSettings()
OBJECTIVES = (
    {}, {"beta": 4.0}, {"objective": "iwae", "samples": 3}, {"free_bits": 1.0}, {"input_noise": 0.2},
    {"structural": "ms_ssim"}, {"structural": "focal_frequency"},
    {"input_noise": 0.2, "structural": "ms_ssim", "free_bits": 0.5},
)  # fmt: skip
each_objective = pytest.mark.parametrize("change", OBJECTIVES, ids=lambda change: "-".join(change) or "elbo")


def network_of(seed: int = 1, **change: object) -> VAE:
    return lively(ModelSettings(**TINY | change), seed=seed)


def loss_of(network: VAE, x, valid, beta: float = 1.0, **change: object) -> float:
    return float(objective(network, x, valid, TrainSettings(**change), beta, draws()).loss.detach())


@each_objective
def test_one_step_lowers_the_loss_of_every_objective(change: dict[str, object]) -> None:
    settings = TrainSettings(**change)
    network = build(3, ModelSettings(**TINY), seed=1)
    x, valid = batch()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    before = objective(network, x, valid, settings, settings.beta, draws()).loss
    before.backward()
    optimiser.step()
    assert objective(network, x, valid, settings, settings.beta, draws()).loss < before


@each_objective
@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic"])
@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e30, -7.0])
def test_masked_pixels_change_neither_loss_nor_gradient_of_any_objective(
    change: dict[str, object], likelihood: str, filling: float
) -> None:
    def found(filling: float) -> list[torch.Tensor]:
        x, valid = batch(filling=filling)
        network = network_of(likelihood=likelihood)
        made = objective(network, x.requires_grad_(), valid, TrainSettings(**change), 0.7, draws())
        made.loss.backward()
        assert (x.grad[~valid[:, None].expand_as(x)] == 0).all()
        return [made.loss, x.grad, *(weight.grad for weight in network.parameters())]

    one, other = found(0.1), found(filling)
    assert all(torch.isfinite(part).all() for part in one)
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_the_loss_is_reconstruction_and_beta_times_kl() -> None:
    x, valid = batch()
    found = objective(network_of(), x, valid, SETTINGS, 0.3, draws())
    assert float(found.loss.detach()) == pytest.approx(
        float((found.reconstruction + 0.3 * found.kl).detach()), rel=1e-6
    )
    assert float(found.kl.detach()) == pytest.approx(float(found.passed.kl.detach().sum() / 6), rel=1e-6)


def test_the_variance_is_the_maximum_of_the_likelihood() -> None:
    x, valid = batch()
    for likelihood, axis in (("gaussian", 0), ("gaussian_shared", None)):
        found = objective(network_of(likelihood=likelihood), x, valid, SETTINGS, 1.0, draws())
        residuals = (x - found.passed.expected.detach()).movedim(1, -1)[valid].double().numpy()
        sigma = np.broadcast_to(np.sqrt((residuals**2).mean(axis)), 3)
        np.testing.assert_allclose(found.sigma, sigma, rtol=1e-5)
        best = -norm.logpdf(residuals, scale=sigma).sum() / 6
        assert found.reconstruction.item() == pytest.approx(best, rel=1e-5)
        for factor in (0.9, 1.1):
            assert -norm.logpdf(residuals, scale=factor * sigma).sum() / 6 > best
        np.testing.assert_allclose(fitted_sigma(found.sums, likelihood == "gaussian_shared"), sigma, rtol=1e-5)


def test_the_gradient_is_that_of_the_logarithm_of_the_mean_squared_error() -> None:
    # With σ² = MSE the loss is N/2 log MSE + constant: its gradient must not be changed by how σ² is treated.
    x, valid = batch(filling=0.0)
    network = network_of()
    found = objective(network, x, valid, SETTINGS, 0.0, draws())
    (gradient,) = torch.autograd.grad(found.loss, found.passed.expected)
    by_hand = found.passed.expected.detach().requires_grad_()
    pixels = valid.sum()
    squared = torch.where(valid[:, None], x - by_hand, 0.0).square().sum((0, 2, 3))
    (0.5 * pixels * torch.log(squared / pixels)).sum().div(6).backward()
    torch.testing.assert_close(gradient, by_hand.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
def test_the_elbo_of_batches_is_that_of_all_tiles_at_once(likelihood: str) -> None:
    x, valid = batch()
    network = network_of(likelihood=likelihood)
    with torch.inference_mode():
        whole, *parts = (
            batch_sums(network, x[rows], valid[rows], network(x[rows], valid[rows]))
            for rows in (slice(None), slice(2), slice(2, None))
        )
    assert elbo_per_dimension(parts[0] + parts[1]) == pytest.approx(elbo_per_dimension(whole), rel=1e-5)
    sigma = fitted_sigma(whole)
    assert elbo_per_dimension(whole, sigma) > elbo_per_dimension(whole, 2 * sigma)
    if likelihood == "gaussian":
        assert elbo_per_dimension(whole, network.sigma) == pytest.approx(elbo_per_dimension(whole), rel=1e-5)


def test_an_elbo_of_nothing_is_not_a_number() -> None:
    x, valid = batch(2)
    network = network_of()
    nothing = torch.zeros_like(valid)
    assert math.isnan(elbo_per_dimension(batch_sums(network, x, nothing, network(x, nothing))))


@pytest.mark.parametrize(
    "change",
    [{}, {"posterior": "flow"}, {"posterior": "hierarchical"}, {"latent": "vector", "likelihood": "heteroscedastic"}],
    ids=lambda change: "-".join(change.values()) or "default",
)
def test_the_importance_bound_of_one_draw_is_the_elbo_and_it_rises_with_their_number(change: dict[str, str]) -> None:
    network = network_of(**change)
    x, valid = (part.expand(400, *part.shape[1:]) for part in batch(1, side=8))
    with torch.inference_mode():
        passed = network(x, valid, noise(1))
        nats = network.likelihood.nats(x, passed.raw, network.sigma)
        elbo = -torch.where(valid[:, None], nats, 0.0).sum(dim=(1, 2, 3)) - passed.kl.sum(dim=1)
        single, few, many = (importance_bound(network, x, valid, noise(2), samples) for samples in (1, 4, 24))
    assert agrees(single - elbo, 0.0)
    assert float(elbo.mean()) < float(few.mean()) < float(many.mean())
    assert many.std() < single.std()


def test_the_importance_weighted_objective_is_the_bound() -> None:
    network = network_of(likelihood="student_t")  # of which nothing is fitted to the batch
    x, valid = batch(40)
    with torch.inference_mode():
        found = objective(network, x, valid, TrainSettings(objective="iwae", samples=4), 1.0, noise())
        bound = importance_bound(network, x, valid, noise(1), 4)
        elbo = objective(network, x, valid, SETTINGS, 1.0, noise())
    assert float(-found.loss) == pytest.approx(float(bound.mean()), rel=2e-3)
    assert found.loss < elbo.loss
    assert float(found.sums.tiles) == 160
    assert elbo_per_dimension(found.sums) == pytest.approx(elbo_per_dimension(elbo.sums), rel=1e-2)


def test_a_tile_without_valid_pixels_has_a_bound_of_nothing() -> None:
    x, valid = batch(2)
    valid[1] = False
    with torch.inference_mode():
        bound = importance_bound(network_of(), x, valid, noise(), 3)
    assert bound[1] == 0
    assert bound[0] != 0


def test_free_bits_charge_what_is_beyond_them_and_nothing_else() -> None:
    x, valid = batch()
    network = network_of()
    channels = objective(network, x, valid, SETTINGS, 1.0, draws()).passed.kl.mean(dim=0)
    for free in (0.1, float(channels.median()), 1e3):
        found = objective(network, x, valid, TrainSettings(free_bits=free), 1.0, draws())
        charged = float(channels.clamp(min=free).sum())
        assert float(found.loss - found.reconstruction) == pytest.approx(charged, rel=1e-4)
        assert float(found.kl) == pytest.approx(float(channels.sum()), rel=1e-5)  # what is told is the KL itself
    (gradient,) = torch.autograd.grad(found.loss - found.reconstruction, found.passed.mu)
    assert (gradient == 0).all()


def test_input_noise_is_seen_by_the_encoder_and_not_to_be_reconstructed() -> None:
    x, valid = batch()
    network = network_of()
    shown = []
    network.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    found = objective(network, x, valid, TrainSettings(input_noise=0.5), 1.0, draws())
    away = (shown[0] - x)[valid[:, None].expand_as(x)]
    assert float(away.std()) == pytest.approx(0.5, rel=0.1)
    residuals = (x - found.passed.expected.detach()).movedim(1, -1)[valid].double().numpy()
    np.testing.assert_allclose(found.sums.squared, (residuals**2).sum(0), rtol=1e-5)


@pytest.mark.parametrize("name", ["ms_ssim", "focal_frequency"])
def test_a_structural_term_is_added_by_its_weight_and_by_the_values_that_count(name: str) -> None:
    x, valid = batch()
    network = network_of()
    none, one, two = (
        loss_of(network, x, valid, structural=name, structural_weight=weight) for weight in (0.0, 1.0, 2.0)
    )
    assert none == pytest.approx(loss_of(network, x, valid), rel=1e-6)
    assert one > none
    assert two - none == pytest.approx(2 * (one - none), rel=1e-3)


def test_what_a_quantised_latent_asks_for_is_part_of_the_loss() -> None:
    x, valid = batch()
    found = objective(network_of(posterior="quantised"), x, valid, SETTINGS, 1.0, draws())
    extra = float(found.loss - found.reconstruction - found.kl)
    assert extra == pytest.approx(float(found.passed.penalty.mean()), rel=1e-2)
    assert extra > 0


def test_a_wrapped_network_needs_the_bare_one_beside_it() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, network: VAE) -> None:
            super().__init__()
            self.network = network

        def forward(self, *given):
            return self.network(*given)

    x, valid = batch()
    network = network_of()
    with pytest.raises(TypeError, match=r"which network Wrapped wraps: objective\(\.\.\., core=network\)"):
        objective(Wrapped(network), x, valid, SETTINGS, 1.0, draws())
    found = objective(Wrapped(network), x, valid, SETTINGS, 1.0, draws(), core=network)
    assert float(found.loss) == loss_of(network, x, valid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"free_bits": 1.0}, "no KL term of its own"),
        ({"adversarial_weight": 1.0}, "no KL term of its own"),
        ({"structural": "ms_ssim"}, "no part of"),
    ],
)
def test_what_the_importance_weighted_bound_cannot_have_is_refused_in_words(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings(objective="iwae", **change)


def test_on_linear_gaussian_data_the_elbo_comes_within_one_percent_of_the_exact_likelihood() -> None:
    # Probabilistic PCA (Tipping & Bishop 1999): two factors, eight dimensions, one σ; its likelihood is known.
    draw = np.random.default_rng(0)
    factors, sigma = draw.normal(size=(8, 2)), 0.3
    covariance = factors @ factors.T + sigma**2 * np.eye(8)
    values = draw.multivariate_normal(np.zeros(8), covariance, 3000).astype(np.float32)
    exact = float(multivariate_normal.logpdf(values, np.zeros(8), covariance).mean()) / 8
    x = torch.from_numpy(values).view(-1, 2, 2, 2)
    valid = torch.ones(len(x), 2, 2, dtype=torch.bool)
    network = build(2, ModelSettings(width=16, depth=1, latent_channels=2, likelihood="gaussian_shared"), 0)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    source, order = noise(), torch.Generator().manual_seed(0)
    for _ in range(300):
        rows = torch.randint(len(x), (128,), generator=order)
        found = objective(network, x[rows], valid[rows], SETTINGS, 1.0, source)
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        passed = network(x, valid, source)
        network.sigma.copy_(fitted_sigma(batch_sums(network, x, valid, passed), shared=True))
        elbo = elbo_per_dimension(batch_sums(network, x, valid, network(x, valid, source)))
        bound = float(importance_bound(network, x, valid, source, 20).mean()) / 8
    assert elbo == pytest.approx(exact, rel=0.01)
    assert elbo < bound < exact + 0.01

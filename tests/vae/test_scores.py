"""Scores against their definitions; what holds of all of them is in test_every_score."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import norm
from sklearn.covariance import OAS

from tests.vae.conftest import make_network
from vae.errors import ScoreError
from vae.networks import VAE, Passed
from vae.networks.posteriors import kl_divergence
from vae.scores import Evidence, Past, SceneStats, find, latent, pool, single

SIGMA = torch.tensor([0.1, 0.5, 2.0])


def normal(seed: int, *shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def evidence(seed: int = 0, tiles: int = 5, passed: Passed | None = None, **given_too) -> Evidence:
    """Tiles of 8 × 8 pixels; what the network made of them is drawn, unless it is given."""
    valid = normal(seed + 1, tiles, 8, 8) > -0.5
    x = torch.where(valid[:, None], normal(seed, tiles, 3, 8, 8), 0.0)
    network = make_network()
    network.sigma.copy_(SIGMA)
    if passed is None:
        passed = made(normal(seed + 2, tiles, 3, 8, 8), *(normal(seed + number, tiles, 4, 2, 2) for number in (3, 4)))
    return Evidence(x, valid, network, shared={"tiles": passed}, **given_too)


def made(expected: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor) -> Passed:
    """What a Gaussian network gives, for its mean."""
    nothing = torch.zeros(len(mu))
    return Passed(expected, expected, mu, logvar, (mu,), kl_divergence(mu, logvar).sum(dim=(2, 3)), nothing, nothing)


def certain_network() -> VAE:
    """One whose posterior has the least variance there is."""
    network = make_network()
    network.sigma.copy_(SIGMA)
    with torch.no_grad():
        network.posterior.head.weight[4:] = 0
        network.posterior.head.bias[4:] = -1000
    return network


def compute(name: str, given_evidence: Evidence) -> np.ndarray:
    return find(name).compute(given_evidence).detach().numpy()


def test_the_likelihood_is_that_of_a_gaussian_with_a_sigma_for_each_band():
    tiles = evidence()
    by_hand = -norm.logpdf(tiles.x, tiles.expected, SIGMA.view(1, 3, 1, 1)).sum(1)
    np.testing.assert_allclose(compute("nll", tiles), by_hand, rtol=1e-5)
    squared = (((tiles.x - tiles.expected) / SIGMA.view(1, 3, 1, 1)) ** 2).mean(dim=1)
    np.testing.assert_allclose(compute("reconstruction", tiles), squared, rtol=1e-5)


@pytest.mark.parametrize("name", ["reconstruction", "squared_error", "nll", "kl"])
def test_a_tile_that_is_just_as_expected_scores_the_least(name):
    tiles = evidence()
    perfect = evidence(passed=made(tiles.x, torch.zeros(5, 4, 2, 2), torch.zeros(5, 4, 2, 2)))
    np.testing.assert_allclose(compute(name, perfect), find(name).least(perfect), atol=1e-5)


def test_a_posterior_that_is_certain_has_no_uncertainty_and_the_likelihood_of_its_mean():
    uncertain = replace(evidence(), shared={})
    certain = replace(uncertain, network=certain_network(), shared={})
    with torch.inference_mode():
        spread, none = (compute("reconstruction_uncertainty", one).mean() for one in (uncertain, certain))
        assert none < 0.05 * spread  # a standard deviation of e**-5 is the least
        np.testing.assert_allclose(
            compute("reconstruction_probability", certain), compute("nll", certain), rtol=1e-2, atol=1e-2
        )
        again = replace(uncertain, seed=1)
        assert not np.array_equal(
            compute("reconstruction_probability", uncertain), compute("reconstruction_probability", again)
        )


def test_complexity_takes_off_what_a_general_compressor_needs():
    tiles = evidence()
    tiles.valid[:] = True
    greys = ((tiles.x[0] / 4 + 0.5).clamp(0, 1) * (single.GREYS - 1)).round().byte().numpy()
    nats = 8 * len(zlib.compress(greys.tobytes(), 6)) * math.log(2) / 64
    by_hand = compute("nll", tiles)[0].mean() - nats
    assert compute("complexity_corrected", tiles)[0] == pytest.approx(by_hand, rel=1e-5)
    assert nats < 8 * 3 * math.log(2)
    tiles.valid[:] = False
    tiles.valid[:, 0, 0] = True  # one pixel does not carry the whole tile
    assert (compute("complexity_corrected", tiles) >= find("complexity_corrected").least(tiles)).all()


def test_likelihood_regret_is_worked_out_whatever_mode_the_caller_is_in():
    network = make_network()
    x = torch.zeros(2, 3, 16, 16)
    x[1, :, 4:12, 4:12] = 2.0
    tiles = Evidence(x, torch.ones(2, 16, 16, dtype=torch.bool), network)
    with torch.no_grad():
        plain = compute("likelihood_regret", replace(tiles, shared={}))
    with torch.inference_mode():
        made_inside = replace(tiles, x=x.clone(), shared={})
        inside = compute("likelihood_regret", made_inside)
    np.testing.assert_array_equal(plain, inside)
    assert inside[1] > inside[0] >= 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_pixels_of_a_scene_are_whitened_by_their_own_covariance():
    mixing = np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 0.3]])
    pixels = np.random.default_rng(0).normal(size=(5000, 3)) @ mixing + [1, 2, 3]
    stats = SceneStats.of(torch.from_numpy(pixels).float())
    np.testing.assert_allclose(stats.mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats.precision, np.linalg.inv(np.cov(pixels.T, bias=True)), rtol=1e-3, atol=1e-3)
    tile = torch.from_numpy(pixels[:64].T.reshape(1, 3, 8, 8)).float()
    found = compute("rx", Evidence(tile, torch.ones(1, 8, 8, dtype=torch.bool), scene=stats))
    precision = np.linalg.inv(np.cov(pixels.T, bias=True))
    by_hand = [mahalanobis(pixel, pixels.mean(axis=0), precision) ** 2 / 3 for pixel in pixels[:64]]
    np.testing.assert_allclose(found.ravel(), by_hand, rtol=1e-3)


@pytest.mark.parametrize("flat", ["a band", "a direction", "everything"])
def test_a_scene_that_hardly_varies_somewhere_gives_finite_numbers(flat):
    pixels = normal(0, 400, 3)
    if flat == "a band":
        pixels[:, 1] = 0.7
    elif flat == "a direction":
        pixels[:, 1] = 2 * pixels[:, 0]
    else:
        pixels[:] = torch.tensor([0.1, 0.2, 0.3])
    stats = SceneStats.of(pixels)
    assert torch.isfinite(stats.precision).all()
    tile = pixels[:64].T.reshape(1, 3, 8, 8) + 0.5
    found = compute("rx", Evidence(tile, torch.ones(1, 8, 8, dtype=torch.bool), scene=stats))
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_latents_are_compared_with_those_of_normal_tiles():
    batches = [evidence(seed, tiles=40) for seed in (10, 20)]
    tiles = evidence()
    means = np.concatenate([batch.mu.mean(dim=(2, 3)).numpy() for batch in batches]).astype(float)
    learned = latent.learn_covariance(batches)
    fitted = OAS().fit(means)
    np.testing.assert_allclose(learned["precision"], fitted.precision_, rtol=0.02, atol=0.02)
    ours = tiles.mu.mean(dim=(2, 3)).numpy()
    by_hand = [mahalanobis(one, means.mean(axis=0), fitted.precision_) ** 2 / 4 for one in ours]
    np.testing.assert_allclose(compute("latent_mahalanobis", replace(tiles, constants=learned)), by_hand, rtol=0.03)
    memory = latent.learn_memory(batches)
    nearest = np.sort(cdist(ours, means), axis=1)[:, : latent.NEIGHBOURS].mean(axis=1)
    np.testing.assert_allclose(compute("latent_knn", replace(tiles, constants=memory)), nearest, rtol=1e-5)


def test_few_tiles_are_enough_to_learn_latents_from_and_empty_ones_teach_nothing():
    one = evidence(10, tiles=2)
    one.valid[1] = False
    assert latent.learn_memory([one])["memory"].shape == (1, 4)
    for learned in (latent.learn_memory([one]), latent.learn_covariance([one])):
        name = "latent_knn" if "memory" in learned else "latent_mahalanobis"
        assert np.isfinite(compute(name, replace(evidence(), constants=learned))).all()


def test_the_memory_of_latents_is_bounded_and_evenly_chosen(monkeypatch):
    monkeypatch.setattr(latent, "MOST_REMEMBERED", 8)
    batches = [evidence(seed, tiles=12) for seed in (10, 20)]
    memory = latent.learn_memory(batches)["memory"]
    whole = torch.cat([batch.mu.mean(dim=(2, 3)) for batch in batches])
    torch.testing.assert_close(memory, whole[::3])


LATENTS = ("latent_cosine", "latent_l2", "latent_kl", "latent_wasserstein")


@pytest.mark.parametrize("name", LATENTS)
def test_a_tile_that_is_as_its_past_has_no_distance_in_latents_though_clouds_differ(name):
    tiles = evidence()
    known = normal(9, 5, 8, 8) > -0.3
    under_clouds = torch.where(tiles.valid[:, None], tiles.x, 5.0)  # the past knows what the tile does not show
    past = Past(torch.where(known[:, None], under_clouds, 0.0), known)
    with torch.no_grad():
        found = compute(name, replace(tiles, past=past, shared={}))
        np.testing.assert_allclose(found, 0, atol=1e-5)
        other = compute(name, replace(tiles, past=replace(past, expected=past.expected + 1), shared={}))
    assert (other > 1e-4).all()


@pytest.mark.parametrize("name", LATENTS)
def test_latents_remember_the_witness_too_where_it_is_seen(name):
    tiles = evidence()
    seen = torch.ones(5, 8, 8, dtype=torch.bool)
    seen[1] = False
    past = Past(tiles.x + 1, tiles.valid, witness=tiles.x, witness_expected=tiles.x, witness_valid=seen)
    with torch.no_grad():
        found = compute(name, replace(tiles, past=past, shared={}))
        alone = compute(name, replace(tiles, past=replace(past, witness=None), shared={}))
    np.testing.assert_allclose(found[[0, 2, 3, 4]], 0, atol=1e-5)
    assert found[1] == alone[1] > 1e-4


def test_an_unknown_score_is_answered_with_the_nearest_and_all():
    with pytest.raises(
        ScoreError, match=r"'reconstrution'.*Did you mean 'reconstruction'\?.*aligned_difference, change"
    ):
        find("reconstrution")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 1))
def test_pooling_is_that_of_the_valid_pixels_alone(seed, share):
    draw = np.random.default_rng(seed)
    values, valid = draw.normal(size=(4, 6, 6)), draw.random((4, 6, 6)) < share
    values[~valid] = draw.choice([np.nan, np.inf, -1e9], size=(~valid).sum())
    arguments = torch.from_numpy(values), torch.from_numpy(valid)
    for how, by_hand in (("mean", np.mean), ("p90", lambda pixels: np.quantile(pixels, 0.9))):
        expected = [by_hand(tile[mask]) if mask.any() else math.nan for tile, mask in zip(values, valid, strict=True)]
        np.testing.assert_allclose(pool(*arguments, how), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ScoreError, match="no pooling 'p50'"):
        pool(*arguments, "p50")

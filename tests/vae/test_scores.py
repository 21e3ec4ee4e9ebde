from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from vae.errors import ScoreError
from vae.scores import SCORES, Evidence, find, pool


def evidence(seed: int = 0) -> Evidence:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    valid = torch.rand(5, 8, 8, generator=draw) > 0.3
    x = torch.where(valid[:, None], normal(5, 3, 8, 8), 0.0)
    return Evidence(x, valid, normal(5, 3, 8, 8), normal(5, 4, 2, 2), normal(5, 4, 2, 2), torch.tensor([0.1, 0.5, 2.0]))


def test_the_likelihood_is_that_of_a_gaussian_with_a_sigma_for_each_band():
    given_evidence = evidence()
    expected = -norm.logpdf(given_evidence.x, given_evidence.expected, given_evidence.sigma.view(1, 3, 1, 1)).sum(1)
    np.testing.assert_allclose(find("nll").compute(given_evidence), expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_gives_a_number_a_tile_or_a_pixel_and_never_less_than_its_least(name):
    given_evidence = evidence()
    values = find(name).compute(given_evidence)
    assert values.shape in {(5,), (5, 8, 8)}
    least = find(name).least(given_evidence.sigma)
    assert values.min() >= least - 1e-5
    perfect = Evidence(
        given_evidence.x,
        given_evidence.valid,
        given_evidence.x,
        torch.zeros(5, 4, 2, 2),
        torch.zeros(5, 4, 2, 2),
        given_evidence.sigma,
    )
    np.testing.assert_allclose(find(name).compute(perfect), least, atol=1e-5)


def test_an_unknown_score_is_answered_with_the_nearest_and_all():
    with pytest.raises(
        ScoreError, match=r"'reconstrution'.*Did you mean 'reconstruction'\?.*kl, nll, reconstruction, squared_error"
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

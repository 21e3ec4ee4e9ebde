"""What changes as training goes on: the weight of the KL term, the learning rate, and which epochs are compared."""

from __future__ import annotations

import pytest

from configs.schema import TrainSettings
from vae.training import beta_at, learning_rate_at
from vae.training.schedule import is_judged


def linear(**settings) -> TrainSettings:
    return TrainSettings(**{"epochs": 20, "kl_warmup": 0.25, "beta": 2.0} | settings)


def cyclical(**settings) -> TrainSettings:
    return linear(kl_schedule="cyclical", **{"kl_cycles": 2, "kl_warmup": 0.5} | settings)


def test_a_linear_beta_rises_once_and_stays():
    assert [beta_at(linear(), done) for done in (0, 2.5, 5, 5.1, 20)] == [0, 1, 2, 2, 2]


def test_a_cyclical_beta_rises_anew_in_each_cycle():
    assert [beta_at(cyclical(), done) for done in (0, 2.5, 5, 10, 10.001, 12.5, 15, 20)] == pytest.approx(
        [0, 1, 2, 2, 0, 1, 2, 2], abs=1e-3
    )


@pytest.mark.parametrize("cycles", [1, 3, 7, 20])
def test_every_cycle_ends_with_the_full_beta_however_it_divides_the_epochs(cycles):
    settings = cyclical(kl_cycles=cycles)
    for cycle in range(1, cycles + 1):
        assert beta_at(settings, 20 * cycle / cycles - 1e-9) == pytest.approx(2)
    assert beta_at(settings, 20) == pytest.approx(2)


@pytest.mark.parametrize("settings", [linear(kl_warmup=0), cyclical(kl_warmup=0)], ids=["linear", "cyclical"])
def test_without_a_warm_up_beta_is_full_from_the_start(settings):
    assert {beta_at(settings, done) for done in (0, 3.3, 10, 19.9)} == {2.0}


def test_only_epochs_with_the_full_beta_are_compared():
    assert [epoch for epoch in range(20) if is_judged(linear(), epoch)] == list(range(5, 20))
    assert [epoch for epoch in range(20) if is_judged(cyclical(), epoch)] == [*range(5, 10), *range(15, 20)]


def test_the_learning_rate_falls_along_a_cosine_to_zero():
    rates = [learning_rate_at(linear(learning_rate=1e-2), done) for done in (0, 5, 10, 20)]
    assert rates == pytest.approx([1e-2, 1e-2 * 0.8535534, 5e-3, 0], abs=1e-9)

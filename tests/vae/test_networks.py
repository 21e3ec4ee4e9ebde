"""What holds of every network that the settings can name, and what each part is for."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as trials
from hypothesis import strategies as st
from pydantic import ValidationError

from configs import Settings
from configs.schema import ModelSettings, ScoreSettings, TrainSettings
from tests.vae.combinations import (
    COMBINATIONS,
    TINY,
    batch,
    choices,
    combinations,
    conditions,
    draws,
    given,
    lively,
    structures,
)
from tests.vae.conftest import bytes_of, make_normalisation, make_tiles
from vae.detector import Detector
from vae.errors import ShapeError
from vae.networks import build
from vae.objectives import objective
from vae.training import fit

SETTINGS = TrainSettings()
each_combination = pytest.mark.parametrize("name", COMBINATIONS)
BANDS, SIDES = (2, 3, 4, 6, 13), (16, 48, 64, 128)


def test_the_table_holds_every_value_of_every_choice_and_skips_and_conditions() -> None:
    every = COMBINATIONS.values()
    for name in ("network", "latent", "posterior", "likelihood"):
        assert {getattr(settings, name) for settings in every} == set(choices(name))
    told = {name for settings in every for name in settings.condition}
    assert told == {"season", "place", "sun", "sensor", "reference"}
    assert {settings.skips for settings in every} == {True, False}
    assert len(every) == 12 * 6
    assert combinations() == COMBINATIONS


@each_combination
def test_one_step_lowers_the_loss(name: str) -> None:
    settings = COMBINATIONS[name]
    network, told = build(3, settings, seed=1), given(settings)
    x, valid = batch()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)

    before = objective(network, x, valid, SETTINGS, 1.0, draws(), told).loss
    before.backward()
    optimiser.step()

    assert objective(network, x, valid, SETTINGS, 1.0, draws(), told).loss < before


@each_combination
def test_masked_pixels_change_neither_loss_nor_gradient(name: str) -> None:
    settings = COMBINATIONS[name]

    def loss_and_gradients(filling: float) -> list[torch.Tensor]:
        x, valid = batch(4, filling=filling)
        x.requires_grad_()
        network = lively(settings, seed=1)
        found = objective(network, x, valid, SETTINGS, 0.7, draws(), given(settings, 4, filling=filling))
        found.loss.backward()
        assert (x.grad[~valid[:, None].expand_as(x)] == 0).all()
        weights = [weight.grad for weight in network.parameters()]
        return [found.loss, *found.sums, x.grad, *(grad for grad in weights if grad is not None)]

    one = loss_and_gradients(0.1)
    assert all(torch.isfinite(part).all() for part in one)
    for other in (loss_and_gradients(np.nan), loss_and_gradients(1e30)):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@each_combination
def test_scores_do_not_depend_on_what_is_masked_and_a_saved_detector_scores_to_the_bit_the_same(
    name: str, tmp_path: Path
) -> None:
    detector = detector_of(COMBINATIONS[name])
    tiles = make_tiles(6, seed=4)
    told = conditions(detector.model, filling=np.nan)
    reference = bytes_of(detector.score(tiles.values, tiles.valid, conditions=told))

    garbage = np.where(tiles.valid[:, None], tiles.values, np.float32(1e30))
    other = conditions(detector.model, filling=7.0)
    assert bytes_of(detector.score(garbage, tiles.valid, conditions=other)) == reference

    detector.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert loaded.model == detector.model
    assert loaded.scoring_identity == detector.scoring_identity
    assert bytes_of(loaded.score(tiles.values, tiles.valid, conditions=told)) == reference


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("side", SIDES)
def test_a_tile_comes_back_in_its_own_shape(bands: int, side: int) -> None:
    x, valid = torch.zeros(2, bands, side, side), torch.ones(2, side, side, dtype=torch.bool)
    for number, made in enumerate(structures()):
        likelihood = choices("likelihood")[number % len(choices("likelihood"))]
        settings = made.model_copy(update={"likelihood": likelihood, "depth": 2 + number % 3})
        network = build(bands, settings, seed=0)
        with torch.inference_mode():
            passed = network(x, valid, draws())
            levels = settings.levels if settings.posterior == "hierarchical" else 1
            assert passed.expected.shape == x.shape
            assert passed.raw.shape == (2, bands * network.likelihood.outputs, side, side)
            assert passed.mu.shape == passed.logvar.shape == passed.z[0].shape == network.latent_shape(2, side)
            assert [z.shape[-1] for z in passed.z[1:]] == [passed.mu.shape[-1] * 2**n for n in range(1, levels)]
            assert passed.kl.shape == (2, passed.kl.shape[1])
            assert passed.kl.shape[1] in (1, levels * settings.latent_channels)
            assert passed.log_ratio.shape == passed.penalty.shape == (2,)
            assert network.sample(2, side, draws()).shape == x.shape


@pytest.mark.parametrize("depth", [1, 5])
def test_a_network_may_be_shallow_or_deep(depth: int) -> None:
    network = build(2, ModelSettings(width=4, depth=depth, latent_channels=5), seed=0)
    passed = network(torch.zeros(1, 2, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool))
    assert passed.mu.shape == (1, 5, 32 // 2**depth, 32 // 2**depth)


@pytest.mark.parametrize("shape", [(1, 3, 18, 18), (1, 2, 16, 16), (3, 16, 16)])
def test_tiles_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    network = build(3, ModelSettings(**TINY), 0)
    with pytest.raises(ShapeError, match="multiples of 4"):
        network(torch.zeros(shape), torch.ones(shape[0], *shape[-2:], dtype=torch.bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posterior": "hierarchical", "latent": "vector"}, "set model.latent to map"),
        ({"posterior": "quantised", "latent": "vector"}, "set model.latent to map"),
        ({"posterior": "hierarchical", "levels": 3, "depth": 2}, "room for 2 at most"),
        ({"posterior": "flow", "latent_channels": 1}, "2 or more"),
        ({"skips": True, "depth": 1}, "nothing for model.skips to join"),
        ({"condition": ("season", "season")}, "names something twice"),
    ],
)
def test_senseless_networks_are_refused_in_words(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSettings(**{**TINY, **change})


@pytest.mark.parametrize("change", [{"objective": "iwae"}, {"free_bits": 0.1}, {"adversarial_weight": 1}])
def test_objectives_that_a_quantised_latent_cannot_have_are_refused_in_words(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="the same for every tile"):
        Settings.model_validate({"model": {"posterior": "quantised"}, "train": change})


@each_combination
def test_decoding_the_draws_gives_what_the_pass_gave_unless_skips_pass_them_by(name: str) -> None:
    settings = COMBINATIONS[name]
    network, told = lively(settings), given(settings)
    x, valid = batch()
    with torch.inference_mode():
        passed = network(x, valid, draws(), told)
        decoded = network.decode(passed.z, 16, told)
    assert torch.allclose(decoded, passed.raw, atol=1e-5) != settings.skips
    assert torch.equal(network.likelihood.expected(passed.raw), passed.expected)


@each_combination
def test_without_noise_the_pass_is_always_the_same_and_with_noise_it_is_that_of_the_noise(name: str) -> None:
    settings = COMBINATIONS[name]
    network, told = lively(settings), given(settings)
    x, valid = batch()
    with torch.inference_mode():
        still, again = (network(x, valid, None, told) for _ in range(2))
        one, same, other = (network(x, valid, draws(seed), told).expected for seed in (0, 0, 1))
    assert torch.equal(still.expected, again.expected)
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (settings.posterior == "quantised")
    torch.testing.assert_close(still.z[0], still.mu)


@trials(max_examples=20, deadline=None)
@drawn(
    name=st.sampled_from(sorted(COMBINATIONS)),
    change=st.sampled_from(
        [{}, {"input_noise": 0.1}, {"free_bits": 2.0}, {"structural": "ms_ssim"}, {"structural": "focal_frequency"},
         {"objective": "iwae", "samples": 2}]
    ),
    beta=st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_a_tile_without_valid_pixels_contributes_nothing(name: str, change: dict[str, object], beta: float) -> None:
    settings, train = COMBINATIONS[name], TrainSettings(**change)
    network, told = lively(settings), given(settings, 4)
    x, valid = batch(4)
    empty = valid & (torch.arange(4) < 3)[:, None, None]
    alone_told = None if told is None else type(told)(*(None if part is None else part[:3] for part in told))

    def found(x, valid, told):
        network.zero_grad()
        made = objective(network, x, valid, train, beta, draws(), told)
        made.loss.backward()
        grads = [weight.grad for weight in network.parameters() if weight.grad is not None]
        return made, torch.cat([grad.flatten() for grad in grads])

    (alone, its_gradient), (together, gradient) = found(x[:3], valid[:3], alone_told), found(x, empty, told)
    assert together.loss.item() == pytest.approx(alone.loss.item(), rel=1e-4)
    for one, other in zip(together.sums, alone.sums, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, its_gradient, rtol=1e-2, atol=1e-3 * float(its_gradient.abs().max()))
    nothing = objective(network, x, torch.zeros_like(valid), train, beta, draws(), told)
    assert nothing.loss == 0
    assert torch.isfinite(nothing.sigma).all()


@pytest.mark.parametrize("name", ["season", "place", "sun", "sensor", "reference"])
def test_what_the_network_is_told_changes_what_it_expects_and_must_be_given(name: str) -> None:
    settings = ModelSettings(condition=(name,), **TINY)
    network, told = lively(settings), given(settings)
    x, valid = batch()
    with torch.inference_mode():
        one = network(x, valid, None, told).expected
        otherwise = given(settings, seed=1)
        if name in ("place", "sensor"):
            index = getattr(told, name)
            otherwise = told._replace(**{name: torch.where(index < 0, index, index + 1)})
        other = network(x, valid, None, otherwise).expected
    assert torch.isfinite(one).all()
    assert torch.equal(one[0], other[0])  # of the first tile nothing is known either time
    assert all(not torch.equal(left, right) for left, right in zip(one[1:], other[1:], strict=True))
    for missing in (None, type(told)()):
        with pytest.raises(ShapeError, match=f"told the {name}"):
            network(x, valid, None, missing)


def test_what_lies_under_the_mask_of_the_reference_is_ignored() -> None:
    settings = ModelSettings(condition=("reference",), **TINY)
    network, told = lively(settings), given(settings)
    x, valid = batch()
    garbage = torch.where(told.reference_valid[:, None], told.reference, torch.nan)
    with torch.inference_mode():
        one, other = (network(x, valid, None, told._replace(reference=image)).expected for image in (garbage, told[4]))
    assert torch.equal(one, other)


def test_places_and_sensors_beyond_those_it_has_room_for_are_unknown() -> None:
    settings = ModelSettings(condition=("place", "sensor"), **TINY)
    network, told = lively(settings), given(settings)
    x, valid = batch()
    with torch.inference_mode():
        unknown, beyond = (
            network(x, valid, None, told._replace(place=torch.full((6,), one), sensor=torch.full((6,), one))).expected
            for one in (-1, 10**6)
        )
    assert torch.equal(unknown, beyond)


def test_turn_of_the_year_is_no_jump() -> None:
    settings = ModelSettings(condition=("season",), **TINY)
    network = lively(settings)
    x, valid = batch()

    def at(share: float) -> torch.Tensor:
        with torch.inference_mode():
            return network(x, valid, None, given(settings)._replace(season=torch.full((6,), share))).expected

    assert (at(0.999) - at(0.001)).abs().max() < 0.1 * (at(0.5) - at(0.001)).abs().max()


def test_the_same_seed_gives_the_same_weights_and_disturbs_no_other_draw() -> None:
    for settings in structures():
        torch.manual_seed(3)
        undisturbed = torch.rand(2)
        torch.manual_seed(3)
        one, same, other = (build(3, settings, seed).state_dict() for seed in (5, 5, 6))
        assert torch.equal(torch.rand(2), undisturbed)
        assert all(torch.equal(one[key], same[key]) for key in one)
        assert any(not torch.equal(one[key], other[key]) for key in one)


def test_a_vector_tells_where_in_the_tile_something_is() -> None:
    network = lively(ModelSettings(latent="vector", **TINY))
    x = torch.zeros(2, 3, 16, 16)
    x[0, :, :4, :4], x[1, :, 12:, 12:] = 2.0, 2.0
    with torch.inference_mode():
        passed = network(x, torch.ones(2, 16, 16, dtype=torch.bool))
    assert (passed.mu[0] - passed.mu[1]).abs().max() > 1e-3
    assert passed.mu.shape == (2, 4, 1, 1)


def test_moving_a_tile_by_one_cell_moves_its_latent_map() -> None:
    network = lively(ModelSettings(**TINY))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # Group normalisation sees the whole tile, so that the same pixels must be there: they go round.
    with torch.inference_mode():
        one, moved = (network(image, torch.ones(1, 64, 64, dtype=torch.bool)).mu for image in (x, x.roll(4, 3)))
    inner = np.s_[..., 5:-5, 5:-5]
    away = (moved[inner] - one.roll(1, 3)[inner]).abs().mean()
    assert away < 0.1 * (moved[inner] - one[inner]).abs().mean()


@pytest.mark.parametrize("skips", [True, False])
def test_training_with_skips_warns_that_anomalies_pass(skips: bool, caplog: pytest.LogCaptureFixture) -> None:
    settings = ModelSettings(skips=skips, **TINY)
    with caplog.at_level(logging.WARNING, logger="vae"):
        fit(make_tiles(4), None, make_normalisation(), settings, TrainSettings(epochs=1, device="cpu"), 0)
    assert ("lets anomalies pass" in caplog.text) == skips


COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU: g++")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "change"),
    [
        ("aot_eager", {"posterior": "hierarchical", "likelihood": "heteroscedastic"}),
        ("aot_eager", {"latent": "vector", "posterior": "flow", "network": "residual", "likelihood": "student_t"}),
        pytest.param("inductor", {"depth": 1}, marks=COMPILER),
    ],
    ids=["hierarchical", "vector", "down to machine code"],
)
def test_compiled_and_eager_agree(
    backend: str, change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what a killed compiler leaves behind is not ours
    network = lively(ModelSettings(**{**TINY, **change}))
    x, valid = batch()
    noise = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    results = []
    for wrapped in (network, torch.compile(network, backend=backend)):
        network.zero_grad()
        found = objective(
            wrapped, x, valid, SETTINGS, 1.0, lambda shape: noise[:, :, : shape[2], : shape[3]], core=network
        )
        found.loss.backward()
        results.append([found.loss.detach(), *(weight.grad for weight in network.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max() + 1))


def detector_of(settings: ModelSettings) -> Detector:
    """A detector with a network of its own, whose scores need nothing to be learned."""
    scores = ScoreSettings(name="reconstruction", without_past="reconstruction", also=("nll", "kl"))
    return Detector((lively(settings),), make_normalisation(), settings, scores, tile_size=16)

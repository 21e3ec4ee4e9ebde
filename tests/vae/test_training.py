from __future__ import annotations

import logging
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, TrainSettings
from tests.vae.conftest import make_normalisation, make_tiles
from vae.conditions import Conditions
from vae.errors import ShapeError
from vae.tiles import TileArrays
from vae.training import Diverged, fit, turn
from vae.training.batches import Noise

SMALL = ModelSettings(width=8, depth=2, latent_channels=4)
FEW = TrainSettings(epochs=4, batch_size=16, device="cpu", kl_warmup=0.25)


class KilledError(Exception):
    pass


def run(seed: int = 0, settings: TrainSettings = FEW, checkpoint=None, on_epoch=None, held_out=True, train=None):
    return fit(
        make_tiles(48, seed=1) if train is None else train,
        make_tiles(16, seed=2) if held_out else None,
        make_normalisation(),
        SMALL,
        settings,
        seed,
        checkpoint,
        on_epoch,
    )


def same_weights(one, other) -> bool:
    left, right = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def without_clock(history):
    clock = ("seconds", "tiles_per_second")
    return [{name: value for name, value in vars(entry).items() if name not in clock} for entry in history]


def test_training_learns_and_reports():
    settings = FEW.model_copy(update={"epochs": 12})
    fitted = run(settings=settings)
    first, last = fitted.history[0], fitted.history[-1]
    assert last.elbo_held_out > first.elbo_held_out + 0.1
    assert [entry.epoch for entry in fitted.history] == list(range(1, 13))
    assert last.learning_rate == pytest.approx(0, abs=1e-9)
    assert last.beta == 1
    assert first.beta == pytest.approx(1 / 3)
    assert last.loss == pytest.approx(last.reconstruction + last.kl, rel=1e-6)
    best = max(fitted.history[3:], key=lambda entry: entry.elbo_held_out)
    assert fitted.best_epoch == best.epoch


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    assert same_weights(run(), run())
    assert not same_weights(run(), run(seed=1))


def test_training_leaves_other_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(settings=FEW.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("killed_after", [1, 3])
@pytest.mark.parametrize("held_out", [True, False])
def test_killed_and_resumed_training_ends_with_the_same_weights(tmp_path, killed_after, held_out):
    def kill(metrics, network):
        if metrics.epoch == killed_after:
            raise KilledError

    checkpoint = tmp_path / "train.checkpoint"
    with pytest.raises(KilledError):
        run(checkpoint=checkpoint, on_epoch=kill, held_out=held_out)
    seen = []
    resumed = run(checkpoint=checkpoint, on_epoch=lambda metrics, network: seen.append(metrics), held_out=held_out)
    undisturbed = run(held_out=held_out)
    assert resumed.resumed_from == killed_after
    assert undisturbed.resumed_from is None
    assert [metrics.epoch for metrics in seen] == list(range(killed_after + 1, 5))
    assert same_weights(resumed, undisturbed)
    assert without_clock(resumed.history) == without_clock(undisturbed.history)
    assert [path.name for path in tmp_path.iterdir()] == ["train.checkpoint"]


@pytest.mark.parametrize("damage", ["other settings", "other tiles", "truncated", "not one of ours"])
def test_a_checkpoint_that_does_not_fit_is_ignored_with_a_warning(tmp_path, caplog, damage):
    checkpoint = tmp_path / "train.checkpoint"
    other = FEW.model_copy(update={"learning_rate": 1e-3}) if damage == "other settings" else FEW
    run(settings=other, checkpoint=checkpoint, train=make_tiles(48, seed=9) if damage == "other tiles" else None)
    if damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    if damage == "not one of ours":
        checkpoint.write_bytes(b"\x80\x04 a pickle, say")
    with caplog.at_level(logging.WARNING):
        fitted = run(checkpoint=checkpoint)
    assert fitted.resumed_from is None
    assert len(fitted.history) == 4
    assert "training starts anew" in caplog.text


def test_patience_ends_training_only_after_the_warm_up():
    # A vanishing learning rate: nothing changes, so no epoch is better by more than rounding.
    settings = FEW.model_copy(update={"epochs": 40, "learning_rate": 1e-12, "patience": 2, "kl_warmup": 0.5})
    fitted = run(settings=settings)
    assert fitted.stopped_early
    assert 22 < len(fitted.history) < 40


def test_without_held_out_tiles_all_epochs_are_trained_and_the_last_is_kept():
    fitted = run(held_out=False, settings=FEW.model_copy(update={"patience": 1}))
    assert len(fitted.history) == fitted.best_epoch == 4
    assert not fitted.stopped_early
    assert all(entry.elbo_held_out is None for entry in fitted.history)


def told_tiles(count: int, seed: int, side: int = 16) -> TileArrays:
    """Tiles with all that a network can be told."""
    tiles, draw = make_tiles(count, seed=seed, side=side), np.random.default_rng(seed)
    told = Conditions(
        season=draw.random(count, np.float32),
        place=draw.integers(-1, 3, count),
        sun=np.stack([np.full(count, 40), draw.uniform(0, 360, count)], axis=1).astype(np.float32),
        sensor=draw.integers(-1, 2, count),
        reference=tiles.values,
        reference_valid=tiles.valid,
    )
    return TileArrays(tiles.values, tiles.valid, told)


def test_networks_learn_from_what_they_are_told():
    model = SMALL.model_copy(update={"condition": ("season", "place", "sun", "sensor", "reference")})
    settings = FEW.model_copy(update={"epochs": 8, "shift": 2, "learning_rate": 5e-3})
    told = fit(told_tiles(48, 1), told_tiles(16, 2), make_normalisation(), model, settings, 0)
    alone = fit(make_tiles(48, seed=1), make_tiles(16, seed=2), make_normalisation(), SMALL, settings, 0)
    assert told.history[-1].elbo_held_out > alone.history[-1].elbo_held_out, "the reference is the tile itself"


def test_a_network_that_is_to_be_told_what_the_tiles_do_not_have_is_refused():
    model = SMALL.model_copy(update={"condition": ("season", "sun")})
    tiles = make_tiles(8)
    some = TileArrays(tiles.values, tiles.valid, Conditions(season=np.zeros(8, np.float32)))
    with pytest.raises(ShapeError, match="told sun, which the tiles come without"):
        fit(some, None, make_normalisation(), model, FEW, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"kl_schedule": "cyclical", "kl_cycles": 2},
        {"objective": "iwae", "samples": 2},
        {"free_bits": 0.5, "input_noise": 0.1},
        {"structural": "focal_frequency", "structural_weight": 0.1},
        {"adversarial_weight": 1.0, "beta": 0.0},
        {"precision": "bf16"},
        {"shift": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_way_of_training_learns_and_resumes_to_the_same_weights(tmp_path, changes):
    settings = FEW.model_copy(update={"learning_rate": 5e-3} | changes)

    def kill(metrics, network):
        if metrics.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(settings=settings, checkpoint=tmp_path / "killed", on_epoch=kill)
    resumed, undisturbed = run(settings=settings, checkpoint=tmp_path / "killed"), run(settings=settings)
    assert undisturbed.history[-1].elbo_train > undisturbed.history[0].elbo_train
    assert not same_weights(undisturbed, run()), "the setting reaches the training"
    assert same_weights(resumed, undisturbed)
    assert without_clock(resumed.history) == without_clock(undisturbed.history)


def test_whoever_looks_after_an_epoch_sees_the_network_as_it_is_then(tmp_path):
    seen = []

    def look(metrics, network):
        assert not network.training
        x = torch.zeros(1, 3, 16, 16)
        seen.append(float(network(x, torch.ones(1, 16, 16, dtype=torch.bool)).expected.detach().mean()))

    fitted = run(held_out=False, on_epoch=look)
    assert len(set(seen)) == 4
    x = torch.zeros(1, 3, 16, 16)
    assert float(fitted.network(x, torch.ones(1, 16, 16, dtype=torch.bool)).expected.detach().mean()) == seen[-1]
    assert same_weights(fitted, run(held_out=False))


def test_training_says_nothing_on_its_own(capfd):
    run(settings=FEW.model_copy(update={"epochs": 1}))
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_stays_an_interrupt_and_signals_are_as_they_were():
    def interrupt(metrics, network):
        raise KeyboardInterrupt

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during = []
    run(
        settings=FEW.model_copy(update={"epochs": 1}),
        on_epoch=lambda *_: during.append(signal.getsignal(signal.SIGTERM)),
    )
    with pytest.raises(KeyboardInterrupt):
        run(on_epoch=interrupt)
    assert during == before[1:], "a SIGTERM ends training as it ends everything else"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_training_in_a_thread_gives_the_same_weights():
    with ThreadPoolExecutor(1) as pool:
        assert same_weights(pool.submit(run).result(), run())


def test_what_broke_the_training_is_named():
    tiles = make_tiles(48, seed=1)
    values = tiles.values.copy()
    values[[7, 30], 1, 3:5, 3:5] = 3e38  # not yet infinite, but its logarithm is far beyond all ground
    valid = tiles.valid.copy()
    valid[[7, 30], 3:5, 3:5] = True
    values[:, :, 3:5, 3:5] = np.where(np.isfinite(values[:, :, 3:5, 3:5]), values[:, :, 3:5, 3:5], 0.1)
    settings = FEW.model_copy(update={"learning_rate": 1e18, "batch_size": 64})
    with pytest.raises(
        Diverged, match=r"in batch 1 of 1, where band B01 runs from .* to 3e\+38, while 0.03 to 0.6 is"
    ) as e:
        run(train=TileArrays(values, valid), settings=settings, held_out=False)
    assert "look at tiles 7, 30 of those given" in str(e.value)


@pytest.mark.slow
def test_a_compiled_network_trains_like_a_plain_one():
    pytest.importorskip("torch._inductor")
    if shutil.which("g++") is None:
        pytest.skip("compiling for a CPU needs a compiler")
    settings = FEW.model_copy(update={"epochs": 2})
    plain, compiled = run(settings=settings), run(settings=settings.model_copy(update={"compile": True}))
    assert compiled.history[-1].elbo_held_out == pytest.approx(plain.history[-1].elbo_held_out, abs=0.02)
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()


@pytest.mark.parametrize(("held_out", "epoch", "epochs_kept"), [(False, 2, 1), (True, 1, 0)])
def test_divergence_is_said_and_the_last_good_weights_are_kept(held_out, epoch, epochs_kept):
    # One huge step an epoch: without held-out tiles it shows in the next epoch, with them at once.
    settings = FEW.model_copy(update={"learning_rate": 1e18, "batch_size": 64})
    with pytest.raises(Diverged, match=rf"epoch {epoch}: .*learning_rate \(now 1e\+18\)") as caught:
        run(settings=settings, held_out=held_out)
    fitted = caught.value.fitted
    assert (len(fitted.history) if fitted else 0) == epochs_kept
    assert fitted is None or all(torch.isfinite(tensor).all() for tensor in fitted.network.state_dict().values())


def test_training_reads_memory_maps(tmp_path):
    tiles = make_tiles(48, seed=1)
    for name, array in (("values", tiles.values), ("valid", tiles.valid.astype(np.uint8))):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = TileArrays(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("values", "valid")))
    assert same_weights(run(train=mapped), run(train=tiles))


def test_sigma_is_that_of_the_training_residuals():
    fitted = run(settings=FEW.model_copy(update={"epochs": 20, "learning_rate": 5e-3}), held_out=False)
    tiles = make_tiles(48, seed=1)
    values, valid = torch.from_numpy(tiles.values), torch.from_numpy(tiles.valid)
    x = make_normalisation().apply(values, valid)
    with torch.inference_mode():
        passed = fitted.network(x, valid, Noise(0, 0, torch.device("cpu")))
    residuals = (x - passed.expected).movedim(1, -1)[valid]
    np.testing.assert_allclose(fitted.network.sigma, residuals.square().mean(0).sqrt(), rtol=0.1)


def test_symmetries_move_tile_and_mask_together():
    tile = torch.arange(16.0).view(1, 1, 4, 4)
    turned = {tuple(turn(tile, code).flatten().tolist()) for code in range(8)}
    assert len(turned) == 8
    valid = tile[:, 0] > 7
    for code in range(8):
        assert torch.equal(turn(valid, code), turn(tile, code)[:, 0] > 7)


@pytest.mark.parametrize(
    ("values", "valid", "message"),
    [
        ((0, 3, 16, 16), True, "no tile to learn from"),
        ((4, 2, 16, 16), True, "2 bands"),
        ((4, 3, 18, 18), True, "multiple of 4"),
        ((4, 3, 16, 16), False, "no tile has a valid pixel"),
    ],
)
def test_tiles_that_cannot_be_learned_from_are_refused(values, valid, message):
    tiles = TileArrays(np.zeros(values, np.float32), np.full((values[0], *values[2:]), valid))
    with pytest.raises(ShapeError, match=message):
        run(train=tiles)

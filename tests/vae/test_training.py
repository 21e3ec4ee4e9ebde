from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, TrainSettings
from tests.vae.conftest import make_normalisation, make_tiles
from vae.errors import ShapeError
from vae.tiles import TileArrays
from vae.training import Diverged, fit, turn

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
    def kill(metrics):
        if metrics.epoch == killed_after:
            raise KilledError

    checkpoint = tmp_path / "train.checkpoint"
    with pytest.raises(KilledError):
        run(checkpoint=checkpoint, on_epoch=kill, held_out=held_out)
    seen = []
    resumed = run(checkpoint=checkpoint, on_epoch=seen.append, held_out=held_out)
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
        passed = fitted.network(x, valid, torch.randn(48, 4, 4, 4, generator=torch.Generator().manual_seed(0)))
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

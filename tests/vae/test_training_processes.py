"""Several processes that share the work: real ones, on the CPU."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import ModelSettings, TrainSettings
from tests.vae.conftest import make_normalisation, make_tiles
from vae.errors import ShapeError, VaeError
from vae.tiles import TileArrays
from vae.training import Diverged, fit

SMALL = ModelSettings(width=8, depth=2, latent_channels=4)
SHARED = TrainSettings(epochs=3, batch_size=16, device="cpu", devices=2, learning_rate=5e-3)


class KilledError(Exception):
    pass


def run(settings: TrainSettings = SHARED, checkpoint: Path | None = None, on_epoch=None, train=None):
    train = make_tiles(49, seed=1) if train is None else train
    return fit(train, make_tiles(17, seed=2), make_normalisation(), SMALL, settings, 0, checkpoint, on_epoch)


def weights(fitted) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in fitted.network.state_dict().values()]


def children() -> set[int]:
    """The processes that this one started and that are still there."""
    return {int(one) for file in Path("/proc/self/task").glob("*/children") for one in file.read_text().split()}


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_each_time_also_when_they_were_killed(tmp_path):
    before, looked = children(), []

    def look(metrics, network):
        looked.append((metrics.epoch, network.state_dict()["sigma"].tolist()))

    def kill(metrics, network):
        if metrics.epoch == 2:
            raise KilledError

    undisturbed = run(on_epoch=look)
    with pytest.raises(KilledError):
        run(checkpoint=tmp_path / "training.safetensors", on_epoch=kill)
    assert children() == before, "no process is left behind"
    resumed = run(checkpoint=tmp_path / "training.safetensors")

    assert resumed.resumed_from == 2
    assert weights(resumed) == weights(undisturbed)
    assert [entry.elbo_held_out for entry in resumed.history] == [entry.elbo_held_out for entry in undisturbed.history]
    assert [epoch for epoch, _ in looked] == [1, 2, 3]
    assert looked[undisturbed.best_epoch - 1][1] == undisturbed.network.sigma.tolist()
    # Both learned from all tiles and were judged by all: as good as one process, to what noise leaves.
    alone = run(SHARED.model_copy(update={"devices": 1}))
    assert undisturbed.history[-1].elbo_held_out == pytest.approx(alone.history[-1].elbo_held_out, abs=0.1)
    torch.testing.assert_close(undisturbed.network.sigma, alone.network.sigma, rtol=0.15, atol=0)


@pytest.mark.slow
def test_divergence_in_processes_is_told_as_in_one(tmp_path):
    settings = SHARED.model_copy(update={"learning_rate": 1e18, "batch_size": 64})
    with pytest.raises(Diverged, match=r"epoch 1: .*learning_rate \(now 1e\+18\)") as caught:
        run(settings)
    assert caught.value.fitted is None


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_training_and_the_others(tmp_path):
    before = children()

    def lose_one(metrics, network):
        os.kill(max(children() - before), signal.SIGKILL)

    with pytest.raises(VaeError, match=r"process \d of 2 that trained ended with"):
        run(SHARED.model_copy(update={"epochs": 50}), on_epoch=lose_one)
    assert children() == before


def test_batches_that_are_too_small_to_share_are_refused():
    with pytest.raises(ShapeError, match=r"train.devices = 8 processes cannot share batches of 4 tiles"):
        run(SHARED.model_copy(update={"devices": 8, "batch_size": 4}), train=make_tiles(16))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_more_gpus_than_there_are_are_refused():
    with pytest.raises(VaeError, match="torch finds no GPU here"):
        run(SHARED.model_copy(update={"device": "cuda"}))


def test_processes_find_tiles_where_they_lie_and_others_are_copied(tmp_path):
    from vae.conditions import Conditions
    from vae.training.job import Job
    from vae.training.processes import _written, read_job

    tiles, other = make_tiles(8), tmp_path / "other"
    np.save(tmp_path / "values.npy", tiles.values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    told = Conditions(season=np.linspace(0, 0.9, 8, dtype=np.float32))
    raw = TileArrays(np.ones((6, 3, 16, 16), np.int16), np.ones((6, 16, 16), bool), scaling=np.ones((6, 3, 2)))
    job = Job(TileArrays(mapped, tiles.valid, told), raw, make_normalisation(), SMALL, SHARED, 3)
    other.mkdir()

    about = _written(job, other) | {"checkpoint": "there"}
    (other / "job.json").write_text(json.dumps(about))
    found, checkpoint = read_job(other)

    assert about["train"]["values"]["path"] == str(tmp_path / "values.npy")
    assert str(checkpoint) == "there"
    np.testing.assert_array_equal(found.train.values, tiles.values)
    np.testing.assert_array_equal(found.train.valid, tiles.valid)
    np.testing.assert_array_equal(found.train.conditions.season, told.season)
    np.testing.assert_array_equal(found.held_out.scaling, raw.scaling)
    assert found.fingerprint() == job.fingerprint()

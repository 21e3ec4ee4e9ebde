"""Lightning's trainer, as it is used here: no more than the loop, the device and the processes."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from vae.device import choose_device, choose_precision, deterministic
from vae.memory import memory_kept
from vae.training.batches import AHEAD, Batch, Loader, Plan, plan_epoch, plan_in_order, share_of
from vae.training.checkpoint import State
from vae.training.job import Job
from vae.training.loop import Keep, Loop


def train(job: Job, state: State, keep: Keep) -> None:
    """Train from a state to the end, in this process or as one of several that share the work.

    Args:
        job: What is fitted.
        state: Where it starts.
        keep: Given the state and the network, in evaluation mode, after every epoch; of several processes, in the
            first one alone.

    Raises:
        NotFinite: Training broke down; what `keep` was given last still stands.
    """
    device, settings = choose_device(job.settings.device), job.settings
    processes = settings.devices
    epochs = settings.epochs - state.epochs_done
    if epochs <= 0 or state.stopped_early:
        return
    with deterministic(device), memory_kept(), _in_peace():
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            plugins=[LightningEnvironment()],
            precision="bf16-mixed" if choose_precision(settings.precision, device) == "bf16" else "32-true",
            max_epochs=epochs,
            limit_val_batches=None if job.held_out is not None else 0,
            use_distributed_sampler=False,
            barebones=True,
        )
        trainer.fit(Loop(job, state, keep), datamodule=Tiles(job, device))


class Tiles(L.LightningDataModule):
    """The batches of this process."""

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__()
        self._job = job
        self._ahead = AHEAD if device.type == "cuda" else 0
        self.training = Loader(job.train, [], self._ahead)

    def plan(self, epoch: int) -> None:
        """Draw the batches of an epoch, counted from 0 in the whole of the training."""
        self.training.plans = self._mine(plan_epoch(len(self._job.train), self._job.settings, self._job.seed, epoch))

    def train_dataloader(self) -> Loader:
        """The batches of the epoch that is planned."""
        if not self.training.plans:
            self.plan(0)  # Lightning asks for their number before the first epoch
        return self.training

    def val_dataloader(self) -> Loader | list[Any]:
        """The held-out tiles, in order."""
        tiles = self._job.held_out
        return (
            []
            if tiles is None
            else Loader(tiles, self._mine(plan_in_order(len(tiles), self._job.settings)), self._ahead)
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch as it is: it goes there by itself (`Batch.ready`)."""
        return batch

    def _mine(self, plans: list[Plan]) -> list[Plan]:
        trainer = self.trainer
        return plans if trainer is None else share_of(plans, trainer.global_rank, trainer.world_size)


@contextmanager
def _in_peace() -> Iterator[None]:
    """Without Lightning's announcements, and with a Ctrl+C that stays one, not an exit of the process."""
    speaker = logging.getLogger("lightning.pytorch")
    level, interrupt = speaker.level, signal.getsignal(signal.SIGINT)
    speaker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt from None
    finally:
        speaker.setLevel(level)

"""Fitting a network: seeded, resumable, stopped by the held-out ELBO."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from configs.schema import ModelSettings, TrainSettings
from vae.device import choose_device
from vae.networks import VAE
from vae.normalisation import Normalisation
from vae.tiles import TileArrays
from vae.training.checkpoint import State, load_state, save_state
from vae.training.diagnosis import diagnosis
from vae.training.history import Diverged, EpochMetrics, Fitted, NotFinite, OnEpoch, fitted
from vae.training.job import Job

log = logging.getLogger(__name__)


def fit(
    train: TileArrays,
    held_out: TileArrays | None,
    normalisation: Normalisation,
    model: ModelSettings,
    settings: TrainSettings,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Fit a network.

    The same seed and data give the same weights on one device and number of threads and processes, also when the work
    was killed and taken up again from the checkpoint: every draw depends on the seed and the epoch alone. Which tiles
    are used (`max_tiles`, `min_valid`) was decided by whoever gathered them.

    Args:
        train: Tiles to learn from.
        held_out: Tiles of other dates. Once the KL term is warmed up, the epoch with their best ELBO is kept, and
            `patience` epochs without a better one end the training. Without them the last epoch is kept.
        normalisation: Physical to normalised units.
        model: The network.
        settings: How it is fitted.
        seed: Of the weights, the order, the augmentation and the noise.
        checkpoint: File that is rewritten after every epoch, and from which unfinished work is taken up again. One of
            other data or settings is ignored, with a warning.
        on_epoch: Called after every epoch that is computed now, with the network as it is then, to be looked at and
            not changed.

    Raises:
        ShapeError: Tiles that do not fit the bands or the network.
        VaeError: A device that is not there; an adversary for a latent without a Gaussian prior.
        Diverged: The loss, or an ELBO, became infinite or NaN, or fell far below what it was.
    """
    job = Job(train, held_out, normalisation, model, settings, seed)
    choose_device(settings.device)
    job.check()
    if model.skips:
        log.warning("model.skips lets anomalies pass the latent by, so that they are reconstructed: for comparison")
    state, resumed_from = _start(job, checkpoint)

    def keep(after: State, network: VAE) -> None:
        nonlocal state
        state = after
        if checkpoint is not None and settings.devices == 1:  # else it was written by the first process
            save_state(checkpoint, after)
        if on_epoch is not None:
            on_epoch(EpochMetrics(**after.history[-1]), network)

    broken = _train(job, state, checkpoint, keep)
    network = job.network().to(choose_device(settings.device))
    if broken is not None:
        raise Diverged(_words(job, *broken), fitted(network, state, resumed_from) if state.history else None)
    return fitted(network, state, resumed_from)


def _start(job: Job, checkpoint: Path | None) -> tuple[State, int | None]:
    """The state that training starts from, and how many epochs were done, if it is taken up again."""
    fingerprint = job.fingerprint()
    if checkpoint is not None and checkpoint.exists():
        found = load_state(checkpoint, fingerprint)
        if found is not None:
            log.info("training goes on after epoch %d, from %s", found.epochs_done, checkpoint)
            return found, found.epochs_done
    return State(fingerprint=fingerprint, weights=job.network().state_dict()), None


def _train(
    job: Job, state: State, checkpoint: Path | None, keep: Callable[[State, VAE], None]
) -> tuple[int, int | None, str] | None:
    """Train to the end; epoch, step and words where it broke down."""
    # Imported when it is needed: scoring, which is done every night, would wait seconds for it.
    from vae.training.processes import train_in_processes
    from vae.training.trainer import train

    if job.settings.devices > 1:
        told = train_in_processes(job, state, checkpoint, keep)
        return (told["epoch"], told["step"], told["what"]) if told else None
    try:
        train(job, state, keep)
    except NotFinite as found:
        return found.epoch, found.step, found.what
    return None


def _words(job: Job, epoch: int, step: int | None, what: str) -> str:
    settings = job.settings
    return (
        f"training diverged in epoch {epoch + 1}: {what}, {diagnosis(job, epoch, step)}. Try a smaller "
        f"train.learning_rate (now {settings.learning_rate:g}) or train.clip_norm (now {settings.clip_norm:g}), "
        "and look for extreme values in the training scenes"
    )

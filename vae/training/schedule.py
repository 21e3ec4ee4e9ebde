"""What changes as training goes on: the weight of the KL term and the learning rate."""

from __future__ import annotations

import math

from configs.schema import TrainSettings


def warmup_epochs(settings: TrainSettings) -> int:
    """Epochs over which a linear β rises; at least the last epoch has the full β."""
    return min(round(settings.kl_warmup * settings.epochs), settings.epochs - 1)


def beta_at(settings: TrainSettings, epochs_done: float) -> float:
    """β after so many epochs, a fraction within an epoch.

    Linear, then constant (Bowman et al. 2016, Generating sentences from a continuous space); or that anew in each of
    `kl_cycles` parts of the training (Fu et al. 2019, Cyclical annealing schedule).
    """
    if settings.kl_schedule == "cyclical":
        position = _position(settings, epochs_done)
        return settings.beta * (min(1.0, position / settings.kl_warmup) if settings.kl_warmup else 1.0)
    warmup = warmup_epochs(settings)
    return settings.beta * (min(1.0, epochs_done / warmup) if warmup else 1.0)


def is_judged(settings: TrainSettings, epoch: int) -> bool:
    """Whether the KL term has its full weight in all of an epoch, counted from 0: only then is its ELBO compared."""
    if settings.kl_schedule == "linear":
        return epoch >= warmup_epochs(settings)
    start = epoch * settings.kl_cycles / settings.epochs
    return (
        start % 1.0 >= settings.kl_warmup
        and math.floor(start) + 1 >= (epoch + 1) * settings.kl_cycles / settings.epochs
    )


def learning_rate_at(settings: TrainSettings, epochs_done: float) -> float:
    """Cosine from the full rate to zero (Loshchilov & Hutter 2017, SGDR)."""
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, epochs_done / settings.epochs)))


def _position(settings: TrainSettings, epochs_done: float) -> float:
    """Where in its cycle that is, a share of it; the end of a cycle still belongs to it."""
    share = epochs_done * settings.kl_cycles / settings.epochs % 1.0
    return share if share or not epochs_done else 1.0

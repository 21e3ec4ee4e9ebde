"""Fitting the network, on Lightning: one job, a state after each epoch, one process or several."""

from vae.device import choose_device
from vae.training.batches import Ready, prepare, turn
from vae.training.fitting import fit
from vae.training.history import Diverged, EpochMetrics, Fitted, OnEpoch
from vae.training.schedule import beta_at, learning_rate_at, warmup_epochs

__all__ = [
    "Diverged",
    "EpochMetrics",
    "Fitted",
    "OnEpoch",
    "Ready",
    "beta_at",
    "choose_device",
    "fit",
    "learning_rate_at",
    "prepare",
    "turn",
    "warmup_epochs",
]

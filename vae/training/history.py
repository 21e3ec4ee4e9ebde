"""What is known of each epoch, which of them is the best, and when it is time to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from configs.schema import TrainSettings
from vae.errors import VaeError
from vae.networks import VAE
from vae.training.checkpoint import State
from vae.training.schedule import is_judged


@dataclass(frozen=True)
class EpochMetrics:
    """One pass over the training tiles.

    loss, reconstruction and kl are nats a tile; the ELBOs are nats per valid dimension at β = 1, higher is better.
    elbo_held_out is None without held-out tiles, adversary without one (its cross-entropy; ln 2: it cannot tell latents
    from the prior). tiles_per_second and seconds depend on the machine, all else on data and seed.
    """

    epoch: int  # from 1
    loss: float
    elbo_train: float
    elbo_held_out: float | None
    reconstruction: float
    kl: float
    beta: float
    learning_rate: float
    gradient_norm: float  # median over the batches, before clipping
    tiles_per_second: float  # of training alone
    seconds: float  # with judging
    adversary: float | None = None


OnEpoch = Callable[[EpochMetrics, VAE], None]  # what is told after each epoch, and the network to look at


@dataclass(frozen=True)
class Fitted:
    """The network with its best weights, and how it came to them."""

    network: VAE
    history: list[EpochMetrics]
    best_epoch: int
    stopped_early: bool
    resumed_from: int | None  # epochs that were already done, None for a fresh start


class NotFinite(Exception):
    """The loss is no longer a number, or no longer that of a training.

    Attributes:
        epoch: From 0.
        step: The first batch that shows it; None when no batch does, but the tiles that judge.
        what: In words.
    """

    def __init__(self, epoch: int, step: int | None, what: str) -> None:
        super().__init__(what)
        self.epoch, self.step, self.what = epoch, step, what


class Diverged(VaeError):
    """Training broke down. `fitted` holds the last good weights, or None in the first epoch."""

    def __init__(self, message: str, fitted: Fitted | None) -> None:
        super().__init__(message)
        self.fitted = fitted


def after_epoch(
    state: State,
    metrics: EpochMetrics,
    settings: TrainSettings,
    weights: dict[str, Tensor],
    optimiser: dict[str, Tensor],
    adversary: dict[str, Tensor],
) -> State:
    """The state after an epoch: is it the best so far, and is it time to stop?

    Until an epoch is judged, and without held-out tiles, the latest is the best there is.
    """
    judged, elbo = is_judged(settings, metrics.epoch - 1), metrics.elbo_held_out
    better = elbo is None or (judged and (state.best_elbo is None or elbo > state.best_elbo))
    state = replace(
        state,
        weights=weights,
        optimiser=optimiser,
        adversary=adversary,
        history=[*state.history, asdict(metrics)],
    )
    if better or (not judged and state.best_elbo is None):
        state = replace(state, best_epoch=metrics.epoch, best_weights=weights, best_elbo=elbo if judged else None)
    without_better = sum(is_judged(settings, epoch) for epoch in range(state.best_epoch, metrics.epoch))
    return replace(state, stopped_early=judged and elbo is not None and without_better >= settings.patience)


def fitted(network: VAE, state: State, resumed_from: int | None) -> Fitted:
    """A network with the best weights of a state."""
    network.load_state_dict(state.best_weights)
    network.eval()
    history = [EpochMetrics(**entry) for entry in state.history]
    return Fitted(network, history, state.best_epoch, state.stopped_early, resumed_from)

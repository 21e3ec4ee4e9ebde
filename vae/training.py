"""Fitting the network: seeded, resumable, stopped by the held-out ELBO."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from configs.schema import ModelSettings, TrainSettings
from vae.checkpoint import State, fingerprint, load_state, save_state
from vae.errors import ShapeError, VaeError
from vae.model import ConvVAE, build
from vae.normalisation import Normalisation
from vae.objectives import Sums, batch_sums, elbo_per_dimension, fitted_sigma, sigma_vae
from vae.tiles import TileArrays

log = logging.getLogger(__name__)

HELD_OUT_NOISE = 1_000_003  # stands where an epoch's number stands, so that every epoch is judged by the same noise


@dataclass(frozen=True)
class EpochMetrics:
    """One pass over the training tiles.

    loss, reconstruction and kl are nats a tile; the ELBOs are nats per valid dimension at β = 1, higher is better.
    elbo_held_out is None without held-out tiles. The last three depend on the machine, all else on data and seed.
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
    tiles_per_second: float
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """The network with its best weights, and how it came to them."""

    network: ConvVAE
    history: list[EpochMetrics]
    best_epoch: int
    stopped_early: bool
    resumed_from: int | None  # epochs that were already done, None for a fresh start


class Diverged(VaeError):
    """The loss became infinite or NaN. `fitted` holds the last good weights, or None in the first epoch."""

    def __init__(self, message: str, fitted: Fitted | None) -> None:
        super().__init__(message)
        self.fitted = fitted


def fit(
    train: TileArrays,
    held_out: TileArrays | None,
    normalisation: Normalisation,
    model: ModelSettings,
    settings: TrainSettings,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> Fitted:
    """Fit a network.

    The same seed and data give the same weights on one device and number of threads, also when the work was killed and
    taken up again from the checkpoint: every draw depends on the seed and the epoch alone. Which tiles are used
    (`max_tiles`, `min_valid`) was decided by whoever gathered them.

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
        on_epoch: Called after every epoch that is computed now.

    Raises:
        ShapeError: Tiles that do not fit the bands or the network.
        Diverged: The loss became infinite or NaN.
    """
    for tiles in (train, held_out):
        _check(tiles, normalisation, model)
    device = choose_device(settings.device)
    fit_fingerprint = fingerprint(train, held_out, normalisation, model, settings, seed, device.type)

    network = build(len(normalisation.bands), model, seed).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    state = State(fingerprint=fit_fingerprint, weights=copy_weights(network))
    resumed_from = None
    if checkpoint is not None and checkpoint.exists():
        found = load_state(checkpoint, fit_fingerprint)
        if found is not None:
            state, resumed_from = found, found.epochs_done
            network.load_state_dict(state.weights)
            state.into_optimiser(optimiser)
            log.info("training goes on after epoch %d, from %s", resumed_from, checkpoint)

    warmup = warmup_epochs(settings)
    with _deterministic(device):
        while state.epochs_done < settings.epochs and not state.stopped_early:
            epoch = state.epochs_done
            started = time.perf_counter()
            totals = _one_epoch(network, optimiser, train, normalisation, settings, seed, epoch)
            if totals is None:
                raise _diverged(network, state, settings, epoch, resumed_from)
            sums, norms = totals
            network.sigma.copy_(fitted_sigma(sums))
            seconds = time.perf_counter() - started
            metrics = EpochMetrics(
                epoch=epoch + 1,
                elbo_train=elbo_per_dimension(sums, network.sigma),
                elbo_held_out=None
                if held_out is None
                else _held_out_elbo(network, held_out, normalisation, settings, seed),
                **_nats_per_tile(sums, beta_at(settings, epoch + 1)),
                beta=beta_at(settings, epoch + 1),
                learning_rate=learning_rate_at(settings, epoch + 1),
                gradient_norm=float(np.median(norms)),
                tiles_per_second=len(train) / seconds,
                seconds=time.perf_counter() - started,
            )
            if not all(math.isfinite(elbo) for elbo in (metrics.elbo_train, metrics.elbo_held_out) if elbo is not None):
                raise _diverged(network, state, settings, epoch, resumed_from)
            state = _after_epoch(state, metrics, network, optimiser, judged=epoch >= warmup, settings=settings)
            if checkpoint is not None:
                save_state(checkpoint, state)
            if on_epoch is not None:
                on_epoch(metrics)
    return _fitted(network, state, resumed_from)


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that is meant, `auto` being the GPU when there is one.

    Raises:
        VaeError: cuda was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise VaeError("device cuda was asked for, but torch finds no GPU here: use device auto or cpu")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")


def copy_weights(network: ConvVAE) -> dict[str, Tensor]:
    """All parameters and buffers, apart from the network."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def warmup_epochs(settings: TrainSettings) -> int:
    """Epochs over which β rises; at least the last epoch has the full β."""
    return min(round(settings.kl_warmup * settings.epochs), settings.epochs - 1)


def beta_at(settings: TrainSettings, epochs_done: float) -> float:
    """β after so many epochs (a fraction within an epoch): linear, then constant."""
    warmup = warmup_epochs(settings)
    return settings.beta * (min(1.0, epochs_done / warmup) if warmup else 1.0)


def learning_rate_at(settings: TrainSettings, epochs_done: float) -> float:
    """Cosine from the full rate to zero (Loshchilov & Hutter 2017)."""
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, epochs_done / settings.epochs)))


def prepare(
    tiles: TileArrays, rows: np.ndarray, normalisation: Normalisation, device: torch.device
) -> tuple[Tensor, Tensor]:
    """One batch: x (B, C, H, W) normalised, valid (B, H, W) bool. A pixel that is not finite in a band is not valid."""
    values = torch.from_numpy(np.array(tiles.values[rows], dtype=np.float32)).to(device)
    valid = torch.from_numpy(np.array(tiles.valid[rows], dtype=bool)).to(device)
    valid = valid & torch.isfinite(values).all(dim=1)
    return normalisation.apply(values, valid), valid


def turn(x: Tensor, symmetry: int) -> Tensor:
    """One of the eight symmetries of the square, over the last two axes: quarter turns, and a flip from 4 on."""
    turned = torch.rot90(x, symmetry % 4, dims=(-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def _one_epoch(
    network: ConvVAE,
    optimiser: torch.optim.Optimizer,
    train: TileArrays,
    normalisation: Normalisation,
    settings: TrainSettings,
    seed: int,
    epoch: int,
) -> tuple[Sums, list[float]] | None:
    """Totals and gradient norms of one pass; None when it diverged."""
    device = network.sigma.device
    draw = np.random.default_rng([seed, epoch])
    noise_source = _noise_source(seed, epoch)
    totals, norms = None, []
    batches = np.array_split(draw.permutation(len(train)), math.ceil(len(train) / settings.batch_size))
    network.train()
    for step, rows in enumerate(batches):
        done = epoch + step / len(batches)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(settings, done)
        x, valid = prepare(train, np.sort(rows), normalisation, device)
        symmetry = int(draw.integers(8))  # one for the whole batch: the next epoch draws other batches
        x, valid = turn(x, symmetry), turn(valid, symmetry)
        passed = network(x, valid, _noise(network, x, noise_source))
        objective = sigma_vae(x, valid, passed.expected, passed.mu, passed.logvar, beta_at(settings, done))
        optimiser.zero_grad(set_to_none=True)
        objective.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        if not (torch.isfinite(objective.loss) and torch.isfinite(norm)):
            return None
        optimiser.step()
        norms.append(float(norm))
        totals = objective.sums if totals is None else totals + objective.sums
    assert totals is not None  # there is at least one tile
    return totals, norms


@torch.inference_mode()
def _held_out_elbo(
    network: ConvVAE, tiles: TileArrays, normalisation: Normalisation, settings: TrainSettings, seed: int
) -> float:
    network.eval()
    noise_source = _noise_source(seed, HELD_OUT_NOISE)
    totals: Sums | None = None
    for start in range(0, len(tiles), settings.batch_size):
        rows = np.arange(start, min(start + settings.batch_size, len(tiles)))
        x, valid = prepare(tiles, rows, normalisation, network.sigma.device)
        sums = batch_sums(x, valid, *network(x, valid, _noise(network, x, noise_source)))
        totals = sums if totals is None else totals + sums
    assert totals is not None
    return elbo_per_dimension(totals, network.sigma)


def _after_epoch(
    state: State,
    metrics: EpochMetrics,
    network: ConvVAE,
    optimiser: torch.optim.Optimizer,
    judged: bool,
    settings: TrainSettings,
) -> State:
    """The state after an epoch: is it the best so far, and is it time to stop?"""
    weights = copy_weights(network)
    history = [*state.history, asdict(metrics)]
    best_epoch, best_elbo, best_weights = state.best_epoch, state.best_elbo, state.best_weights
    elbo = metrics.elbo_held_out
    # Before β is warmed up an epoch is not judged; without held-out tiles the latest is the best there is.
    better = elbo is None or (judged and (best_elbo is None or elbo > best_elbo))
    if better or not judged:
        best_epoch, best_weights = metrics.epoch, weights
        best_elbo = elbo if judged else None
    stopped = judged and elbo is not None and metrics.epoch - best_epoch >= settings.patience
    return State(
        fingerprint=state.fingerprint,
        weights=weights,
        optimiser=State.from_optimiser(optimiser),
        history=history,
        best_epoch=best_epoch,
        best_elbo=best_elbo,
        best_weights=best_weights,
        stopped_early=stopped,
    )


def _fitted(network: ConvVAE, state: State, resumed_from: int | None) -> Fitted:
    network.load_state_dict(state.best_weights)
    network.eval()
    history = [EpochMetrics(**entry) for entry in state.history]
    return Fitted(network, history, state.best_epoch, state.stopped_early, resumed_from)


def _diverged(
    network: ConvVAE, state: State, settings: TrainSettings, epoch: int, resumed_from: int | None
) -> Diverged:
    fitted = _fitted(network, state, resumed_from) if state.history else None
    return Diverged(
        f"training diverged in epoch {epoch + 1}: the loss is no longer a finite number. Try a smaller "
        f"train.learning_rate (now {settings.learning_rate:g}) or train.clip_norm (now {settings.clip_norm:g}), "
        "and look for extreme values in the training scenes",
        fitted,
    )


def _nats_per_tile(sums: Sums, beta: float) -> dict[str, Any]:
    """The epoch's reconstruction, kl and loss, with σ of the whole epoch."""
    tiles = float(sums.tiles.clamp(min=1))
    kl = float(sums.kl) / tiles
    dimensions = float(sums.pixels) * len(sums.squared)
    elbo = elbo_per_dimension(sums, fitted_sigma(sums))
    reconstruction = -elbo * dimensions / tiles - kl
    return {"reconstruction": reconstruction, "kl": kl, "loss": reconstruction + beta * kl}


def _noise_source(seed: int, epoch: int) -> torch.Generator:
    """Drawn on the CPU whatever the device, so that a GPU sees the same noise."""
    (state,) = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) >> 1)


def _noise(network: ConvVAE, x: Tensor, source: torch.Generator) -> Tensor:
    return torch.randn(network.latent_shape(len(x), x.shape[-1]), generator=source).to(x.device)


def _check(tiles: TileArrays | None, normalisation: Normalisation, model: ModelSettings) -> None:
    if tiles is None:
        return
    bands, height, width = tiles.values.shape[1:]
    if len(tiles) == 0:
        raise ShapeError("there is no tile to learn from or to judge by: widen the dates or lower train.min_valid")
    if bands != len(normalisation.bands):
        raise ShapeError(f"the tiles have {bands} bands, the normalisation {len(normalisation.bands)}")
    if height != width or height % 2**model.depth:
        raise ShapeError(
            f"tiles of {height} × {width} pixels do not fit model.depth = {model.depth}: "
            f"they must be square, with a side that is a multiple of {2**model.depth}"
        )
    if not any(np.any(tiles.valid[start : start + 1024]) for start in range(0, len(tiles), 1024)):
        raise ShapeError("no tile has a valid pixel: check the masks")


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU, take the slower kernels that add up in a fixed order; on a CPU all of ours do."""
    if device.type != "cuda":
        yield
        return
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)

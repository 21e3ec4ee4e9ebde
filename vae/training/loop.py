"""The loop on Lightning: what happens in a step, and at the end of an epoch."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from vae.networks import VAE
from vae.objectives import Objective, Sums, batch_sums, elbo_per_dimension, fitted_sigma, objective
from vae.training.adversary import build_adversary
from vae.training.batches import HELD_OUT_NOISE, Batch, Noise, Ready, steps_of
from vae.training.checkpoint import State
from vae.training.history import EpochMetrics, NotFinite, after_epoch
from vae.training.job import Job
from vae.training.schedule import beta_at, learning_rate_at

CHECK_EVERY = 16  # steps between two looks at whether the loss is still a number: looking makes a GPU wait
COLLAPSE = 10.0  # nats per dimension: an ELBO so much lower than it was is no ELBO of the same training

Keep = Callable[[State, VAE], None]


class Loop(L.LightningModule):
    """A network in training."""

    def __init__(self, job: Job, state: State, keep: Keep) -> None:
        super().__init__()
        self.job, self.state, self._keep = job, state, keep
        self.network = job.network()
        self.adversary = build_adversary(job.model, job.seed) if job.settings.adversarial_weight else None
        self.network.load_state_dict(state.weights)
        if self.adversary is not None and state.adversary:
            self.adversary.load_state_dict(state.adversary)
        compiled = torch.compile(self.network) if job.settings.compile else self.network
        self._called = (compiled,)  # in a tuple, so that its weights are not counted twice
        self._first, self._steps = state.epochs_done, steps_of(len(job.train), job.settings)
        self._at_sigterm = signal.getsignal(signal.SIGTERM)
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._told: list[Tensor] = []
        self._sums: Sums | None = None
        self._held: Sums | None = None

    @property
    def epoch(self) -> int:
        """From 0, in the whole of the training."""
        return self._first + self.current_epoch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, with what the state knows of it."""
        settings = self.job.settings
        groups = [{"params": list(self.network.parameters())}]
        if self.adversary is not None:
            groups.append({"params": list(self.adversary.parameters())})
        fused = self.device.type == "cuda"  # one kernel for all weights, where launching kernels is what takes time
        optimiser = torch.optim.AdamW(
            groups, settings.learning_rate, weight_decay=settings.weight_decay, fused=fused or None
        )
        if self.state.optimiser:
            self.state.into_optimiser(optimiser)
        return optimiser

    def on_train_epoch_start(self) -> None:
        """Draw the batches and the noise of the epoch."""
        self._started = time.perf_counter()
        self.network.train()
        self.trainer.datamodule.plan(self.epoch)  # type: ignore[attr-defined]
        self._noise = Noise(self.job.seed, self.epoch, self.device, self.global_rank)
        self._losses, self._norms, self._told, self._sums, self._held = [], [], [], None, None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        done = self.epoch + batch.plan.step / self._steps
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate_at(self.job.settings, done)
        ready = batch.ready(self.job.normalisation, self.device)
        found = objective(
            self._called[0],
            ready.x,
            ready.valid,
            self.job.settings,
            beta_at(self.job.settings, done),
            self._noise,
            ready.given,
            core=self.network,
        )
        loss = found.loss + self._adversarial(found, ready) if self.adversary is not None else found.loss
        self._losses.append(loss.detach())
        self._sums = found.sums if self._sums is None else self._sums + found.sums
        return loss

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip, and keep the norm that there was before; the adversary has one of its own."""
        norm = self.job.settings.clip_norm
        self._norms.append(torch.nn.utils.clip_grad_norm_(self.network.parameters(), norm).detach())
        if self.adversary is not None:
            torch.nn.utils.clip_grad_norm_(self.adversary.parameters(), norm)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Look now and then whether all is well; after the last batch set σ."""
        last = batch.plan.step == self._steps - 1
        if last or (batch.plan.step + 1) % CHECK_EVERY == 0:
            self._check_losses()
        if last:  # σ is that of the whole epoch, before anything is judged by it
            self._sums = self._of_all(self._sums)
            analytic = self.network.likelihood.analytic
            self.network.sigma.copy_(fitted_sigma(self._sums, shared=analytic == "all"))
            self._trained = time.perf_counter() - self._started

    def on_validation_epoch_start(self) -> None:
        """Draw the noise that judges every epoch."""
        self._held_noise = Noise(self.job.seed, HELD_OUT_NOISE, self.device, self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add up what the ELBO of the held-out tiles is made of, in full precision."""
        if not len(batch.values):
            return  # fewer tiles than processes
        with torch.autocast(self.device.type, enabled=False):
            ready = batch.ready(self.job.normalisation, self.device)
            passed = self.network(ready.x, ready.valid, self._held_noise, ready.given)
            sums = batch_sums(self.network, ready.x, ready.valid, passed)
        self._held = sums if self._held is None else self._held + sums

    def on_train_epoch_end(self) -> None:
        """Judge the epoch, hand over the state, and stop when it is time to."""
        metrics = self._metrics()
        self._check_elbos(metrics)
        self.network.eval()
        self.state = after_epoch(
            self.state,
            metrics,
            self.job.settings,
            copy_weights(self.network),
            State.from_optimiser(self.trainer.optimizers[0]),
            {} if self.adversary is None else copy_weights(self.adversary),
        )
        if self.global_rank == 0:
            self._keep(self.state, self.network)
        self.trainer.should_stop = self.state.stopped_early

    def on_train_start(self) -> None:
        """Leave SIGTERM alone: Lightning would make it an exit without an error, at the end of the batch."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._at_sigterm)

    def _adversarial(self, found: Objective, ready: Ready) -> Tensor:
        assert self.adversary is not None
        z = found.passed.z[0]
        seen = ready.valid.flatten(1).any(dim=1)
        verdict = self.adversary.judge(z, self._noise(z.shape), seen, self.job.settings.adversarial_weight)
        self._told.append(verdict.telling)
        return verdict.loss

    def _metrics(self) -> EpochMetrics:
        settings, sums = self.job.settings, self._sums
        assert sums is not None  # there is at least one batch
        sigma = self.network.sigma if self.network.likelihood.analytic else None
        held = None if self.job.held_out is None else self._of_all(self._held)
        elbo = elbo_per_dimension(sums, sigma)
        tiles = float(sums.tiles.clamp(min=1))
        kl = float(sums.kl) / tiles
        reconstruction = -elbo * float(sums.pixels) * len(sums.squared) / tiles - kl
        done = self.epoch + 1
        return EpochMetrics(
            epoch=done,
            loss=reconstruction + beta_at(settings, done) * kl,
            elbo_train=elbo,
            elbo_held_out=None if held is None else elbo_per_dimension(held, sigma),
            reconstruction=reconstruction,
            kl=kl,
            beta=beta_at(settings, done),
            learning_rate=learning_rate_at(settings, done),
            gradient_norm=float(np.median(_numbers(self._norms))),
            tiles_per_second=len(self.job.train) / self._trained,
            seconds=time.perf_counter() - self._started,
            adversary=float(np.mean(_numbers(self._told))) if self._told else None,
        )

    def _check_losses(self) -> None:
        """Raise when a step of this epoch gave no number, on whichever process."""
        fine = np.isfinite(_numbers(self._losses)) & np.isfinite(_numbers(self._norms))
        first = int(np.argmin(fine)) if not fine.all() else len(fine)
        step = torch.tensor(float(first), device=self.device)
        first = int(self.trainer.strategy.reduce(step, reduce_op="min")) if self.trainer.world_size > 1 else first
        if first < len(fine):
            raise NotFinite(self.epoch, first, "the loss is no longer a finite number")

    def _check_elbos(self, metrics: EpochMetrics) -> None:
        elbos = {"training": metrics.elbo_train, "held-out": metrics.elbo_held_out}
        for name, elbo in elbos.items():
            if elbo is not None and not math.isfinite(elbo):
                raise NotFinite(self.epoch, None, f"the ELBO of the {name} tiles is no longer a finite number")
        best = max((entry["elbo_train"] for entry in self.state.history), default=-math.inf)
        if metrics.elbo_train < best - COLLAPSE:
            what = f"the ELBO of the training tiles fell from {best:.3g} to {metrics.elbo_train:.3g} nats per dimension"
            raise NotFinite(self.epoch, None, what)

    def _of_all(self, sums: Sums | None) -> Sums:
        """Added up over the processes."""
        if sums is None:  # of fewer tiles than processes, this one had none
            zero = torch.zeros((), dtype=torch.float64, device=self.device)
            sums = Sums(zero.repeat(self.network.bands), zero, zero, zero, zero)
        if self.trainer.world_size == 1:
            return sums
        return Sums(*(self.trainer.strategy.reduce(part.clone(), reduce_op="sum") for part in sums))


def copy_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, apart from the network."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _numbers(tensors: list[Tensor]) -> np.ndarray:
    return torch.stack(tensors).double().cpu().numpy()

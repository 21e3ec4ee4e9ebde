"""Training of variational autoencoders of pythae (Chadebec et al. 2022) and PyOD (Zhao et al. 2019), timed.

python training.py pythae-mlp|pythae-conv|pyod BATCH EPOCHS
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from serving import Given, serve

LATENT = 64
WARM = 2  # passes that are not timed
REPETITIONS, PASSES = 3, 10  # of the training, and of its network alone
SLOW = 60.0  # seconds that an epoch takes of a peer that is timed once: minutes are long against what disturbs them


class Trained:
    """A peer with its own network and its own loop.

    Args:
        kind: Which.
        batch: Tiles a step.
        epochs: That are timed.
    """

    def __init__(self, kind: str, batch: int, epochs: int) -> None:
        self._kind, self._batch, self._epochs = kind, batch, epochs

    def fit(self, x: np.ndarray) -> Given:
        """Train on (N, C, H, W) tiles in [0, 1]: tiles a second, and of its network's bare passes.

        The difference of a long training and a short one is timed: what a training costs beside its epochs is not.
        """
        make, train = (self._pyod if self._kind == "pyod" else self._pythae)(x)
        slow = _seconds(lambda: train(1)) > SLOW
        epochs, repetitions = (1, 1) if slow else (self._epochs, REPETITIONS)
        seconds = []
        for _ in range(repetitions):
            short = _seconds(lambda: train(1))
            seconds.append(_seconds(lambda: train(1 + epochs)) - short)
        model, loss = make()
        bare = self._bare(model, loss, x.shape[1:], 3 if slow else PASSES)
        return {
            "tiles_per_second": len(x) * epochs / statistics.median(seconds),
            "bare_tiles_per_second": bare,
            "repetitions": repetitions,
            "parameters": sum(one.numel() for one in model.parameters()),
        }, None

    def _pythae(self, x: np.ndarray) -> tuple[Callable[[], Any], Callable[[int], None]]:
        from pythae.data.datasets import BaseDataset, DatasetOutput
        from pythae.models import VAE, VAEConfig
        from pythae.models.nn.benchmarks.celeba import Decoder_Conv_AE_CELEBA, Encoder_Conv_VAE_CELEBA
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        def model() -> Any:
            config = VAEConfig(input_dim=x.shape[1:], latent_dim=LATENT)
            if self._kind == "pythae-mlp":
                return VAE(config)
            return VAE(config, Encoder_Conv_VAE_CELEBA(config), Decoder_Conv_AE_CELEBA(config))

        def train(epochs: int) -> None:
            with tempfile.TemporaryDirectory() as folder:
                config = BaseTrainerConfig(
                    output_dir=folder, per_device_train_batch_size=self._batch, num_epochs=epochs, no_cuda=True
                )
                tiles = BaseDataset(torch.from_numpy(x), torch.zeros(len(x)))
                BaseTrainer(model(), tiles, training_config=config).train()

        def make() -> tuple[Any, Callable[[Any, torch.Tensor], torch.Tensor]]:
            return model(), lambda network, some: network(DatasetOutput(data=some)).loss

        return make, train

    def _pyod(self, x: np.ndarray) -> tuple[Callable[[], Any], Callable[[int], None]]:
        from pyod.models.vae import VAE

        flat = x.reshape(len(x), -1)

        def detector(epochs: int) -> Any:
            return VAE(latent_dim=LATENT, epoch_num=epochs, batch_size=self._batch, random_state=0, verbose=0)

        def train(epochs: int) -> None:
            detector(epochs).fit(flat)

        def make() -> tuple[Any, Callable[[Any, torch.Tensor], torch.Tensor]]:
            made = detector(1)
            made.fit(flat[: 2 * self._batch])
            network = made.model.train()

            def loss(network: Any, some: torch.Tensor) -> torch.Tensor:
                flat = some.flatten(1)
                expected, mu, logvar = network(flat)[:3]
                divergence = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
                return (expected - flat).square().sum() + divergence

            return network, loss

        return make, train

    def _bare(
        self, network: Any, loss: Callable[[Any, torch.Tensor], torch.Tensor], shape: tuple[int, ...], passes: int
    ) -> float:
        some = torch.rand(self._batch, *shape, generator=torch.Generator().manual_seed(0))

        def once() -> None:
            network.zero_grad(set_to_none=True)
            loss(network, some).backward()

        seconds = [_seconds(once) for _ in range(WARM + passes)]
        return self._batch / statistics.median(seconds[WARM:])


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    serve({"fit": Trained(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).fit})

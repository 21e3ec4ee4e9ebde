"""Outlier detectors of PyOD (Zhao et al. 2019) on features of tiles.

python outliers.py ecod|iforest|autoencoder|vae EPOCHS
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pyod.models.auto_encoder import AutoEncoder
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest
from pyod.models.vae import VAE
from serving import Given, serve
from sklearn.preprocessing import StandardScaler


def detector(kind: str, epochs: int, features: int) -> Any:
    """A fresh detector; seeded where it draws."""
    if kind == "ecod":
        return ECOD()
    if kind == "iforest":
        return IForest(random_state=0)
    network = {"epoch_num": epochs, "batch_size": 64, "random_state": 0, "verbose": 0}
    return AutoEncoder(**network) if kind == "autoencoder" else VAE(latent_dim=max(2, features // 8), **network)


class Outliers:
    """A detector on standardised features."""

    def __init__(self, kind: str, epochs: int) -> None:
        self._kind, self._epochs = kind, epochs

    def fit(self, x: np.ndarray) -> Given:
        """Learn from (N, F) features."""
        self._scaler = StandardScaler().fit(x)
        self._model = detector(self._kind, self._epochs, x.shape[1])
        self._model.fit(self._scaler.transform(x))
        network = getattr(self._model, "model", None)
        return {"parameters": sum(one.numel() for one in network.parameters()) if network else 0}, None

    def score(self, x: np.ndarray) -> Given:
        """(N,) outlier scores."""
        return {}, self._model.decision_function(self._scaler.transform(x))


if __name__ == "__main__":
    outliers = Outliers(sys.argv[1], int(sys.argv[2]))
    serve({"fit": outliers.fit, "score": outliers.score})

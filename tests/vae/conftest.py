"""Small tiles with structure: smooth fields, bands that go together, clouds that are masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from configs.schema import ModelSettings, ScoreSettings
from vae.detector import Detector
from vae.model import build
from vae.normalisation import Normalisation
from vae.tiles import TileArrays


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


def make_tiles(count: int, bands: int = 3, side: int = 16, seed: int = 0, masked: float = 0.2) -> TileArrays:
    """Reflectance of smooth ground; masked pixels hold NaN."""
    draw = np.random.default_rng(seed)
    ground = gaussian_filter(draw.normal(size=(count, 2, side, side)), (0, 0, 3, 3)) * 6
    mixing = np.random.default_rng(1).normal(size=(bands, 2)) * 0.3
    values = np.exp(
        -2 + np.einsum("bk,nkhw->nbhw", mixing, ground) + 0.05 * draw.normal(size=(count, bands, side, side))
    )
    cloud = gaussian_filter(draw.normal(size=(count, side, side)), (0, 2, 2))
    valid = cloud <= np.quantile(cloud, 1 - masked) if masked else np.ones_like(cloud, dtype=bool)
    values[~np.broadcast_to(valid[:, None], values.shape)] = np.nan
    return TileArrays(values.astype(np.float32), valid)


def make_normalisation(bands: int = 3) -> Normalisation:
    return Normalisation.from_limits({f"B{band:02d}": (0.03, 0.6) for band in range(bands)}, log=True, clip=3.0)


def make_detector(bands: int = 3, side: int = 16, seed: int = 0, **settings) -> Detector:
    """An untrained one: files, masks and determinism do not depend on what the weights are."""
    network = build(bands, ModelSettings(width=8, depth=2, latent_channels=4), seed)
    network.sigma.fill_(0.3)
    return Detector(network, make_normalisation(bands), ScoreSettings(**settings), side, seed)

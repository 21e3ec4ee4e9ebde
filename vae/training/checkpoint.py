"""The state of unfinished training, in one file: tensors as safetensors, all else as JSON in its header.

Nothing is ever unpickled, and the file is replaced as a whole after every epoch.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from configs.schema import ModelSettings, TrainSettings
from configs.workspace import write_bytes
from vae.digests import canonical_json, sha256
from vae.normalisation import Normalisation

if TYPE_CHECKING:
    from vae.tiles import TileArrays

log = logging.getLogger(__name__)

FORMAT = 2
SAMPLED_TILES = 256  # of the content, this many tiles go into the fingerprint
GROUPS = ("weights", "optimiser", "best_weights", "adversary")  # tensors of a state


@dataclass(frozen=True)
class State:
    """Training after some epoch. `optimiser` maps "<parameter number>.<name>" to a tensor.

    No state of a random generator is needed: every draw follows from the seed and the epoch.
    """

    fingerprint: str
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_elbo: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    adversary: dict[str, Tensor] = field(default_factory=dict)
    stopped_early: bool = False

    @property
    def epochs_done(self) -> int:
        """How many epochs lie behind."""
        return len(self.history)

    @staticmethod
    def from_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Its moments and step counts, flat, apart from it."""
        return {
            f"{number}.{name}": value.detach().clone()
            for number, moments in optimiser.state_dict()["state"].items()
            for name, value in moments.items()
        }

    def into_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Give an optimiser of the same parameters the stored moments."""
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in self.optimiser.items():
            number, name = key.split(".", 1)
            moments.setdefault(int(number), {})[name] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def fingerprint(
    train: TileArrays,
    held_out: TileArrays | None,
    normalisation: Normalisation,
    model: ModelSettings,
    settings: TrainSettings,
    seed: int,
    device: str,
) -> str:
    """Digest of what decides the weights; of the tiles, their number and up to 256 evenly spaced ones.

    Args:
        train: Tiles to learn from.
        held_out: Tiles that judge.
        normalisation: Physical to normalised units.
        model: The network.
        settings: How it is fitted.
        seed: Of all that is drawn.
        device: Where, and how exactly.
    """
    about = {
        "model": model.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json", exclude={"diagnose_every"}),
        "normalisation": normalisation.to_dict(),
        "seed": seed,
        "device": device,
    }
    return sha256(canonical_json(about), *(_digest(tiles) for tiles in (train, held_out)))


def save_state(path: Path, state: State) -> None:
    """Replace the checkpoint."""
    tensors = {
        f"{group}/{name}": tensor.cpu().contiguous().clone()  # safetensors refuses tensors that share memory
        for group in GROUPS
        for name, tensor in getattr(state, group).items()
    }
    about = {
        "format": FORMAT,
        "fingerprint": state.fingerprint,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_elbo": state.best_elbo,
        "stopped_early": state.stopped_early,
    }
    write_bytes(path, save(tensors, metadata={"state": canonical_json(about).decode()}))


def load_state(path: Path, expected_fingerprint: str) -> State | None:
    """What was saved, or None, with a warning that says why, when it cannot be used."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        log.warning("checkpoint %s cannot be read (%s): training starts anew", path, error)
        return None
    if about.get("format") != FORMAT:
        log.warning("checkpoint %s has format %s, not %d: training starts anew", path, about.get("format"), FORMAT)
        return None
    if about["fingerprint"] != expected_fingerprint:
        log.warning("checkpoint %s is of other tiles, settings or seed: training starts anew", path)
        return None
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    for name, tensor in tensors.items():
        group, rest = name.split("/", 1)
        groups[group][rest] = tensor
    return State(
        fingerprint=about["fingerprint"],
        history=about["history"],
        best_epoch=about["best_epoch"],
        best_elbo=about["best_elbo"],
        stopped_early=about["stopped_early"],
        **groups,
    )


def _digest(tiles: TileArrays | None) -> bytes:
    if tiles is None:
        return b"none"
    rows = np.unique(np.linspace(0, len(tiles) - 1, SAMPLED_TILES).astype(int))
    parts = [str(tiles.values.shape).encode()]
    for row in rows:
        valid, values = tiles.rows(row[None]).valid, tiles.physical(row[None])
        parts += [np.where(valid[:, None], values, np.float32(0)).tobytes(), valid.tobytes()]
    for name, told in tiles.told().items():
        parts += [name.encode(), np.ascontiguousarray(told[rows]).tobytes()]
    return sha256(*parts).encode()

"""All that decides the weights, in one piece, so that it can be handed to other processes."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import ModelSettings, TrainSettings
from vae.device import choose_device, choose_precision
from vae.errors import ShapeError
from vae.networks import VAE, build
from vae.normalisation import Normalisation
from vae.tiles import TileArrays
from vae.training.batches import steps_of
from vae.training.checkpoint import fingerprint


@dataclass(frozen=True)
class Job:
    """What is fitted to what, and how; the arguments of `vae.training.fit`."""

    train: TileArrays
    held_out: TileArrays | None
    normalisation: Normalisation
    model: ModelSettings
    settings: TrainSettings
    seed: int

    def network(self) -> VAE:
        """The network as it starts."""
        return build(len(self.normalisation.bands), self.model, self.seed, self.normalisation.clip)

    def fingerprint(self) -> str:
        """A digest of it; a checkpoint with another one is of other work."""
        device = choose_device(self.settings.device)
        where = f"{device.type} {choose_precision(self.settings.precision, device)}"
        return fingerprint(self.train, self.held_out, self.normalisation, self.model, self.settings, self.seed, where)

    def check(self) -> None:
        """Refuse tiles that cannot be learned from.

        Raises:
            ShapeError: They do not fit the bands, the network, the conditions or the number of processes.
        """
        for tiles in (self.train, self.held_out):
            if tiles is not None:
                self._check(tiles)
        settings = self.settings
        smallest = len(self.train) // steps_of(len(self.train), settings)
        if smallest < settings.devices:
            raise ShapeError(
                f"train.devices = {settings.devices} processes cannot share batches of {smallest} tiles "
                f"({len(self.train)} tiles, train.batch_size = {settings.batch_size}): use fewer processes, or larger "
                "batches"
            )

    def _check(self, tiles: TileArrays) -> None:
        bands, height, width = tiles.values.shape[1:]
        if len(tiles) == 0:
            raise ShapeError("there is no tile to learn from or to judge by: widen the dates or lower train.min_valid")
        if bands != len(self.normalisation.bands):
            raise ShapeError(f"the tiles have {bands} bands, the normalisation {len(self.normalisation.bands)}")
        step = 2**self.model.depth
        if height != width or height % step:
            raise ShapeError(
                f"tiles of {height} × {width} pixels do not fit model.depth = {self.model.depth}: "
                f"they must be square, with a side that is a multiple of {step}"
            )
        if self.settings.shift >= height:
            raise ShapeError(f"train.shift = {self.settings.shift} moves tiles of {height} pixels out of sight")
        missing = [
            name for name in self.model.condition if tiles.conditions is None or getattr(tiles.conditions, name) is None
        ]
        if missing:
            raise ShapeError(f"the network is to be told {', '.join(missing)}, which the tiles come without")
        if not tiles.any_valid():
            raise ShapeError("no tile has a valid pixel: check the masks")

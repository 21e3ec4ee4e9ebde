"""Looking at a network from time to time while it is trained, and at the end, through tiles of the dates held out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from configs import Settings
from imagery.catalog import SceneRecord
from vae.diagnostics import Diagnosis, diagnose
from vae.networks import VAE
from vae.normalisation import Normalisation
from vae.tiles import TileArrays
from vae.training import EpochMetrics, OnEpoch

log = logging.getLogger(__name__)

OnDiagnosis = Callable[
    [Diagnosis, int, bool], None
]  # with the epoch of the weights, and whether they are the final ones

SEASONS = ("December to February", "March to May", "June to August", "September to November")


@dataclass(frozen=True)
class Diagnosing:
    """What a network is looked at through, and who is told.

    Attributes:
        tiles: Of held-out dates.
        labels: Group of each tile.
        normalisation: Physical to normalised units.
        settings: `train.diagnose_every` and the seed.
        tell: Gets each diagnosis.
    """

    tiles: TileArrays
    labels: tuple[str, ...]
    normalisation: Normalisation
    settings: Settings
    tell: OnDiagnosis

    def after_epochs(self, then: OnEpoch | None) -> OnEpoch:
        """What `fit` is to call after each epoch: `then`, and every so many epochs a diagnosis."""
        every = self.settings.train.diagnose_every

        def told(metrics: EpochMetrics, network: VAE) -> None:
            if then is not None:
                then(metrics, network)
            if every and metrics.epoch % every == 0:
                self.look(network, metrics.epoch)

        return told

    def look(self, network: VAE, epoch: int, final: bool = False) -> None:
        """Diagnose a network that has the weights of an epoch. A diagnosis that fails is no reason to stop training."""
        try:
            found = diagnose(network, self.tiles, self.normalisation, self.settings.seed, self.labels)
            self.tell(found, epoch, final)
        except Exception:
            log.warning("the diagnosis after epoch %d failed, training goes on", epoch, exc_info=True)


def groups_of(records: list[SceneRecord]) -> tuple[str, ...]:
    """Group of each of some tiles, of which the scenes are given: its location or, if all have one, its season."""
    if len({record.location for record in records}) > 1:
        return tuple(record.location for record in records)
    return tuple(SEASONS[record.day.month % 12 // 3] for record in records)

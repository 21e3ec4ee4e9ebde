"""What a score may look at; what costs much is worked out when it is asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from vae.errors import ScoreError
from vae.networks import VAE, Given, Passed

UNCONFIRMED = 0.4  # of a difference: two dates of nothing usually agree on so much of it
SMALLEST_VARIANCE = 1e-4  # of the largest: narrower directions are noise


@dataclass(frozen=True)
class Past:
    """What the past of a place lets expect, normalised bands, 0 where not valid.

    Args:
        expected: (B, C, H, W) the tile as its past and tonight's light let expect it.
        valid: (B, H, W) bool, where both it and the tile are known.
        witness: (B, C, H, W) the last clear scene before tonight's; None when there is none to spare.
        witness_expected: (B, C, H, W) what was to be expected on its date.
        witness_valid: (B, H, W) bool, where both of these are known.
    """

    expected: Tensor
    valid: Tensor
    witness: Tensor | None = None
    witness_expected: Tensor | None = None
    witness_valid: Tensor | None = None


@dataclass(frozen=True)
class SceneStats:
    """Of the normalised pixels of one scene: mean (C,) and precision (C, C), the inverse of their covariance."""

    mean: Tensor
    precision: Tensor

    def to(self, device: torch.device) -> SceneStats:
        """The same on a device."""
        return SceneStats(self.mean.to(device), self.precision.to(device))

    @classmethod
    def of(cls, pixels: Tensor) -> SceneStats:
        """Of (N, C) pixels; directions in which they hardly vary count for no more than a hundredth of the widest."""
        wide = pixels.double()
        mean = wide.mean(dim=0)
        away = wide - mean
        variance, directions = torch.linalg.eigh(away.T @ away / max(len(wide), 1))
        variance = variance.clamp(min=max(SMALLEST_VARIANCE * float(variance.max()), 1e-12))
        precision = directions @ torch.diag(1 / variance) @ directions.T
        return cls(mean.float(), precision.float())


@dataclass(frozen=True)
class Evidence:
    """What a score may look at.

    Args:
        x: (B, C, H, W) normalised bands, 0 where masked.
        valid: (B, H, W) bool.
        network: The network, or None of a detector without one.
        constants: What the score itself learned of normal tiles, by name.
        past: None when the tiles are looked at alone.
        scene: None when they come without their scene.
        seed: Of scores that draw samples.
        visible: Which channels are red, green and blue; empty when the detector was not told.
        given: What the network is told beside the tiles; None when it is told nothing.
        shared: What was worked out already; copies of the evidence with other constants share it.
    """

    x: Tensor
    valid: Tensor
    network: VAE | None = None
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    past: Past | None = None
    scene: SceneStats | None = None
    seed: int = 0
    visible: tuple[int, ...] = ()
    given: Given | None = None
    shared: dict[str, Passed] = field(default_factory=dict)

    @property
    def model(self) -> VAE:
        """The network.

        Raises:
            ScoreError: The detector has none.
        """
        if self.network is None:
            raise ScoreError("the score needs a network and the detector has none: set model.members to at least 1")
        return self.network

    @property
    def passed(self) -> Passed:
        """The tiles through the network, by the posterior mean."""
        return self._once("tiles", self.x, self.valid)

    @property
    def expected(self) -> Tensor:
        """(B, C, H, W) decoded posterior mean."""
        return self.passed.expected

    @property
    def mu(self) -> Tensor:
        """(B, L, h, w) posterior means."""
        return self.passed.mu

    @property
    def logvar(self) -> Tensor:
        """(B, L, h, w) posterior log-variances."""
        return self.passed.logvar

    @property
    def sigma(self) -> Tensor:
        """(C,) standard deviation of the residuals of each band over the training tiles."""
        return self.model.sigma

    @property
    def before(self) -> Past:
        """The past.

        Raises:
            ScoreError: There is none.
        """
        if self.past is None:
            raise ScoreError("the score compares with the past of the place, and there is none")
        return self.past

    @property
    def beforehand(self) -> Tensor:
        """(B, C, H, W) what the network expects before it sees the tiles: the mean of the prior, decoded as it is told.

        Raises:
            ScoreError: The network is told nothing.
        """
        if self.given is None:
            raise ScoreError(
                "the score asks what the condition alone lets expect, and the network is told nothing: add reference "
                "or place to model.condition"
            )

        def no_noise(shape: Sequence[int]) -> Tensor:
            return torch.zeros(*shape, device=self.x.device)

        return self.model.sample(len(self.x), self.x.shape[-1], no_noise, self.given)

    @property
    def beside_expected(self) -> tuple[Passed, Passed]:
        """The tiles and what was to be expected of them through the network, both masked where either is."""
        return self._beside("expected", self.before.expected, self.before.valid)

    @property
    def beside_witness(self) -> tuple[Passed, Passed] | None:
        """The tiles and the witness likewise; None without one."""
        past = self.before
        if past.witness is None or past.witness_valid is None:
            return None
        return self._beside("witness", past.witness, past.witness_valid)

    def constant(self, name: str) -> Tensor:
        """What the score learned of normal tiles.

        Raises:
            ScoreError: It did not.
        """
        if name not in self.constants:
            raise ScoreError(f"the score has not learned {name!r} of normal tiles: fit the detector's scores first")
        return self.constants[name].to(self.x.device)

    @property
    def photograph(self) -> Callable[[Tensor], Tensor]:
        """Takes (B, C, H, W) normalised bands, gives (B, 3, H, W) red, green and blue, usually from 0 to 1.

        Raises:
            ScoreError: It is not known which bands these are.
        """
        if len(self.visible) != 3:
            raise ScoreError("texture needs red, green and blue: say which bands these are with score.visible")
        return lambda x: ((x[:, list(self.visible)] + 1) / 2).clamp(-0.5, 3.0)

    def differences(self, view: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """How what a view shows differs from what was to be expected, tonight and on the witness's date.

        Args:
            view: Takes bands and mask, gives a map (B, K, h, w).

        Returns:
            Tonight's difference and that of the witness's date; without a witness, or under its masks, `UNCONFIRMED`
            of tonight's, so that what one date alone shows is neither lost nor taken for as much as what two show.
        """
        past = self.before
        both = self.valid & past.valid
        tonight = view(_masked(self.x, both), both) - view(_masked(past.expected, both), both)
        if past.witness is None or past.witness_expected is None or past.witness_valid is None:
            return tonight, UNCONFIRMED * tonight
        seen = past.witness_valid
        earlier = view(_masked(past.witness, seen), seen) - view(_masked(past.witness_expected, seen), seen)
        # A cell of a coarser map is known where all of its pixels are.
        height, width = tonight.shape[-2:]
        known = F.adaptive_avg_pool2d(seen.to(tonight.dtype)[:, None], (height, width)) == 1
        return tonight, torch.where(known, earlier, UNCONFIRMED * tonight)

    def through(self, x: Tensor, valid: Tensor) -> Passed:
        """Other bands (B, C, H, W) of the same tiles through the network, which is told the same of them."""
        return self.model(x, valid, given=self.given)

    def _beside(self, name: str, other: Tensor, seen: Tensor) -> tuple[Passed, Passed]:
        # A network sees the mask too: under masks that differ, equal images would lie apart.
        both = self.valid & seen
        # An exported graph cannot ask, and looks again.
        same = not torch.compiler.is_exporting() and torch.equal(both, self.valid)
        tiles = self.passed if same else self._once(f"tiles beside {name}", self.x, both)
        return tiles, self._once(name, other, both)

    def _once(self, name: str, x: Tensor, valid: Tensor) -> Passed:
        if name not in self.shared:
            self.shared[name] = self.through(x, valid)
        return self.shared[name]


def _masked(x: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid[:, None], x, 0.0)

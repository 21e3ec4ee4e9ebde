"""From the evidence of one batch to a score of its tiles, and to what drove it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from vae import scores
from vae.scores import Evidence, Pool

Constants = Mapping[str, tuple[Mapping[str, Tensor], ...]]


@dataclass(frozen=True, eq=False)
class Worked:
    """One score of the B tiles of a batch.

    Attributes:
        per_tile: (B,) float64, NaN where no pixel counts.
        per_pixel: (B, H, W), NaN where a pixel does not count.
        maps: Its parts by name, (B, H, W) or (B,).
        high: (B, H, W) bool, where the score is highest: the pixels at or above that of the tile.
        off_bands: Says how far each band is off, (B, C, H, W), by what the score compares with.
        evidence: What it was worked out from, of the first network.
    """

    per_tile: Tensor
    per_pixel: Tensor
    maps: Mapping[str, Tensor]
    high: Tensor
    off_bands: Callable[[Evidence], Tensor]
    evidence: Evidence

    def parts(self) -> dict[str, Tensor]:
        """Share of each part of the score where it is highest, (B,) each: they sum to 1, or are 0 where the score is.

        A score of one part has all of it.
        """
        if len(self.maps) == 1:
            return {name: torch.ones(len(self.high), dtype=torch.float64) for name in self.maps}
        sums = torch.stack([_sums(part[:, None], self.high)[:, 0] for part in self.maps.values()], dim=1)
        return dict(zip(self.maps, _shares(sums).unbind(dim=1), strict=True))

    def bands(self) -> Tensor:
        """(B, C) share of each band of what is not as expected there; likewise."""
        return _shares(_sums(self.off_bands(self.evidence), self.high))


def can_work_out(name: str, constants: Constants, *, past: bool) -> bool:
    """Whether a score that compares with the past has one, now and when it learned; others always can."""
    entry = scores.find(name)
    return "past" not in entry.needs or (past and (entry.learn is None or name in constants))


def work_out(name: str, evidences: Sequence[Evidence], constants: Constants, pool: Pool) -> Worked:
    """Work out one score of a batch.

    Args:
        name: The score.
        evidences: What each network makes of the batch; one without a network.
        constants: What the scores learned of normal tiles.
        pool: How pixels become one number. Of a score that compares with the past, those count that it shows.

    Raises:
        ScoreError: The evidence has not what the score needs.
    """
    entry = scores.find(name)
    learned = constants.get(name, ())
    members = [
        replace(evidence, constants=learned[number] if number < len(learned) else {})
        for number, evidence in enumerate(evidences if "network" in entry.needs else evidences[:1])
    ]
    maps = _averaged(name, [entry.compute(evidence) for evidence in members])
    first, total = members[0], reduce(torch.add, maps.values())
    counts = first.valid & first.before.valid if "past" in entry.needs else first.valid
    if total.ndim == 3:
        per_pixel, per_tile = total, scores.pool(total, counts, pool)
    else:
        per_pixel = total[:, None, None].expand(counts.shape)
        per_tile = torch.where(counts.flatten(1).any(dim=1), total.double(), torch.nan)
    return Worked(
        per_tile=per_tile,
        per_pixel=torch.where(counts, per_pixel, torch.nan),
        maps=maps,
        high=counts & (per_pixel >= per_tile[:, None, None]),
        off_bands=_off_bands(entry),
        evidence=first,
    )


def _off_bands(entry: scores.Score) -> Callable[[Evidence], Tensor]:
    if "past" in entry.needs:
        return scores.change.off_bands
    return scores.conditional.off_bands if "condition" in entry.needs else scores.single.off_bands


def _averaged(name: str, given: Sequence[Tensor | dict[str, Tensor]]) -> dict[str, Tensor]:
    """The parts of a score, averaged over the networks."""
    parts = [found if isinstance(found, dict) else {name: found} for found in given]
    return {part: torch.stack([one[part] for one in parts]).mean(dim=0) for part in parts[0]}


def _sums(values: Tensor, where: Tensor) -> Tensor:
    """(B, K) sums of (B, K, H, W) over some pixels (B, H, W)."""
    return torch.where(where[:, None], values, 0.0).double().sum(dim=(2, 3))


def _shares(sums: Tensor) -> Tensor:
    """(B, K) that sum to 1, or are 0 where the sums are."""
    total = sums.sum(dim=1, keepdim=True)
    return torch.where(total > 0, sums / total, 0.0)

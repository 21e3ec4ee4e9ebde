"""A score of networks that are told of place and time: what is seen, less what that alone lets expect.

A conditional autoencoder (Sohn, Lee & Yan 2015, Learning structured output representation using deep conditional
generative models) that sees the tile can explain an anomaly by its latent. Before it sees the tile it cannot: the mean
of the prior, decoded for this place at this time, is what the place should look like tonight.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vae.scores.evidence import Evidence
from vae.scores.registry import score

SMALLEST_SCALE = 1e-4  # normalised units


def learn_scale(evidences: Iterable[Evidence]) -> dict[str, Tensor]:
    """(C,) root mean square of what normal tiles differ by, normalised units, over their valid pixels."""
    sums, count = [], 0
    for evidence in evidences:
        away = torch.where(evidence.valid[:, None], evidence.x - evidence.beforehand, 0.0)
        sums.append(away.double().square().sum(dim=(0, 2, 3)))
        count += int(evidence.valid.sum())
    return {"scale": (torch.stack(sums).sum(dim=0) / count).sqrt().float().clamp(min=SMALLEST_SCALE)}


@score("conditional_expectation", "network", "condition", learn=learn_scale)
def conditional_expectation(evidence: Evidence) -> Tensor:
    """(B, H, W) squared difference from what the condition alone lets expect, mean over the bands.

    In units of its variance over normal tiles: 1 is as well as the network does on normal tiles, whatever the band.
    """
    return off_bands(evidence).mean(dim=1)


def off_bands(evidence: Evidence) -> Tensor:
    """(B, C, H, W) the same, band by band."""
    return ((evidence.x - evidence.beforehand) / evidence.constant("scale").view(1, -1, 1, 1)).square()

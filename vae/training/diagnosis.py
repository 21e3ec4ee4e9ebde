"""Why a training broke down, as far as its tiles tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vae.normalisation import Normalisation
from vae.tiles import TileArrays
from vae.training.batches import plan_epoch, plan_in_order, steps_of
from vae.training.job import Job

EXTREME = 3.0  # times the clip: so far out a normalised value is no ground
UNCLIPPED = 1e30
NAMED = 5  # tiles that are named


def diagnosis(job: Job, epoch: int, step: int | None) -> str:
    """A sentence on the batch that broke it, or on all the tiles that judge.

    Args:
        job: What was fitted.
        epoch: From 0.
        step: Of the epoch; None when the tiles that judge, or else all that train, are to be looked at.
    """
    if step is not None:
        rows = plan_epoch(len(job.train), job.settings, job.seed, epoch)[step].rows
        found = extremes(job.train, rows, job.normalisation)
        which = f"first in batch {step + 1} of {steps_of(len(job.train), job.settings)}"
        return f"{which}, {found}" if found else f"{which}, whose tiles hold no extreme values: the steps are too large"
    tiles = job.train if job.held_out is None else job.held_out
    for plan in plan_in_order(len(tiles), job.settings):
        if found := extremes(tiles, plan.rows, job.normalisation):
            return found
    return "these tiles hold no extreme values: the steps are too large"


def extremes(tiles: TileArrays, rows: np.ndarray, normalisation: Normalisation) -> str:
    """The band of some tiles that lies farthest out, in words; empty when none is out of reach.

    What is infinite or not a number is masked when a batch is made, and breaks nothing.
    """
    values, valid = torch.from_numpy(tiles.physical(rows)), torch.from_numpy(tiles.rows(rows).valid)
    valid = valid & torch.isfinite(values).all(dim=1)
    away = replace(normalisation, clip=UNCLIPPED).apply(values, valid).abs().amax(dim=(2, 3))  # (B, C)
    band = int(away.amax(dim=0).argmax())
    if away[:, band].max() <= EXTREME * normalisation.clip:
        return ""
    seen = values[:, band][valid]
    ends = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, len(normalisation.bands), 1, 1)
    low, high = normalisation.invert(ends)[:, band].flatten().tolist()
    worst = torch.argsort(away[:, band], descending=True)[:NAMED]
    far = [number for number in worst.tolist() if away[number, band] > EXTREME * normalisation.clip]
    named = [str(row) for row in sorted(int(rows[number]) for number in far)]
    return (
        f"where band {normalisation.bands[band]} runs from {float(seen.min()):g} to {float(seen.max()):g}, while "
        f"{low:g} to {high:g} is usual: look at tile{'s' if len(named) > 1 else ''} {', '.join(named)} of those given"
    )

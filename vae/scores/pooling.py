"""From pixels to one number a tile."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vae.errors import ScoreError

Pool = Literal["mean", "p90"]


def pool(values: Tensor, valid: Tensor, how: Pool) -> Tensor:
    """One number a tile from its valid pixels.

    Args:
        values: (B, H, W); what is masked may hold anything.
        valid: (B, H, W) bool.
        how: `mean`, or `p90`, the exact 90th percentile of the valid pixels with linear interpolation.

    Returns:
        (B,) float64, NaN for a tile without valid pixels.
    """
    flat, mask = values.flatten(1).double(), valid.flatten(1)
    count = mask.sum(dim=1)
    if how == "mean":
        return torch.where(mask, flat, 0.0).sum(dim=1) / count
    if how != "p90":
        raise ScoreError(f"there is no pooling {how!r}: use 'mean' or 'p90'")
    ordered = torch.where(mask, flat, math.inf).sort(dim=1).values
    position = 0.9 * (count - 1).clamp(min=0).double()
    below = position.floor().long()
    above = torch.minimum(below + 1, (count - 1).clamp(min=0))
    low, high = (ordered.gather(1, at[:, None])[:, 0] for at in (below, above))
    return torch.where(count > 0, low + (high - low) * (position - below), math.nan)

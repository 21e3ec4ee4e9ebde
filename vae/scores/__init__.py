"""Every score a tile can get: one registry of pure functions.

A score takes `Evidence` and gives a map (B, H, W), which is then pooled over the valid pixels, or one number a tile
(B,), or several maps by name, whose sum is the score and whose shares tell a reader what drove it. Higher means more
anomalous. To add one, write the function in the module of its family and register it; calibration, reports, benchmarks
and tests find it here.

`single` looks at a tile alone, `latent` at its place in the latent space, `change` at the difference from what the past
of the place lets expect, `conditional` at the difference from what a network that is told of place and time expects.
"""

from __future__ import annotations

from vae.scores import change, conditional, latent, single
from vae.scores.evidence import Evidence, Past, SceneStats
from vae.scores.pooling import Pool, pool
from vae.scores.registry import SCORES, Score, find, score

__all__ = [
    "SCORES",
    "Evidence",
    "Past",
    "Pool",
    "SceneStats",
    "Score",
    "change",
    "conditional",
    "find",
    "latent",
    "pool",
    "score",
    "single",
]

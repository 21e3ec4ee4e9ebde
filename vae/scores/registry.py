"""The registry of scores."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vae.errors import ScoreError
from vae.scores.evidence import Evidence

Need = Literal["network", "past", "scene", "visible", "condition"]
Given = Tensor | dict[str, Tensor]
Compute = Callable[[Evidence], Given]
Learn = Callable[[Iterable[Evidence]], dict[str, Tensor]]
Least = Callable[[Evidence], float]


@dataclass(frozen=True)
class Score:
    """A registered score.

    Attributes:
        name: Under which it is found.
        compute: From evidence to a map (B, H, W), a number a tile (B,), or maps by name, whose sum is the score.
        needs: What the evidence must have, or it raises; but for the scene, which normal tiles stand in for.
        least: The smallest value it can take; depends on the network at most.
        learn: What it learns of normal tiles, from their evidence; None when it learns nothing.
    """

    name: str
    compute: Compute
    needs: frozenset[Need]
    least: Least
    learn: Learn | None


SCORES: dict[str, Score] = {}


def score(
    name: str, *needs: Need, least: Least = lambda evidence: 0.0, learn: Learn | None = None
) -> Callable[[Compute], Compute]:
    """Register a score under a name.

    ```python
    @score("brightest", "network")
    def brightest(evidence: Evidence) -> Tensor:
        return (evidence.x - evidence.expected).amax(dim=1).clamp(min=0)
    ```
    """

    def register(compute: Compute) -> Compute:
        SCORES[name] = Score(name, compute, frozenset(needs), least, learn)
        return compute

    return register


def find(name: str) -> Score:
    """The score of this name.

    Raises:
        ScoreError: There is none; names the nearest and all.
    """
    if name not in SCORES:
        near = difflib.get_close_matches(name, SCORES, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ScoreError(f"there is no score {name!r}.{meant} The scores are: {', '.join(sorted(SCORES))}")
    return SCORES[name]

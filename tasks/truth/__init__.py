"""Truth of tiles: which of those that were scored show an event, by masks, polygons or labels of tiles.

Three answers are possible: 1, the tile shows an event; 0, it shows none; NaN, nothing can be said of it. The last one
is never counted as one of the others.
"""

from tasks.truth.base import SceneTruth, ScoredScene, Shares, Truth, scored_scenes
from tasks.truth.load import TruthKind, load_truth

__all__ = ["SceneTruth", "ScoredScene", "Shares", "Truth", "TruthKind", "load_truth", "scored_scenes"]

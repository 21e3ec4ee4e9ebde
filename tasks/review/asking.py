"""Which tiles of a night people are asked about.

The flags that are the least likely, and two draws: of the tiles below their threshold, so that misses can be estimated,
and of the suppressed ones, so that suppression can be proved wrong. A draw depends on the names of scene and tile
alone, whatever the order of the scenes and however often the night is reported.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import nsmallest

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import Settings, Workspace
from tasks.evidence import Scored
from tasks.frozen import lot
from tasks.review.questions import read_questions
from tasks.review.verdicts import known_verdicts

ASKED_COLUMNS = ["scene_id", "tile_id", "asked", "share"]
KEY = ["scene_id", "tile_id"]
ORDER = ("flag", "suppressed", "sample")


def choose(scored: Sequence[Scored], settings: Settings, workspace: Workspace) -> pd.DataFrame:
    """The tiles that people are asked about, in the order in which they are shown.

    What the night asked before stays asked, as it was: a later scene or another detector adds to it. A tile of which
    somebody has said something already is not asked about.

    Args:
        scored: The scenes of the night, their tables as `heed` gives them.
        settings: How many.
        workspace: Knows what was asked and said before.

    Returns:
        `scene_id`, `tile_id`, `asked` (flag, suppressed or sample), and `share`: with what probability a tile like this
        was drawn (1 for the flags).
    """
    review = settings.review
    if not scored or not (review.flags or review.suppressed or review.sample):
        return pd.DataFrame(columns=ASKED_COLUMNS)
    columns = [*KEY, "score", "p_value", "p_reviewed", "flagged", "suppressed"]
    tiles = pd.concat([pd.DataFrame(scene.scores[columns]) for scene in scored], ignore_index=True)
    tiles = tiles[tiles["score"].notna()].sort_values(
        ["p_reviewed", "p_value", "score", *KEY], ascending=[True, True, False, True, True], ignore_index=True
    )
    held_back = tiles["suppressed"].notna() & ~tiles["flagged"]
    chosen = pd.concat(
        [
            tiles[tiles["flagged"]].head(review.flags).assign(asked="flag", share=1.0),
            _drawn(tiles[held_back], review.suppressed, settings.seed).assign(asked="suppressed"),
            _drawn(tiles[~tiles["flagged"] & ~held_back], review.sample, settings.seed).assign(asked="sample"),
        ]
    )
    before = {
        (one.scene_id, one.tile_id): (one.asked, one.share)
        for day in {scene.record.day for scene in scored}
        for one in read_questions(workspace, day)
    }
    said = {(one.scene_id, one.tile_id) for one in known_verdicts(workspace)} - before.keys()
    again = tiles[_among(tiles, before)]
    found = [before[key] for key in zip(again["scene_id"], again["tile_id"], strict=True)]
    again = again.assign(asked=[asked for asked, _ in found], share=[share for _, share in found])
    together = pd.concat([again, chosen[~(_among(chosen, before) | _among(chosen, said))]])
    kinds = {**dict.fromkeys([*KEY, "asked"], "str"), "share": "float64"}
    together = together.astype(kinds).assign(place=[ORDER.index(why) for why in together["asked"]])
    # The index is still the place among all tiles, the least likely first.
    together = together.sort_index().sort_values("place", kind="stable")
    return together[ASKED_COLUMNS].reset_index(drop=True)


def _drawn(tiles: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many of some tiles, drawn at random, with the share of them that was drawn."""
    names = list(zip(tiles["scene_id"], tiles["tile_id"], strict=True))
    places = nsmallest(count, range(len(names)), key=lambda one: lot(seed, "asked", *names[one]))
    return tiles.iloc[sorted(places)].assign(share=len(places) / len(names) if names else 1.0)


def _among(tiles: pd.DataFrame, keys: Collection[tuple[str, str]]) -> NDArray[np.bool_]:
    return np.array([key in keys for key in zip(tiles["scene_id"], tiles["tile_id"], strict=True)], dtype=bool)

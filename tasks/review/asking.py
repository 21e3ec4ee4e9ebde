"""Which tiles of a night people are asked about."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from configs import Settings, Workspace
from tasks.evidence import Scored

ASKED_COLUMNS = ["scene_id", "tile_id", "asked", "share"]


def choose(scored: Sequence[Scored], settings: Settings, workspace: Workspace) -> pd.DataFrame:
    """The tiles that people are asked about, in the order in which they are shown.

    Args:
        scored: The scenes of the night, their tables as `heed` gives them.
        settings: How many.
        workspace: Knows what was asked before.

    Returns:
        `scene_id`, `tile_id`, `asked` (flag, suppressed or sample), and `share`: with what probability a tile like this
        was drawn (1 for the flags).
    """
    return pd.DataFrame(columns=ASKED_COLUMNS)

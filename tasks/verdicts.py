"""Verdicts: what people have said of tiles that were shown to them, as `<workspace>/verdicts.parquet` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from configs import Workspace

# By verdict: whether the tile shows an anomaly. Of bad data nothing is known.
MEANS: Mapping[str, bool | None] = {"anomaly": True, "false alarm": False, "cloud or shadow": False, "bad data": None}
COLUMNS = ["tile_id", "scene_id", "verdict", "reviewed_at"]


class VerdictError(ValueError):
    """A table of verdicts that cannot be understood."""


@dataclass(frozen=True)
class Verdict:
    """What was said last of a tile on a scene.

    Attributes:
        scene_id: The scene.
        tile_id: The tile.
        anomaly: Whether it shows one; None when its data are bad, so that nothing can be said.
    """

    scene_id: str
    tile_id: str
    anomaly: bool | None


def read_verdicts(workspace: Workspace) -> list[Verdict]:
    """The latest verdict of each tile and scene, by scene and tile; none when nobody has said anything yet.

    Raises:
        VerdictError: A column is missing, or a verdict is none of those that there are.
    """
    path = workspace.root / "verdicts.parquet"
    if not path.exists():
        return []
    table = pd.read_parquet(path)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise VerdictError(f"{path} has no column {', '.join(missing)}: restore the file, or move it away")
    unknown = sorted(set(table["verdict"]) - set(MEANS))
    if unknown:
        raise VerdictError(f"{path} has the verdict {unknown[0]!r}: there are {', '.join(MEANS)}")
    # Of two at the same moment, the one that was written later.
    latest = table.sort_values("reviewed_at", kind="stable").drop_duplicates(["scene_id", "tile_id"], keep="last")
    rows = latest.sort_values(["scene_id", "tile_id"])[["scene_id", "tile_id", "verdict"]]
    return [Verdict(row.scene_id, row.tile_id, MEANS[row.verdict]) for row in rows.itertuples()]

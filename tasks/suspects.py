"""Suspects: tiles that were flagged on a night. They are not learned from as if they were normal."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from configs import Settings, Workspace
from configs.workspace import safe_name
from imagery.catalog import SceneRecord


def suspects(scenes: Iterable[SceneRecord], settings: Settings, workspace: Workspace) -> set[tuple[str, str]]:
    """(scene_id, tile_id) of the flagged tiles of some scenes, by whichever detector scored them last.

    An event that lasts would otherwise teach the network, and worse, the threshold, that it is normal. The price: with
    the events at most `false_alarm_rate` of the normal tiles are left out too, and their scores were the highest, so
    that a threshold from watched nights is a little low. A scene of which more than `split.max_flagged` is flagged says
    more of the scene or the detector than of its tiles, and is kept whole.
    """
    if not settings.split.exclude_flagged:
        return set()
    found: set[tuple[str, str]] = set()
    for record in scenes:
        paths = workspace.scores.glob(f"*/{safe_name(record.location)}/{record.file_name}.parquet")
        latest = max(paths, key=lambda path: _number(path.parts[-3]), default=None)
        if latest is None:
            continue
        table = pd.read_parquet(latest, columns=["tile_id", "score", "flagged"])
        flagged = table.loc[table["flagged"], "tile_id"]
        if len(flagged) <= settings.split.max_flagged * table["score"].notna().sum():
            found |= {(record.scene_id, tile_id) for tile_id in flagged}
    return found


def is_suspect(frame: pd.DataFrame, found: set[tuple[str, str]]) -> pd.Series:
    """Which rows of a frame with `scene_id` and `tile_id` are suspects."""
    return pd.Series(
        [pair in found for pair in zip(frame["scene_id"], frame["tile_id"], strict=True)], frame.index, bool
    )


def _number(version: str) -> int:
    """The number of a detector version such as v12."""
    digits = version.removeprefix("v")
    return int(digits) if digits.isdigit() else -1

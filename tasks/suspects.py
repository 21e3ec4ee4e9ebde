"""Suspects: tiles that were flagged on a night. They are not learned from as if they were normal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from configs import Settings, Workspace
from configs.workspace import safe_name, write_text
from imagery.catalog import SceneRecord

PRUNED = "_flagged.json"  # what is left of a table of scores that was pruned


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
        files = judgement_files(record, workspace)
        latest = read_judgement(files[-1]) if files else None
        if latest and not latest.as_whole(settings):
            found |= {(record.scene_id, tile_id) for tile_id in latest.flagged}
    return found


@dataclass(frozen=True)
class Judgement:
    """Which tiles of a scene a detector flagged, of how many that it scored."""

    flagged: tuple[str, ...]
    scored: int

    def as_whole(self, settings: Settings) -> bool:
        """Whether more than `split.max_flagged` of them are flagged."""
        return len(self.flagged) > settings.split.max_flagged * self.scored


def judgement_files(record: SceneRecord, workspace: Workspace) -> list[Path]:
    """A file for each version of the detector that scored a scene, the latest last: its scores, or what was left."""
    name = f"*/{safe_name(record.location)}/{record.file_name}"
    files = {path.parts[-3]: path for end in (PRUNED, ".parquet") for path in workspace.scores.glob(name + end)}
    return [files[version] for version in sorted(files, key=_number)]


def read_judgement(path: Path) -> Judgement:
    """What a table of scores says was flagged, or the file that was left in its place."""
    if path.name.endswith(PRUNED):
        content = json.loads(path.read_text(encoding="utf-8"))
        return Judgement(tuple(content["flagged"]), content["scored"])
    table = pd.read_parquet(path, columns=["tile_id", "score", "flagged"])
    return Judgement(tuple(table.loc[table["flagged"], "tile_id"]), int(table["score"].notna().sum()))


def keep_judgement(scores: Path) -> None:
    """Leave in a small file what a table of scores says was flagged, before the table is pruned."""
    write_text(
        scores.with_name(scores.name.removesuffix(".parquet") + PRUNED), json.dumps(asdict(read_judgement(scores)))
    )


def is_suspect(frame: pd.DataFrame, found: set[tuple[str, str]]) -> pd.Series:
    """Which rows of a frame with `scene_id` and `tile_id` are suspects."""
    return pd.Series(
        [pair in found for pair in zip(frame["scene_id"], frame["tile_id"], strict=True)], frame.index, bool
    )


def _number(version: str) -> int:
    """The number of a detector version such as v12."""
    digits = version.removeprefix("v")
    return int(digits) if digits.isdigit() else -1

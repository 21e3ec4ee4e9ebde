"""Suspects: tiles that were flagged on a night, or that people judged. They are not learned from as if normal.

What people have said stands above what a detector says: a tile that shows an event, cloud or bad data is never learned
from, flagged or not, and a flag that was a false alarm is normal.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from configs import Settings, Workspace
from configs.remembered import Remembered
from configs.workspace import safe_name, write_text
from imagery.catalog import SceneRecord
from tasks.review.verdicts import VerdictError, read_verdicts

NORMAL, EVENT = "false alarm", "anomaly"  # of the verdicts, those that say that nothing, and that something is there
PRUNED = "_flagged.json"  # what is left of a table of scores that was pruned


def suspects(scenes: Iterable[SceneRecord], settings: Settings, workspace: Workspace) -> set[tuple[str, str]]:
    """(scene_id, tile_id) of the tiles of some scenes that are not to be taken for normal.

    Those that people judged to show anything but normal ground are left out whatever the settings. With
    `split.exclude_flagged` flagged tiles are too, by whichever detector scored them last: an event that lasts would
    otherwise teach the network, and worse, the threshold, that it is normal. The price: with the events at most
    `false_alarm_rate` of the normal tiles are left out, and their scores were the highest, so that a threshold from
    watched nights is a little low. So a flag that people judged a false alarm counts again, with its high score.

    A scene of which more than `split.max_flagged` is flagged says more of the scene or the detector than of its tiles,
    and is kept whole; unless people looked at some of these flags, and half or more were none.

    Raises:
        VerdictError: The table of verdicts cannot be read.
    """
    judged = read_judged(workspace)
    found: set[tuple[str, str]] = set()
    for record in scenes:
        normal, other = judged.of(record)
        found |= {(record.scene_id, tile_id) for tile_id in other}
        if not settings.split.exclude_flagged:
            continue
        files = judgement_files(record, workspace)
        latest = read_judgement(files[-1]) if files else None
        if latest and (not latest.as_whole(settings) or latest.confirmed(normal, other)):
            found |= {(record.scene_id, tile_id) for tile_id in latest.flagged if tile_id not in normal}
    return found


@dataclass(frozen=True)
class Judged:
    """What people said last of the tiles of scenes, by `scene_id`.

    Attributes:
        normal: `tile_id` of those that were false alarms.
        events: Of those that show an anomaly.
        unusable: Of those with cloud or shadow, or bad data.
    """

    normal: Mapping[str, frozenset[str]] = field(default_factory=dict)
    events: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unusable: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, record: SceneRecord) -> tuple[frozenset[str], frozenset[str]]:
        """The tiles of a scene that were judged normal, and those that were judged otherwise."""
        normal, events, unusable = (
            tiles.get(record.scene_id, frozenset()) for tiles in (self.normal, self.events, self.unusable)
        )
        return normal, events | unusable


def read_judged(workspace: Workspace) -> Judged:
    """What people have said of tiles; the table is parsed once, for as long as it stays as it is.

    Raises:
        VerdictError: It cannot be read.
    """
    try:
        return _judged(workspace.verdicts)
    except FileNotFoundError:
        return Judged()
    except VerdictError:
        raise
    except (OSError, ValueError) as error:  # what pyarrow raises is one or the other
        raise VerdictError(
            f"{workspace.verdicts} cannot be read: {error}: restore the file, or move it away and run "
            "`tilewatch review sync`"
        ) from error


def _parsed(path: Path) -> Judged:
    found: dict[bool | None, dict[str, set[str]]] = {None: {}, True: {}, False: {}}
    for one in read_verdicts(Workspace(path.parent)):
        shows = None if one.verdict == NORMAL else one.verdict == EVENT
        found[shows].setdefault(one.scene_id, set()).add(one.tile_id)
    normal, events, unusable = (
        {scene_id: frozenset(tiles) for scene_id, tiles in found[which].items()} for which in (None, True, False)
    )
    return Judged(normal, events, unusable)


_judged = Remembered(_parsed)


@dataclass(frozen=True)
class Judgement:
    """Which tiles of a scene a detector flagged, of how many that it scored."""

    flagged: tuple[str, ...]
    scored: int

    def as_whole(self, settings: Settings) -> bool:
        """Whether more than `split.max_flagged` of them are flagged."""
        return len(self.flagged) > settings.split.max_flagged * self.scored

    def confirmed(self, normal: Collection[str], other: Collection[str]) -> bool:
        """Whether people looked at flags of it, and half of these or more were no false alarms."""
        false = sum(tile_id in normal for tile_id in self.flagged)
        true = sum(tile_id in other for tile_id in self.flagged)
        return true > 0 and true >= false

    def less(self, normal: Collection[str]) -> Judgement:
        """The same without the flags of tiles that people judged normal."""
        return replace(self, flagged=tuple(tile_id for tile_id in self.flagged if tile_id not in normal))


def judgement_files(record: SceneRecord, workspace: Workspace) -> list[Path]:
    """A file for each version of the detector that scored a scene, the latest last: its scores, or what was left."""
    name = f"*/{safe_name(record.location)}/{record.file_name}"
    files = {path.parts[-3]: path for end in (PRUNED, ".parquet") for path in workspace.scores.glob(name + end)}
    return [files[version] for version in sorted(files, key=_number)]


def _judgement(path: Path) -> Judgement:
    if path.name.endswith(PRUNED):
        content = json.loads(path.read_text(encoding="utf-8"))
        return Judgement(tuple(content["flagged"]), content["scored"])
    table = pd.read_parquet(path, columns=["tile_id", "score", "flagged"])
    return Judgement(tuple(table.loc[table["flagged"], "tile_id"]), int(table["score"].notna().sum()))


# What a table of scores says was flagged, or the file that was left in its place.
read_judgement = Remembered(_judgement)


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

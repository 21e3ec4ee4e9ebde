"""Verdicts: what people have said of tiles that were shown to them, as `<workspace>/verdicts.parquet` keeps it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any

import pandas as pd

from configs import Workspace
from configs.workspace import whole_file
from imagery.sources.scene import place_and_day

# By verdict: whether the tile shows an anomaly. Of bad data nothing is known.
MEANS: Mapping[str, bool | None] = {"anomaly": True, "false alarm": False, "cloud or shadow": False, "bad data": None}
COLUMNS = ["tile_id", "scene_id", "verdict", "reviewed_at"]  # the others may be missing

log = logging.getLogger(__name__)


class VerdictError(ValueError):
    """A table of verdicts that cannot be understood."""


@dataclass(frozen=True)
class Verdict:
    """What was said last of a tile on a scene.

    Attributes:
        scene_id: The scene.
        tile_id: The tile.
        verdict: One of `MEANS`.
        reviewed_at: When it was said, UTC.
        reviewer: Who said it, as MLflow knows them.
        kind: What kind of event it is, in the reviewer's choice.
        severity: 0 to 10; None when nothing was said.
        comment: In the reviewer's words.
        asked: Why the tile was shown: flag, sample (below its threshold) or suppressed.
        share: With what probability a tile like this was asked about; below 1 for those that were drawn.
        detector_version: The detector that scored it; '' when not known.
        score: Its score then; None when not known.
        p_value: Of this score, as the detector was calibrated; None when not known.
        trace_id: The trace of MLflow on which it was said; '' when it was entered by hand.
    """

    scene_id: str
    tile_id: str
    verdict: str
    reviewed_at: datetime | None = None
    reviewer: str = ""
    kind: str = ""
    severity: float | None = None
    comment: str = ""
    asked: str = "flag"
    share: float = 1.0
    detector_version: str = ""
    score: float | None = None
    p_value: float | None = None
    trace_id: str = ""

    @property
    def anomaly(self) -> bool | None:
        """Whether it shows an anomaly; None when its data are bad, so that nothing can be said."""
        return MEANS[self.verdict]

    @property
    def location(self) -> str:
        """The place."""
        return place_and_day(self.scene_id)[0]

    @property
    def night(self) -> date:
        """The UTC date of the scene."""
        return place_and_day(self.scene_id)[1]


def read_verdicts(workspace: Workspace) -> list[Verdict]:
    """The latest verdict of each tile and scene, by scene and tile; none when nobody has said anything yet.

    Raises:
        VerdictError: A column is missing, a verdict is none of those that there are, or a scene's name is none.
    """
    latest = {(one.scene_id, one.tile_id): one for one in read_all(workspace)}
    return [latest[key] for key in sorted(latest)]


def read_all(workspace: Workspace) -> list[Verdict]:
    """All rows of the table, the latest last: a tile has several when somebody entered one by hand as well.

    Raises:
        VerdictError: A column is missing, a verdict is none of those that there are, or a scene's name is none.
    """
    path = workspace.verdicts
    if not path.exists():
        return []
    table = pd.read_parquet(path)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise VerdictError(f"{path} has no column {', '.join(missing)}: restore the file, or move it away")
    unknown = sorted(set(table["verdict"]) - set(MEANS))
    if unknown:
        raise VerdictError(f"{path} has the verdict {unknown[0]!r}: there are {', '.join(MEANS)}")
    table["reviewed_at"] = pd.to_datetime(table["reviewed_at"], utc=True)
    known = [one.name for one in fields(Verdict) if one.name in table]
    # Of two at the same moment, the one that was written later is the last.
    rows = table.sort_values("reviewed_at", kind="stable")[known].to_dict("records")
    verdicts = [Verdict(**{str(name): value for name, value in row.items() if _known(value)}) for row in rows]
    for one in verdicts:
        try:
            place_and_day(one.scene_id)
        except ValueError as error:
            raise VerdictError(f"{path}: {error}") from None
    return verdicts


def known_verdicts(workspace: Workspace) -> list[Verdict]:
    """The same for what a night can do without: none, and a warning, when the table cannot be read."""
    try:
        return read_verdicts(workspace)
    except (ValueError, TypeError) as error:  # a damaged Parquet file is a ValueError too
        log.warning("going on without verdicts, which cannot be read: %s", error)
        return []


def write_verdicts(verdicts: Sequence[Verdict], workspace: Workspace) -> None:
    """Replace the table."""
    table = pd.DataFrame([asdict(one) for one in verdicts], columns=[one.name for one in fields(Verdict)])
    for name in ("severity", "share", "score", "p_value"):
        table[name] = table[name].astype("float64")
    table["reviewed_at"] = pd.to_datetime(table["reviewed_at"], utc=True)
    with whole_file(workspace.verdicts) as path:
        table.to_parquet(path, index=False, compression="zstd")


def _known(value: Any) -> bool:
    return not pd.isna(value)

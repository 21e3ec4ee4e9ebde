"""Questions: all that is asked of a tile, kept with its night until MLflow has it, and after.

`<workspace>/reports/<night>/questions.json` holds them in the order in which they were asked; it only grows, so it also
says what must not be asked again. The pictures lie beside it, in `questions/`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from configs import Workspace
from configs.workspace import write_bytes, write_text
from tasks.evidence import Illustrations, Scored
from tasks.nights import night_folder
from tasks.review.preview import strip

FILE, PICTURES = "questions.json", "questions"
MOST_SHARES = 5  # bands, or latent parts, that are named


@dataclass(frozen=True)
class Question:
    """What is asked of a tile on a scene, with the numbers that a reviewer sees.

    Attributes:
        night: The UTC date of the scene.
        location: The place.
        scene_id: The scene.
        tile_id: The tile.
        asked: Why: flag, suppressed or sample.
        share: With what probability a tile like this is asked about.
        detector_version: The detector that scored it.
        score: Its score.
        p_value: Of this score, as the detector was calibrated; None when it is not known.
        p_reviewed: The same after people's verdicts.
        threshold: What its score is compared with, after people's verdicts.
        kind: Name of the score.
        suppressed: Why it is no flag although its score passes the threshold, in words.
        latitude: Of its centre, degrees.
        longitude: Of its centre, degrees.
        valid_fraction: Share of its pixels that could be used.
        bands: The share of bands in its difference from what was expected, the largest first.
        parts: The same of parts of the latent.
        picture: Path of its pictures, relative to the workspace; '' without any.
    """

    night: date
    location: str
    scene_id: str
    tile_id: str
    asked: str
    share: float
    detector_version: str
    score: float
    p_value: float | None
    p_reviewed: float | None
    threshold: float | None
    kind: str
    suppressed: str
    latitude: float
    longitude: float
    valid_fraction: float
    bands: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    picture: str = ""

    def item(self, watch: str) -> str:
        """What names it on a server, whichever night, detector or workspace asks."""
        return item_of(watch, self.scene_id, self.tile_id)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Question:
        """One of the file."""
        return cls(**{**values, "night": date.fromisoformat(values["night"])})


def item_of(watch: str, scene_id: str, tile_id: str) -> str:
    """A digest of a watch, a scene and a tile."""
    return hashlib.blake2b("\0".join([watch, scene_id, tile_id]).encode(), digest_size=16).hexdigest()


def read_questions(workspace: Workspace, night: date) -> list[Question]:
    """What a night has asked, in that order; none when it has asked nothing."""
    path = night_folder(workspace, night) / FILE
    if not path.exists():
        return []
    return [Question.from_dict(one) for one in json.loads(path.read_text(encoding="utf-8"))["questions"]]


def questioned_nights(workspace: Workspace) -> list[date]:
    """The nights that have asked something, oldest first."""
    return sorted(date.fromisoformat(path.parent.name) for path in workspace.reports.glob(f"*/{FILE}"))


def write_questions(
    night: date,
    asked: pd.DataFrame,
    scored: Sequence[Scored],
    shown: Illustrations,
    bands: Sequence[str],
    detector_version: str,
    workspace: Workspace,
) -> Path | None:
    """Keep what a night asks. What it has asked before stays as it was asked.

    Args:
        night: The night.
        asked: The tiles, as `tasks.review.asking` chooses them.
        scored: The scenes of the night, their tables as `heed` gives them.
        shown: The pictures of these tiles.
        bands: Names of the bands that were scored.
        detector_version: The detector that scored.
        workspace: Where it is kept.

    Returns:
        The file; None when the night asks nothing.
    """
    found = {(one.scene_id, one.tile_id): one for one in read_questions(workspace, night)}
    rows = {
        (row["scene_id"], row["tile_id"]): row
        for scene in scored
        for _, row in scene.scores[scene.scores["tile_id"].isin(asked["tile_id"])].iterrows()
    }
    for scene_id, tile_id, why, share in asked[["scene_id", "tile_id", "asked", "share"]].itertuples(index=False):
        key = (scene_id, tile_id)
        if key not in found:
            picture = _picture(night, key, shown.tiles.get(key, {}), workspace)
            found[key] = _question(night, rows[key], why, float(share), picture, bands, detector_version)
    if not found:
        return None
    path = night_folder(workspace, night) / FILE
    content = {"format": 1, "questions": [asdict(one) | {"night": one.night.isoformat()} for one in found.values()]}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    return path


def _question(
    night: date, row: pd.Series, why: str, share: float, picture: str, bands: Sequence[str], detector_version: str
) -> Question:
    centre = row["geometry"].centroid
    return Question(
        night=night,
        location=str(row["location"]),
        scene_id=str(row["scene_id"]),
        tile_id=str(row["tile_id"]),
        asked=why,
        share=share,
        detector_version=detector_version,
        score=float(row["score"]),
        p_value=_number(row["p_value"]),
        p_reviewed=_number(row["p_reviewed"]),
        threshold=_number(row["bar"]),
        kind=str(row["kind"]),
        suppressed="" if pd.isna(row["suppressed"]) else str(row["suppressed"]),
        latitude=round(float(centre.y), 6),
        longitude=round(float(centre.x), 6),
        valid_fraction=float(row["valid_fraction"]),
        bands=_largest({band: row.get(f"off_{number}") for number, band in enumerate(bands)}),
        parts=_largest({name[5:]: row[name] for name in map(str, row.index) if name.startswith("part_")}),
        picture=picture,
    )


def _picture(night: date, key: tuple[str, str], images: Mapping[str, str], workspace: Workspace) -> str:
    """The pictures of a tile as one file, written before what names it."""
    if not images:
        return ""
    name = f"{hashlib.blake2b(chr(0).join(key).encode(), digest_size=10).hexdigest()}.jpg"
    path = night_folder(workspace, night) / PICTURES / name
    write_bytes(path, strip(images))
    return path.relative_to(workspace.root).as_posix()


def _number(value: Any) -> float | None:
    return float(value) if pd.notna(value) and math.isfinite(value) else None


def _largest(shares: Mapping[str, Any]) -> dict[str, float]:
    known = {name: float(share) for name, share in shares.items() if _number(share) is not None}
    return dict(sorted(known.items(), key=lambda one: (-one[1], one[0]))[:MOST_SHARES])

"""What is asked of a truth: scored scenes, and answers for their tiles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs import Period, Workspace
from configs.workspace import safe_name
from imagery.catalog import TIME
from imagery.truth import TruthError
from tasks.regions import RegionCounts


@dataclass(frozen=True)
class Shares:
    """How much of a tile's valid pixels an event covers, for the tile to count as one with or without."""

    positive: float = 0.1
    negative: float = 0.0

    def answer(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) 1 above `positive`, 0 up to `negative`, NaN between them and where the share is not known."""
        unclear = np.where(share <= self.negative, 0.0, np.nan)
        return np.where(share > self.positive, 1.0, unclear)


@dataclass(frozen=True)
class ScoredScene:
    """A scene that a detector scored."""

    location: str
    scene_id: str
    day: date
    scores: Path

    @property
    def name(self) -> str:
        """What its files are named after."""
        return self.scores.stem

    @property
    def heatmap(self) -> Path:
        """Its scores, pixel by pixel."""
        return self.scores.with_name(f"{self.name}_anomaly.tif")


@dataclass(frozen=True)
class SceneTruth:
    """What is known of a scene's tiles.

    Attributes:
        positive: (N,) 1, 0 or NaN, in the order of its scores.
        share: (N,) share of the valid pixels that show an event; NaN where not known, or not counted.
        kind: (N,) kind of the event, "" for none or where it is not said.
        regions: The events as regions of the heatmap; None when the truth is not one of pixels.
    """

    positive: NDArray[np.float64]
    share: NDArray[np.float64]
    kind: NDArray[np.object_]
    regions: RegionCounts | None = None


class Truth(Protocol):
    """What is known of some scenes."""

    def of(self, scene: ScoredScene, table: pd.DataFrame, shares: Shares) -> SceneTruth | None:
        """What is known of the tiles of a scene, a row of `table` each; None where it says nothing of the scene."""


def scored_scenes(workspace: Workspace, version: str, period: Period) -> list[ScoredScene]:
    """The scenes that a version of the detector scored in a period, by location and time.

    Raises:
        TruthError: There are none.
    """
    folder = workspace.scores / safe_name(version)
    found = []
    for path in sorted(folder.glob("*/[!.]*.parquet")):
        time = TIME.fullmatch(path.stem)
        if time and date.fromisoformat(time["day"]) in period:
            first = pq.ParquetFile(path).read_row_group(0, columns=["location", "scene_id"]).slice(0, 1).to_pylist()[0]
            found.append(ScoredScene(first["location"], first["scene_id"], date.fromisoformat(time["day"]), path))
    if not found:
        there = ", ".join(sorted(path.name for path in workspace.scores.glob("*/"))) or "none"
        raise TruthError(
            f"there are no scores of {version} in {workspace.scores} from {period.start or 'the beginning'} to "
            f"{period.end or 'today'} (versions there: {there}): run `tilewatch nightly`, or choose others"
        )
    return found


def read_table(path: Path) -> pd.DataFrame:
    """A CSV (as text) or Parquet file.

    Raises:
        TruthError: It is none.
    """
    try:
        return pd.read_csv(path, dtype=str) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (ValueError, pa.ArrowException) as error:
        raise TruthError(f"{path} cannot be read as a table: {error}") from None

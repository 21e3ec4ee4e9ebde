"""Truth as labels of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from imagery.truth import TruthError, as_days, as_texts
from tasks.truth.base import SceneTruth, ScoredScene, Shares, read_table

YES, NO = ("1", "1.0", "true", "yes", "anomaly"), ("0", "0.0", "false", "no", "normal")


@dataclass(frozen=True)
class LabelTruth:
    """Labels of tiles, as `read_labels` gives them."""

    labels: pd.DataFrame
    complete: bool

    def of(self, scene: ScoredScene, table: pd.DataFrame, shares: Shares) -> SceneTruth | None:
        """See `Truth`."""
        if "scene_id" in self.labels:
            here = self.labels[self.labels["scene_id"] == scene.scene_id]
        else:
            here = self.labels[self.labels["date"] == pd.Timestamp(scene.day)]
        here = here[here["tile_id"].isin(table["tile_id"])].set_index("tile_id")
        if here.empty and not self.complete:
            return None
        positive = table["tile_id"].map(here["label"]).to_numpy(dtype=float, copy=True)
        if self.complete:
            positive[~table["tile_id"].isin(here.index)] = 0.0
        kinds = here["kind"].to_dict()
        kind = np.array([kinds.get(tile, "") for tile in table["tile_id"]], dtype=object)
        kind[~(positive > 0)] = ""
        return SceneTruth(positive, np.full(len(table), np.nan), kind)


def read_labels(path: Path) -> pd.DataFrame:
    """Read labels of tiles.

    Args:
        path: CSV or Parquet with the columns `tile_id`, `date` or `scene_id`, and `label`: 1, true, yes or anomaly; 0,
            false, no or normal; empty where it is not known. A column `kind` is optional.

    Returns:
        The columns `tile_id`, `scene_id` or `date`, `label` (1, 0 or NaN) and `kind`.

    Raises:
        TruthError: A column is missing, a label is none of these, or a tile has two labels.
    """
    if not path.is_file():
        raise TruthError(f"there is no {path}")
    table = read_table(path)
    when = "scene_id" if "scene_id" in table else "date"
    missing = [name for name in ("tile_id", when, "label") if name not in table]
    if missing:
        raise TruthError(
            f"{path} has no column {', '.join(missing)} (found: {', '.join(map(str, table.columns))}): labels of tiles "
            "need tile_id, date or scene_id, and label"
        )
    text = as_texts(table, "label").str.strip().str.lower()
    unknown = sorted(set(text) - {*YES, *NO, ""})
    if unknown:
        raise TruthError(
            f"{path} has the label {', '.join(map(repr, unknown[:5]))}: write 1 (or true, yes, anomaly), 0 (or false, "
            "no, normal), or nothing where it is not known"
        )
    label = np.select([text.isin(YES), text.isin(NO)], [1.0, 0.0], np.nan)
    times = as_texts(table, "scene_id") if when == "scene_id" else as_days(table["date"], "date", path)
    found = pd.DataFrame(
        {"tile_id": as_texts(table, "tile_id"), when: times, "label": label, "kind": as_texts(table, "kind")}
    )
    twice = found.duplicated(["tile_id", when])
    if twice.any():
        raise TruthError(f"{path} labels {found.loc[twice, 'tile_id'].iloc[0]} twice for one {when}: keep one")
    return found

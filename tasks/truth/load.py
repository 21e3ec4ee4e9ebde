"""Reading a truth: which kind it is, and whether it fits what was scored."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow.parquet as pq

from configs import Settings, Workspace
from imagery.catalog import Catalog
from imagery.truth import POLYGON_FILES, RASTER_FILES, TruthError, read_polygons
from tasks.truth.areas import MaskTruth, PolygonTruth
from tasks.truth.base import ScoredScene, Truth
from tasks.truth.labels import LabelTruth, read_labels

TruthKind = Literal["auto", "mask", "polygons", "labels"]
LABEL_FILES = (".csv", ".parquet")


def load_truth(
    path: str, kind: TruthKind, scenes: list[ScoredScene], settings: Settings, workspace: Workspace, complete: bool
) -> Truth:
    """Read the truth of some scenes.

    Args:
        path: A file; or for masks a folder, or a pattern with {location} and {date} (see `areas.MASK_NAMES`).
        kind: What it is; "auto" goes by the path's ending, and by the columns of a Parquet file.
        scenes: The scenes that it is held against.
        settings: How pixels may lie to the grid.
        workspace: Holds the grids of the locations.
        complete: All events are in it: what it does not mention shows none, instead of being unknown.

    Raises:
        TruthError: It is not there, or cannot be read.
    """
    kind = _kind_of(path) if kind == "auto" else kind
    catalog = Catalog(workspace)
    if kind == "mask":
        return MaskTruth(path, _one_place(path, scenes), settings, catalog, complete)
    if kind == "polygons":
        shapes = read_polygons(Path(path))
        _check_places(path, shapes["location"], scenes)
        return PolygonTruth(path, shapes, catalog, complete)
    return LabelTruth(read_labels(Path(path)), complete)


def _kind_of(path: str) -> TruthKind:
    ending = Path(path).suffix.lower()
    if "{" in path or Path(path).is_dir() or ending in RASTER_FILES:
        return "mask"
    if not Path(path).is_file():
        raise TruthError(f"there is no {path}")
    if ending == ".parquet":
        return "polygons" if b"geo" in (pq.read_schema(path).metadata or {}) else "labels"
    if ending in POLYGON_FILES:
        return "polygons"
    if ending in LABEL_FILES:
        return "labels"
    raise TruthError(
        f"{path} is neither a mask ({', '.join(RASTER_FILES)}, or a folder of them), nor polygons "
        f"({', '.join(POLYGON_FILES)}), nor labels ({', '.join(LABEL_FILES)}): say which with --truth-kind"
    )


def _one_place(path: str, scenes: list[ScoredScene]) -> str | None:
    """The location of a single mask.

    Raises:
        TruthError: There is no such mask, or several locations that it could be of.
    """
    if "{" in path or Path(path).is_dir():
        return None
    if not Path(path).is_file():
        raise TruthError(f"there is no {path}")
    places = sorted({scene.location for scene in scenes})
    if len(places) > 1:
        raise TruthError(
            f"{path} is one mask, and {len(places)} locations were scored ({', '.join(places[:5])}): give a folder "
            "with a mask for each, or a pattern with {location}"
        )
    return places[0]


def _check_places(path: str, named: pd.Series, scenes: list[ScoredScene]) -> None:
    """Refuse truth of places none of which was scored: that is a misspelt name."""
    names, scored = set(named) - {""}, {scene.location for scene in scenes}
    if names and not (named == "").any() and not names & scored:
        raise TruthError(
            f"{path} names the locations {', '.join(sorted(names)[:5])}; scored were {', '.join(sorted(scored)[:5])}: "
            "name them alike"
        )

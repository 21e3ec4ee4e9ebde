"""Find more like this: the tiles that a tile's latent lies nearest to, as a page and as tables.

A look at what is there, which changes nothing that a night reads: so no flow, and nothing of it in Prefect.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs import Period, SettingsError
from configs.workspace import safe_name, whole_file, write_text
from flows.console import show
from flows.parameters import Watch
from flows.progress import progress
from imagery.sources.scene import place_and_day
from tasks import registry, steps
from tasks.moves import CHAMPION
from tasks.score import check_fit
from tasks.similar import Search, Subject, find_subject, search
from tasks.similar_page import SimilarView, TileView, render_similar, tile_views

COLUMNS = [name for name in TileView.__dataclass_fields__ if name != "pictures"]


@dataclass(frozen=True)
class SimilarSummary:
    """What is like a tile.

    Attributes:
        tile_id: The tile.
        scene_id: The scene that it was looked at on.
        detector_version: The detector that the latents are of.
        tiles: Tiles that were compared.
        scenes: Scenes that these are of.
        found: The nearest first, by the columns of the table.
        report: The page.
        table: The same as Parquet, and as JSON beside it.
    """

    tile_id: str
    scene_id: str
    detector_version: str
    tiles: int
    scenes: int
    found: list[dict[str, Any]]
    report: str
    table: str


def similar(
    watch: Watch,
    tile_id: str,
    scene_id: str | None = None,
    night: date | None = None,
    count: int = 20,
    version: str = CHAMPION,
    period: Period | None = None,
    other_places: bool = False,
    each: int = 1,
    out: Path | None = None,
) -> SimilarSummary:
    """Find the tiles that are most like one, and write a page of them.

    Args:
        watch: Configuration and workspace.
        tile_id: The tile.
        scene_id: The scene; None takes the last one on which the tile has a latent.
        night: The date of the scene.
        count: So many tiles at most.
        version: The detector.
        period: Dates of the tiles that are looked at.
        other_places: Leave out the tile's own location.
        each: At most so many scenes of one tile.
        out: The page; else it is in the workspace, under `reports/similar`.

    Raises:
        SettingsError: The page is to be no HTML file.
        SimilarError: There is no such tile or scene, or it has no latent.
        NoChampion: There is no such detector.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--out {str(out)!r} is not named .html: the tables are written beside the page")
    settings, workspace = watch.open()
    if version == CHAMPION:
        folder, found_version = registry.champion(settings, workspace)
    else:
        folder, found_version = registry.registered(settings, workspace, version)
    detector = steps.load_detector(folder)
    check_fit(detector, settings)
    period = period or Period()
    subject = find_subject(tile_id, scene_id, night, detector, found_version, workspace)
    with progress("similar", 1) as counter:
        result = search(subject, detector, found_version, workspace, count, each, period, other_places, counter.at)
    near = [(one.scene_id, one.tile_id, one.distance) for one in result.found]
    wanted = [(subject.record.scene_id, tile_id, 0.0), *near]
    places = {scene: place_and_day(scene)[0] for scene, _, _ in wanted}
    asked, *others = tile_views(wanted, places, detector, found_version, settings, workspace)
    where = _where(subject, result, period, other_places, each)
    view = SimilarView(
        settings.name, found_version, asked, others, result.tiles, result.scenes, result.active, result.channels, where
    )
    page = out or workspace.reports / "similar" / f"{safe_name(f'{tile_id} {subject.record.file_name}')}.html"
    rows = [{name: getattr(one, name) for name in COLUMNS} for one in others]
    table = page.with_name(page.name.removesuffix(page.suffix) + ".parquet")
    summary = SimilarSummary(
        tile_id, subject.record.scene_id, found_version, result.tiles, result.scenes, rows, str(page), str(table)
    )
    with whole_file(table) as path:
        _frame(rows).to_parquet(path, index=False, compression="zstd")
    content = {key: value for key, value in asdict(summary).items() if key not in ("report", "table")}
    write_text(table.with_suffix(".json"), json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    write_text(page, render_similar(view))
    return summary


def _where(subject: Subject, result: Search, period: Period, other_places: bool, each: int) -> str:
    """Which tiles were looked at, in words."""
    words = []
    if period.start or period.end:
        words.append(f"Dates from {period.start or 'the beginning'} to {period.end or 'the last'}.")
    if other_places:
        words.append(f"{subject.record.location} itself is left out.")
    words.append(
        "Each tile is shown once, on the date on which it is nearest."
        if each == 1
        else f"Each tile is shown on at most {each} dates."
    )
    return " ".join(words)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("distance", "latitude", "longitude", "score", "p_value", "threshold"):
        table[name] = table[name].astype("float64")
    table["flagged"] = table["flagged"].astype("boolean")
    return table


@show.register
def _(result: SimilarSummary, out: Console) -> None:
    out.print(
        f"{result.tile_id} on {result.scene_id}, among {result.tiles} tiles of {result.scenes} scenes "
        f"({result.detector_version}):",
        markup=False,
        soft_wrap=True,
    )
    table = Table("distance", "scene", "tile", "score", "flagged", "verdict", box=None)
    for one in result.found:
        score = "–" if one["score"] is None else f"{one['score']:.3g}"
        flagged = {True: "yes", False: "no"}.get(one["flagged"], "–")
        names = escape(one["scene_id"]), escape(one["tile_id"])
        table.add_row(f"{one['distance']:.3f}", *names, score, flagged, escape(one["verdict"]))
    out.print(table)
    out.print(f"Open {result.report}", markup=False, soft_wrap=True)

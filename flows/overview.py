"""What the catalog holds, as a person reads it on a terminal. Needs no Prefect, so that it is there at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imagery.grid import Grid
from imagery.quarantine import QuarantineRecord
from tasks.overview import CatalogOverview, PlaceOverview, ReferenceOverview, SceneOverview

BAR = 20  # characters
LATEST = 10  # quarantined scenes that are shown unless all are asked for


def show_overview(found: CatalogOverview, out: Console, all_quarantined: bool) -> None:
    """Show places, the scenes that were asked for, and why others were quarantined.

    Args:
        found: What to show.
        out: Where.
        all_quarantined: Show every quarantined scene, not only the latest.
    """
    if not found.locations:
        out.print("No scene was found.")
        return
    out.print(_places(found.locations))
    if any(place.grid for place in found.locations):
        out.print()
        out.print(_grids(found.locations))
    if found.scenes:
        out.print()
        out.print(_scenes(found.scenes))
    if found.quarantined:
        out.print()
        _show_quarantined(found.quarantined, out, all_quarantined)


def show_references(overview: ReferenceOverview, out: Console) -> None:
    """Show what each place's reference is made of, and where it lies."""
    found = overview.references
    if not found:
        out.print("No place has a clear scene to make a reference of.")
        return
    table = _table("location", "scenes>", "first", "last", "covered>")
    for reference in found:
        days = [member.scene_id.split("/")[1] for member in reference.members]
        covered = _share(reference.valid_fraction)
        table.add_row(escape(reference.location), str(len(days)), days[0], days[-1], covered)
    out.print(table)
    out.print()
    for reference in found:
        out.print(str(reference.path), markup=False, highlight=False, soft_wrap=True)


def _places(places: Sequence[PlaceOverview]) -> Table:
    table = _table("location", "scenes>", "first", "last", "valid>", "cloud>", "quarantined>")
    for place in places:
        table.add_row(
            escape(place.location),
            str(place.scenes),
            str(place.first or "–"),
            str(place.last or "–"),
            _share(place.valid),
            _share(place.cloud),
            str(place.quarantined),
        )
    return table


def _grids(places: Sequence[PlaceOverview]) -> Table:
    table = _table("location", "grid", "pixel>", "tiles", "CRS")
    for place in places:
        if place.grid:
            size = f"{place.grid.width} × {place.grid.height} px"
            tiles = f"{place.tiles} of {place.tile_size} px" if place.tiles else "–"
            table.add_row(escape(place.location), size, f"{place.grid.resolution:.6g}", tiles, _crs(place.grid))
    return table


def _scenes(scenes: Sequence[SceneOverview]) -> Table:
    table = _table("scene", "valid>", "cloud>", "█ valid ▒ masked · no data", "masked")
    for scene in scenes:
        causes = ", ".join(f"{cause.replace('_', ' ')} {_share(share)}" for cause, share in scene.masked.items())
        table.add_row(escape(scene.scene_id), _share(scene.valid), _share(scene.cloud), _bar(scene), causes)
    return table


def _table(*columns: str) -> Table:
    """A table without lines. Columns with `>` are numbers; the first and the last may be folded."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        outer = name in (columns[0], columns[-1])
        table.add_column(
            name.rstrip(">"), justify="right" if name.endswith(">") else "left", no_wrap=not outer, overflow="fold"
        )
    return table


def _bar(scene: SceneOverview) -> str:
    valid, data = round(BAR * scene.valid), round(BAR * scene.data)
    return "█" * valid + "▒" * (data - valid) + "·" * (BAR - data)


def _show_quarantined(quarantined: Sequence[QuarantineRecord], out: Console, show_all: bool) -> None:
    out.print(f"{len(quarantined)} scenes are quarantined:" if len(quarantined) > 1 else "1 scene is quarantined:")
    for bad in quarantined if show_all else quarantined[-LATEST:]:
        out.print(f"  {bad.scene_id} ({bad.step}): {bad.reason}", markup=False, highlight=False, soft_wrap=True)
    if not show_all and len(quarantined) > LATEST:
        out.print(f"  and {len(quarantined) - LATEST} earlier ones: add --quarantined to see them all")


def _crs(grid: Grid | None) -> str:
    """An authority code, or the name in the WKT."""
    name = re.search(r'"([^"]+)"', grid.crs) if grid else None
    return "–" if grid is None else name[1] if name else grid.crs


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"

"""Where the page of a night lies, and its flags for map people. Needs no Prefect, so that it is there at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import geopandas as gpd
import pandas as pd

from configs import Workspace
from imagery.catalog import Catalog
from imagery.outputs.flags import GEOPACKAGE, flag_areas
from imagery.outputs.geopackage import write_geopackage


class NoReport(LookupError):
    """A night without a page, or without what was asked of it."""


@dataclass(frozen=True)
class NightReport:
    """A night that has a page.

    Attributes:
        night: Which one.
        report: The page.
        finished: Whether its record is there; else a run is at it, or was stopped.
        geopackage: Its flags as a GeoPackage; None when there is none.
    """

    night: date
    report: Path
    finished: bool
    geopackage: Path | None


def find_report(workspace: Workspace, night: date | None = None) -> NightReport:
    """The page of a night.

    Args:
        workspace: Where it is kept.
        night: Which one; None for the newest that has a page.

    Raises:
        NoReport: It has none.
    """
    nights = sorted(found for path in workspace.reports.glob("*/report.html") if (found := _night(path.parent.name)))
    if not nights:
        raise NoReport(f"no night in {workspace.root} has a page yet: run `tilewatch nightly` first")
    if night is not None and night not in nights:
        has = (
            f"there are {len(nights)}, from {nights[0]} to {nights[-1]}" if len(nights) > 1 else f"only {nights[0]} has"
        )
        raise NoReport(f"the night of {night} has no page: {has}")
    night = night or nights[-1]
    folder = workspace.reports / night.isoformat()
    package = folder / GEOPACKAGE
    return NightReport(
        night, folder / "report.html", (folder / "night.json").exists(), package if package.exists() else None
    )


def write_package(found: NightReport, workspace: Workspace) -> NightReport:
    """Write the flags of a night as a GeoPackage, from the files beside its page.

    Raises:
        NoReport: Its flags are gone, or the grid of one of its locations.
    """
    folder = found.report.parent
    if not (folder / "flags.parquet").exists():
        raise NoReport(f"{folder} has no flags.parquet: run `tilewatch nightly --night {found.night} --force`")
    flags = gpd.read_parquet(folder / "flags.parquet")
    hidden = folder / "suppressed.parquet"
    suppressed = gpd.read_parquet(hidden) if hidden.exists() else flags.iloc[:0]
    grids = {str(name): Catalog(workspace).grid(str(name)) for name in pd.unique(flags["location"])}
    lost = sorted(name for name, grid in grids.items() if grid is None)
    if lost:
        raise NoReport(f"the catalog has no grid of {', '.join(lost)}: run `tilewatch ingest` first")
    package = folder / GEOPACKAGE
    write_geopackage(
        package, flags, flag_areas(flags, {name: grid for name, grid in grids.items() if grid}), suppressed
    )
    return NightReport(found.night, found.report, found.finished, package)


def _night(name: str) -> date | None:
    """The date that a folder is named by; None when it is named otherwise."""
    try:
        found = date.fromisoformat(name)
    except ValueError:
        return None
    return found if found.isoformat() == name else None

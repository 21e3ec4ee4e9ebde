"""The command of the night's page."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from configs import Workspace
from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Folder, app, day, finish
from imagery.errors import ImageryError

if TYPE_CHECKING:
    from flows.report import NightReport


@app.command()
def report(
    workspace: Folder = DEFAULT_WORKSPACE,
    night: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Of this night; else of the newest that has a page.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    geopackage: Annotated[
        bool, typer.Option("--geopackage", help="Write the night's flags as a GeoPackage with styles, beside the page.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Where a night's page is; open it, or write its flags for QGIS."""
    from flows.report import NoReport, find_report, write_package

    def work() -> NightReport:
        place = Workspace(workspace)
        found = find_report(place, day(night))
        if geopackage:
            found = write_package(found, place)
        if open_page and not webbrowser.open(found.report.resolve().as_uri()):
            raise NoReport(f"there is no browser to open {found.report} in")
        return found

    def show(found: NightReport) -> None:
        out = Console()
        unfinished = "" if found.finished else " (its night is not finished: a run is at it, or was stopped)"
        out.print(f"{found.report}{unfinished}", markup=False, highlight=False, soft_wrap=True)
        if found.geopackage:
            out.print(str(found.geopackage), markup=False, highlight=False, soft_wrap=True)

    finish(work, show, (NoReport, ImageryError, OSError), as_json)

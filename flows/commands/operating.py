"""The commands of operation: what keeps a watch running, and what is wrong when it does not."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from configs import SettingsError, Workspace
from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Folder, Overrides, app, console, finish

if TYPE_CHECKING:
    from flows.doctor import Examination
    from flows.services.up import Addresses

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@app.command()
def up(
    config: Config = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    host: Annotated[
        str, typer.Option(help="Interface to listen on; one that others reach needs logins.")
    ] = "127.0.0.1",
    prefect_port: Annotated[int, typer.Option(min=1, max=65_535)] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65_535)] = 5000,
    cron: Annotated[str, typer.Option(envvar="TILEWATCH_CRON", help="When the nightly run starts.")] = "0 5 * * *",
    timezone: Annotated[str, typer.Option(envvar="TILEWATCH_TIMEZONE", help="Of that time.")] = "UTC",
    grace: Annotated[float, typer.Option(min=0, help="Seconds that runs may go on when it stops.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Start servers and worker, register the deployments, and keep all running until Ctrl-C."""
    from flows.services.registration import RegistrationFailed
    from flows.services.site import Site
    from flows.services.up import ServiceFailed
    from flows.services.up import up as run
    from tasks.exclusive import Busy

    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    def ready(addresses: Addresses) -> None:
        if as_json:
            print(json.dumps(asdict(addresses)), flush=True)
        else:
            out = Console()
            out.print(f"Prefect: {addresses.prefect}\nMLflow:  {addresses.mlflow}", highlight=False)
            out.print("Everything runs. Ctrl-C stops it.")

    def work() -> dict[str, bool]:
        if config is None:
            raise SettingsError("name the configuration: --config, or TILEWATCH_CONFIG")
        place = Workspace(workspace.resolve())
        site = Site(Path(config).resolve(), place, host, prefect_port, mlflow_port, cron, timezone)
        site.check()
        run(site, ready, stop, grace)
        return {"stopped": True}

    finish(work, lambda _: console.print("Stopped."), (Busy, RegistrationFailed, ServiceFailed, OSError), as_json)


@app.command()
def doctor(
    config: Config = None, overrides: Overrides = None, workspace: Folder = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """Look for what is wrong with the installation and the watch; exit status 1 when something is."""
    wrong = 0

    def work() -> Examination:
        nonlocal wrong
        from flows.doctor import examine

        found = examine(config, overrides or [], Workspace(workspace))
        wrong = found.wrong
        return found

    finish(work, _show, (), as_json)
    if wrong:
        raise typer.Exit(1)


def _show(found: Examination) -> None:
    """A line a finding, and below it what to do."""
    out = Console()
    for one in found.findings:
        out.print(f"[{COLOURS[one.state]}]{one.state:>8}[/] {one.about}: ", end="")
        out.print(one.found, markup=False, highlight=False, soft_wrap=True)
        if one.advice:
            out.print(f"           {one.advice}", markup=False, highlight=False, soft_wrap=True)
    out.print("Nothing is wrong." if not found.wrong else f"{found.wrong} wrong.")

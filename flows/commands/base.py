"""What commands share: the app, their options, and how each runs: settings, work, result, exit status."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from configs import SettingsError, Workspace, load_settings
from tasks import disk

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import NightRequest, Watch

app = typer.Typer(
    name="tilewatch",
    help="Watches places on Earth for anomalies: scenes in, a short list of unusual tiles out, every morning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="TILEWATCH_CONFIG", help="YAML file of settings.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting that differs, e.g. train.epochs=5.")]
Folder = Annotated[
    Path, typer.Option("--workspace", "-w", envvar="TILEWATCH_WORKSPACE", help="Everything is kept here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The last line of standard output is one JSON object.")]
Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD")]

console = Console(stderr=True)
interrupted = Event()
STOPPED = "stopped; what is finished is kept, and the same command goes on from there"


def interrupt(*_: object) -> None:
    """Stop on Ctrl-C. The terminal sends it to Prefect's server as well, whose silence is then no failure."""
    interrupted.set()
    logging.disable(logging.CRITICAL)
    raise KeyboardInterrupt


def run(
    work: Callable[[Watch], Any],
    config: Path | None,
    overrides: list[str] | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Run a command that needs Prefect, show its result, and end with the right status."""
    try:
        load_settings(config, overrides or ())
    except SettingsError as error:
        _fail(str(error), 2, as_json)
    try:
        disk.check(Workspace(workspace))  # before Prefect and MLflow fail for it in words of their own
        _at_home(Workspace(workspace))
    except disk.WorkspaceUnusable as error:
        _fail(str(error), 1, as_json)
    except OSError as error:
        _fail(f"the workspace {workspace} cannot be made: {error.strerror}", 1, as_json)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows import logs
    from flows.parameters import Watch

    logs.set_up(console)

    def watched() -> Any:
        watch = Watch(config=str(config) if config else None, workspace=str(workspace), overrides=overrides or [])
        # Only of runs of deployments a sign of life is expected, and to end the thread that gives it takes a second.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            return work(watch)

    def show(result: Any) -> None:
        from flows import console as words

        words.show(result, Console())

    finish(watched, show, logs.EXPECTED, as_json)


def finish(
    work: Callable[[], Any], show: Callable[[Any], None], expected: tuple[type[Exception], ...], as_json: bool
) -> None:
    """Do the work of a command, show its result, and end with the right status.

    Args:
        work: Gives the result.
        show: Shows it to a person.
        expected: Failures whose message says all there is to say; any other one is shown with its trace.
        as_json: Print the result as JSON instead.
    """
    try:
        result = work()
    except SettingsError as error:
        _fail(str(error), 2, as_json)
    except ValidationError as error:
        _fail("; ".join(_problem(problem["loc"], problem["msg"]) for problem in error.errors()), 2, as_json)
    except KeyboardInterrupt:
        _fail(STOPPED, 130, as_json)
    except Exception as error:
        if interrupted.is_set():
            _fail(STOPPED, 130, as_json)
        if not isinstance(error, expected):
            logging.getLogger(__name__).exception("unexpected failure")
        _fail(str(error), 1, as_json)
    if as_json:
        print(json.dumps(_plain(result), ensure_ascii=False))
    else:
        show(result)


def day(text: str | None) -> date | None:
    """A date of the command line.

    Raises:
        SettingsError: It is none.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise SettingsError(f"{text!r} is not a date of the form YYYY-MM-DD") from None


def box(text: str | None) -> tuple[float, float, float, float] | None:
    """WEST,SOUTH,EAST,NORTH in degrees.

    Raises:
        SettingsError: It is none.
    """
    if text is None:
        return None
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        example = "--bbox 23.5,46.9,24,47.3"
        raise SettingsError(f"{text!r} is not a box WEST,SOUTH,EAST,NORTH in degrees, e.g. {example}") from None
    return west, south, east, north


def nights(since: str | None, until: str | None) -> NightRequest:
    """The nights from one date to another."""
    from flows.parameters import NightRequest

    return NightRequest(since=day(since), until=day(until))


def _at_home(workspace: Workspace) -> None:
    """Without a server of its own, Prefect keeps its database in the workspace. To be called before it is imported."""
    if "PREFECT_API_URL" not in os.environ and "PREFECT_HOME" not in os.environ:
        workspace.prefect.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(workspace.prefect.resolve())
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


def _fail(words: str, status: int, as_json: bool) -> NoReturn:
    kind = {2: "wrong configuration", 130: "interrupted"}.get(status, "failed")
    console.print(f"[bold red]{kind}:[/] ", end="")
    console.print(words, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"error": words, "status": status}, ensure_ascii=False))
    raise typer.Exit(status)


def _plain(result: Any) -> Any:
    """A result as JSON knows it."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = dataclasses.asdict(result)
    return json.loads(json.dumps(result, default=_text))


def _text(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)


def _problem(where: tuple[int | str, ...], words: str) -> str:
    """What is wrong with a value, with its name unless it is wrong only beside others."""
    words = words.removeprefix("Value error, ")
    return f"{'.'.join(map(str, where))}: {words}" if where else words

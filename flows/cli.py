"""The command line. Exit status: 0 done, 1 the work failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from configs import Period, SettingsError, Workspace, load_settings
from configs.workspace import DEFAULT_WORKSPACE
from imagery.errors import ImageryError

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import NightRequest, Watch

app = typer.Typer(
    name="tilewatch",
    help="Watches places on Earth for anomalies: scenes in, a short list of unusual tiles out, every morning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(stderr=True)
interrupted = Event()
STOPPED = "stopped; what is finished is kept, and the same command goes on from there"

Config = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="TILEWATCH_CONFIG", help="YAML file of settings.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting that differs, e.g. train.epochs=5.")]
Folder = Annotated[
    Path, typer.Option("--workspace", "-w", envvar="TILEWATCH_WORKSPACE", help="Everything is kept here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The last line of standard output is one JSON object.")]
Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD")]


@app.command()
def ingest(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    until: Day = None,
    retry_quarantined: Annotated[bool, typer.Option(help="Try quarantined scenes again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Enter new and changed scenes in the catalog."""

    def work(watch: Watch) -> Any:
        from flows.ingest import ingest as flow

        return flow(watch, _day(until), retry_quarantined)

    _run(work, config, overrides, workspace, as_json)


@app.command()
def validate(
    config: Config = None, overrides: Overrides = None, workspace: Folder = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """Check every scene of the catalog; those that fail a critical check are quarantined."""

    def work(watch: Watch) -> Any:
        from flows.validate import validate as flow

        return flow(watch)

    _run(work, config, overrides, workspace, as_json)


@app.command()
def train(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    reason: Annotated[str, typer.Option(help="Why; kept with the model.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ingest, validate, train, calibrate, and make the result the champion."""

    def work(watch: Watch) -> Any:
        from flows.parameters import TrainRequest
        from flows.train import train as flow

        return flow(watch, TrainRequest(reason=reason))

    _run(work, config, overrides, workspace, as_json)


@app.command()
def tune(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    trials: Annotated[int | None, typer.Option(help="Settings that are tried, with those tried before.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no further trial is begun.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search for settings of the network that find more injected anomalies, and write them as a preset."""

    def work(watch: Watch) -> Any:
        from flows.parameters import TuneRequest
        from flows.tune import tune as flow

        return flow(watch, TuneRequest(trials=trials, timeout=timeout))

    _run(work, config, overrides, workspace, as_json)


@app.command()
def calibrate(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    since: Day = None,
    until: Day = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Share of normal tiles that may be flagged.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set the champion's threshold anew."""

    def work(watch: Watch) -> Any:
        from flows.calibrate import CalibrateRequest
        from flows.calibrate import calibrate as flow

        return flow(watch, CalibrateRequest(start=_day(since), end=_day(until), false_alarm_rate=false_alarm_rate))

    _run(work, config, overrides, workspace, as_json)


@app.command()
def nightly(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    night: Day = None,
    since: Day = None,
    until: Day = None,
    force: Annotated[bool, typer.Option(help="Report finished nights again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ingest, check, score and report all nights that are due, oldest first."""

    def work(watch: Watch) -> Any:
        from flows.nightly import NightlySummary, nothing_to_do
        from flows.nightly import nightly as flow
        from flows.parameters import NightRequest

        request = NightRequest(night=_day(night), since=_day(since), until=_day(until), force=force)
        settings, place = watch.open()
        version = nothing_to_do(settings, place, request)
        return NightlySummary(version) if version else flow(watch, request)

    _run(work, config, overrides, workspace, as_json)


@app.command()
def drift(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    since: Day = None,
    until: Day = None,
    as_json: AsJson = False,
) -> None:
    """Compare the champion's finished nights with its training."""

    def work(watch: Watch) -> Any:
        from flows.drift import drift as flow

        return flow(watch, _nights(since, until))

    _run(work, config, overrides, workspace, as_json)


@app.command()
def latents(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    since: Day = None,
    until: Day = None,
    as_json: AsJson = False,
) -> None:
    """Write the posterior means of every tile as Parquet."""

    def work(watch: Watch) -> Any:
        from flows.latents import latents as flow

        return flow(watch, _nights(since, until))

    _run(work, config, overrides, workspace, as_json)


@app.command()
def evaluate(
    truth: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Masks (a GeoTIFF, a folder, or a pattern with {location} and {date}), polygons or labels of tiles.",
        ),
    ],
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    truth_kind: Annotated[
        Literal["auto", "mask", "polygons", "labels"], typer.Option(help="What the truth is.")
    ] = "auto",
    complete: Annotated[
        bool, typer.Option("--complete", help="What the truth does not mention is normal, instead of unknown.")
    ] = False,
    since: Day = None,
    until: Day = None,
    version: Annotated[str, typer.Option(help="The detector, e.g. v3.")] = "champion",
    score: Annotated[str, typer.Option(help="The score that counts, or the name of another one.")] = "score",
    against: Annotated[
        str | None, typer.Option(metavar="SCORE|VERSION", help="Compare with another score or version.")
    ] = None,
    positive_share: Annotated[
        float, typer.Option(help="A tile shows an event when more of its valid pixels do.")
    ] = 0.1,
    negative_share: Annotated[float, typer.Option(help="A tile shows none when at most this share does.")] = 0.0,
    repetitions: Annotated[int, typer.Option(help="How often the bootstrap draws.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of these draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Hold scores in the workspace against a known truth: AP, AUROC, PRO, recall …, with intervals."""
    shares = {"positive_share": positive_share, "negative_share": negative_share}
    chosen = {"truth_kind": truth_kind, "complete": complete, "version": version, "score": score, "against": against}

    def work(watch: Watch) -> Any:
        from flows.evaluate import EvaluateRequest
        from flows.evaluate import evaluate as flow

        drawn = {"repetitions": repetitions, "seed": seed}
        period = {"since": _day(since), "until": _day(until)}
        return flow(watch, EvaluateRequest(truth=truth, **chosen, **shares, **drawn, **period))

    _run(work, config, overrides, workspace, as_json)


@app.command()
def catalog(
    workspace: Folder = DEFAULT_WORKSPACE,
    location: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    since: Day = None,
    until: Day = None,
    bbox: Annotated[
        str | None,
        typer.Option(metavar="WEST,SOUTH,EAST,NORTH", help="Only locations that touch this box, in degrees."),
    ] = None,
    dates: Annotated[
        bool, typer.Option("--dates", help="Show every scene: how much of it is valid, and why not.")
    ] = False,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Show all quarantined scenes.")] = False,
    as_json: AsJson = False,
) -> None:
    """What the catalog holds, place by place, and what was quarantined and why."""

    def work() -> Any:
        from tasks.overview import overview

        period = Period(start=_day(since), end=_day(until))
        return overview(Workspace(workspace), location or (), period, _box(bbox), dates)

    def show(result: Any) -> None:
        from flows.overview import show_overview

        show_overview(result, Console(), quarantined)

    _finish(work, show, (ImageryError, OSError), as_json)


@app.command()
def reference(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    location: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    night: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="As of this night; else after the last scene.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What each place normally looks like: find its reference, or build it."""

    def work() -> Any:
        from tasks.overview import references

        return references(load_settings(config, overrides or ()), Workspace(workspace), location or (), _day(night))

    def show(result: Any) -> None:
        from flows.overview import show_references

        show_references(result, Console())

    _finish(work, show, (ImageryError, OSError), as_json)


@app.command()
def export(
    to: Annotated[Literal["onnx", "openvino"], typer.Option("--to", help="The runtime.")],
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    version: Annotated[str, typer.Option(help="The detector, e.g. v3.")] = "champion",
    precision: Annotated[Literal["float32", "bf16"], typer.Option(help="Of the arithmetic.")] = "float32",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Else in the workspace.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a detector as ONNX or OpenVINO, compared with torch, for machines without torch."""

    def work(watch: Watch) -> Any:
        from tasks.export import export_detector

        settings, place = watch.open()
        return export_detector(settings, place, to, version, precision, out)

    _run(work, config, overrides, workspace, as_json)


@app.command()
def demo(
    workspace: Folder = DEFAULT_WORKSPACE / "demo",
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(help="Another seed, another landscape.")] = 7,
    as_json: AsJson = False,
) -> None:
    """The whole story on simulated scenes: three places, eighteen months, twenty nights, a drift and a retrain."""

    def work(watch: Watch) -> Any:
        from flows.demo import demo as run_demo

        return run_demo(watch, seed)

    _run(work, None, overrides, workspace, as_json)


def main() -> None:
    """Entry point of the `tilewatch` command."""
    # Ended in the ordinary way, so that Prefect's server of this run ends as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, _interrupt)
    app()


def _interrupt(*_: object) -> None:
    """Stop on Ctrl-C. The terminal sends it to Prefect's server as well, whose silence is then no failure."""
    interrupted.set()
    logging.disable(logging.CRITICAL)
    raise KeyboardInterrupt


def _run(
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
        _at_home(Workspace(workspace))
    except OSError as error:
        _fail(f"the workspace {workspace} cannot be made: {error.strerror}", 1, as_json)
    from flows import logs
    from flows.parameters import Watch

    logs.set_up(console)

    def watched() -> Any:
        return work(Watch(config=str(config) if config else None, workspace=str(workspace), overrides=overrides or []))

    def show(result: Any) -> None:
        from flows import console as words

        words.show(result, Console())

    _finish(watched, show, logs.EXPECTED, as_json)


def _finish(
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


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise SettingsError(f"{text!r} is not a date of the form YYYY-MM-DD") from None


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        example = "--bbox 23.5,46.9,24,47.3"
        raise SettingsError(f"{text!r} is not a box WEST,SOUTH,EAST,NORTH in degrees, e.g. {example}") from None
    return west, south, east, north


def _nights(since: str | None, until: str | None) -> NightRequest:
    from flows.parameters import NightRequest

    return NightRequest(since=_day(since), until=_day(until))


if __name__ == "__main__":
    main()

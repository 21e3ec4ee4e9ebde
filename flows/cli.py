"""The command line. Exit status: 0 done, 1 the work failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C."""

from __future__ import annotations

import signal
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from configs import Period, SettingsError, Workspace, load_settings
from configs.workspace import DEFAULT_WORKSPACE
from flows.command import finish, interrupt, run
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

    run(work, config, overrides, workspace, as_json)


@app.command()
def validate(
    config: Config = None, overrides: Overrides = None, workspace: Folder = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """Check every scene of the catalog; those that fail a critical check are quarantined."""

    def work(watch: Watch) -> Any:
        from flows.validate import validate as flow

        return flow(watch)

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    finish(work, show, (ImageryError, OSError), as_json)


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

    finish(work, show, (ImageryError, OSError), as_json)


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

    run(work, config, overrides, workspace, as_json)


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

    run(work, None, overrides, workspace, as_json)


def main() -> None:
    """Entry point of the `tilewatch` command."""
    # Ended in the ordinary way, so that Prefect's server of this run ends as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, interrupt)
    app()


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

"""Commands that look at what is there, and take it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from configs import Period, Workspace, load_settings
from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Day, Folder, Overrides, app, box, day, finish, run
from imagery.errors import ImageryError

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import Watch


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
        period = {"since": day(since), "until": day(until)}
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

        period = Period(start=day(since), end=day(until))
        return overview(Workspace(workspace), location or (), period, box(bbox), dates)

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

        return references(load_settings(config, overrides or ()), Workspace(workspace), location or (), day(night))

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

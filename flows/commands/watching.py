"""The commands of a watch: from scenes to flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Day, Folder, Overrides, app, day, nights, run

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import Watch


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

        return flow(watch, day(until), retry_quarantined)

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
    """Ingest, validate, train, calibrate, and make the result the champion when it is better."""

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

        return flow(watch, CalibrateRequest(start=day(since), end=day(until), false_alarm_rate=false_alarm_rate))

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

        request = NightRequest(night=day(night), since=day(since), until=day(until), force=force)
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

        return flow(watch, nights(since, until))

    run(work, config, overrides, workspace, as_json)

"""Commands of the latents: write those of every tile, and find tiles that are alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs import Period
from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Day, Folder, Overrides, app, day, nights, run

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import Watch

latents = typer.Typer()
app.add_typer(latents, name="latents")


@latents.callback(invoke_without_command=True)
def write(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    since: Day = None,
    until: Day = None,
    as_json: AsJson = False,
) -> None:
    """Write the posterior means of every tile as Parquet; or find tiles that are alike."""
    if context.invoked_subcommand:
        _nothing_before(context)
        return

    def work(watch: Watch) -> Any:
        from flows.latents import latents as flow

        return flow(watch, nights(since, until))

    run(work, config, overrides, workspace, as_json)


@latents.command()
def similar(
    tile_id: Annotated[str, typer.Argument(metavar="TILE_ID", help="<location>-r<row>-c<column>, as in every table.")],
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    night: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The tile as of this night; else on its last scene.")
    ] = None,
    scene: Annotated[str | None, typer.Option(metavar="SCENE_ID", help="The tile on this scene.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="So many tiles.")] = 20,
    version: Annotated[str, typer.Option(help="The detector, e.g. v3.")] = "champion",
    since: Day = None,
    until: Day = None,
    other_places: Annotated[bool, typer.Option("--other-places", help="Leave out the tile's own location.")] = False,
    dates: Annotated[int, typer.Option(min=1, help="Show a tile on so many dates at most, the nearest first.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The page; else in the workspace.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find more like this: the tiles nearest to one in latent space, across places and dates, as a page."""

    def work(watch: Watch) -> Any:
        from flows.similar import similar as find

        period = Period(start=day(since), end=day(until))
        return find(watch, tile_id, scene, day(night), count, version, period, other_places, dates, out)

    run(work, config, overrides, workspace, as_json)


def _nothing_before(context: typer.Context) -> None:
    """Refuse options that stand before the name of the command: they would be of no effect."""
    sources = [context.get_parameter_source(name) for name in context.params]
    if any(source and source.name == "COMMANDLINE" for source in sources):
        raise typer.BadParameter(f"options of `tilewatch latents {context.invoked_subcommand}` stand after its name")

"""Commands of the review: what people have said of the tiles that they were asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Folder, Overrides, app, run

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import Watch

review = typer.Typer(help="What people have said of the flags in MLflow.", no_args_is_help=True)
app.add_typer(review, name="review")


@review.command()
def sync(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    everything: Annotated[bool, typer.Option("--all", help="Look at all that was ever asked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read people's answers from MLflow into the verdicts; the nightly run begins with the same."""

    def work(watch: Watch) -> Any:
        from flows.review import ReviewRequest, synced

        return synced(*watch.open(), ReviewRequest(everything=everything))

    run(work, config, overrides, workspace, as_json)


@review.command(name="list")
def list_reviews(
    config: Config = None, overrides: Overrides = None, workspace: Folder = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """The verdicts, and the nights whose questions wait for an answer."""

    def work(watch: Watch) -> Any:
        from flows.review import reviews

        return reviews(watch)

    run(work, config, overrides, workspace, as_json)

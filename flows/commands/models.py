"""Commands of the registry: which detectors there are, and which of them scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Folder, Overrides, app, run

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import Watch

models = typer.Typer(help="Which detectors there are, and which of them scores.", no_args_is_help=True)
app.add_typer(models, name="models")

Reason = Annotated[str, typer.Option(help="Why; kept with the model.")]


@models.command(name="list")
def list_models(
    config: Config = None, overrides: Overrides = None, workspace: Folder = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """All detectors, the newest first: when and why they were made and promoted, and how they compared."""

    def work(watch: Watch) -> Any:
        from flows.models import models as listed

        return listed(watch)

    run(work, config, overrides, workspace, as_json)


@models.command()
def promote(
    version: Annotated[str, typer.Argument(help="challenger, or e.g. v3.")] = "challenger",
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a detector the champion, which scores from the next night on."""
    _promote(version, reason, config, overrides, workspace, as_json)


@models.command()
def rollback(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Put back the champion before this one; done again, it goes back further."""
    _promote("previous", reason, config, overrides, workspace, as_json)


def _promote(version: str, reason: str, *options: Any) -> None:
    def work(watch: Watch) -> Any:
        from flows.models import PromoteRequest, promoted

        return promoted(watch, PromoteRequest(version=version, reason=reason))

    run(work, *options)

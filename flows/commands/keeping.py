"""Commands of upkeep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.workspace import DEFAULT_WORKSPACE
from flows.commands.base import AsJson, Config, Folder, Overrides, app, run

if TYPE_CHECKING:  # Prefect takes seconds to import, and must not be before PREFECT_HOME is set
    from flows.parameters import Watch


@app.command()
def prune(
    config: Config = None,
    overrides: Overrides = None,
    workspace: Folder = DEFAULT_WORKSPACE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what is kept longer than `retention` says; without such settings, nothing."""

    def work(watch: Watch) -> Any:
        from flows.prune import PruneRequest
        from flows.prune import prune as flow

        return flow(watch, PruneRequest(dry_run=dry_run))

    run(work, config, overrides, workspace, as_json)

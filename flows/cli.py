"""The command line. Exit status: 0 done, 1 the work failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from flows.commands.base import app, interrupt

# Modules of flows.commands, in the order in which `--help` lists them.
for group in ("watching", "reporting", "latents", "looking", "review", "operating", "models", "keeping"):
    import_module(f"flows.commands.{group}")


def main() -> None:
    """Entry point of the `tilewatch` command."""
    # Ended in the ordinary way, so that Prefect's server of this run ends as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, interrupt)
    app()


if __name__ == "__main__":
    main()

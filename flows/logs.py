"""What the command line shows of the libraries' logs."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler

from imagery.errors import ImageryError
from tasks.dataset import NothingToTrain
from tasks.registry import NoChampion
from vae.errors import VaeError

# Failures whose message says all there is to say; any other one is shown with its trace.
EXPECTED = (ImageryError, NothingToTrain, NoChampion, VaeError, OSError)


class Once(logging.Filter):
    """Drops what the command line says itself, or what is true of every task here.

    Prefect logs the trace of a failed flow, which is shown once and only when the failure is not an expected one. It
    also warns at each task that a time limit cannot break into a blocking call: scenes are read in many short calls.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record that is left out."""
        text = record.getMessage()
        return not text.startswith(("Encountered exception during execution", "Timeout of"))


def set_up(console: Console) -> None:
    """Warnings to the console, as plain lines where it is no terminal."""
    handler = RichHandler(console=console, show_path=False) if console.is_terminal else logging.StreamHandler()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.task_engine"):
        logging.getLogger(name).addFilter(Once())

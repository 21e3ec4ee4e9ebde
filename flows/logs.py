"""What the command line shows of the libraries' logs."""

from __future__ import annotations

import logging
import warnings

from rich.console import Console
from rich.logging import RichHandler

from imagery.errors import ImageryError
from tasks.dataset import NothingToTrain
from tasks.registry import NoChampion
from tasks.review.verdicts import VerdictError
from tasks.similar import SimilarError
from vae.errors import VaeError

# Failures whose message says all there is to say; any other one is shown with its trace.
EXPECTED = (ImageryError, NothingToTrain, NoChampion, SimilarError, VaeError, VerdictError, OSError)


class Once(logging.Filter):
    """Drops the trace of a failed flow: the command line shows it itself, and only when the failure is unexpected."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record that is left out."""
        return not record.getMessage().startswith("Encountered exception during execution")


def set_up(console: Console) -> None:
    """Warnings to the console, as plain lines where it is no terminal."""
    handler = RichHandler(console=console, show_path=False) if console.is_terminal else logging.StreamHandler()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("prefect.flow_runs").addFilter(Once())
    warnings.filterwarnings("ignore", "Dataset has no geotransform")  # its scene is quarantined, with the reason

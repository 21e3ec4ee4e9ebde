"""What libraries are asked to do: not report home, advertise, fork helpers or spin, and to wait as long as is wise."""

from __future__ import annotations

import os

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is away is given up after some seconds, instead of minutes: a night goes on without it.
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Threads that wait for work soon sleep instead of spinning: with other work on the same cores, spinning made
    # training ten times slower. On an idle machine this costs a tenth (docs/performance.md).
    "GOMP_SPINCOUNT": "1000",
    # NumPy's threads spin as well, and cannot be asked not to. Matrices are small here, and scenes run side by side:
    # with one thread each nothing is lost, and sums come out the same whatever the machine.
    "OPENBLAS_NUM_THREADS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A server of a run's own may take its time to start on a busy machine: longer than the 20 s it is given.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def apply() -> None:
    """Set the variables that are not set. To be called before the libraries are imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)

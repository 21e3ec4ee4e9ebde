"""No test sees the developer's own settings and servers, and no library reports home."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from configs import quiet

KEPT = {"TILEWATCH_SHARED_DATA"}  # where the public scenes lie

for name in list(os.environ):
    if name.startswith(("TILEWATCH_", "PREFECT_", "MLFLOW_")) and name not in KEPT:
        del os.environ[name]
os.environ["MPLBACKEND"] = "Agg"
quiet.apply()
settings.register_profile("tilewatch", deadline=None)  # a busy machine is no failure
settings.load_profile("tilewatch")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The address of a Prefect server with a database of its own, which the flows of this process use as well."""
    from prefect.settings import get_current_settings  # takes seconds, and most tests need none
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(get_current_settings().api.url)

"""No test sees the developer's own settings and servers, and no library reports home."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from configs import Workspace, quiet

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A headless Chromium otherwise looks for updates and components by itself.
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
KEPT = {"TILEWATCH_SHARED_DATA"}  # where the public scenes lie

for name in list(os.environ):
    if name.startswith(("TILEWATCH_", "PREFECT_", "MLFLOW_")) and name not in KEPT:
        del os.environ[name]
os.environ["MPLBACKEND"] = "Agg"
quiet.apply()
settings.register_profile("tilewatch", deadline=None)  # a busy machine is no failure
settings.load_profile("tilewatch")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The address of a Prefect server with a database of its own, which the flows of this process use as well."""
    from prefect.settings import (  # takes seconds, and most tests need none
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        get_current_settings,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    silent = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # to end the thread of signs of life takes each flow a second
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(silent):
        yield str(get_current_settings().api.url)


@pytest.fixture(scope="module")  # not longer: while it is there, nothing else in the process can run an event loop
def browser() -> Iterator[Browser]:
    """A headless Chromium. Without one tests are skipped, but in CI they fail."""
    executable = shutil.which("chromium")
    if executable is None:
        message = "no `chromium` on the PATH: install it (Debian: apt-get install chromium) to test pages in a browser"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=CHROMIUM)
        yield chromium
        chromium.close()

"""An object store, and short waits between tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from imagery.sources import remote, stac_catalogs, storage
from tests.servers import object_store


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of waiting would make minutes of tests."""
    for module in (storage, remote, stac_catalogs):
        monkeypatch.setattr(module, "FIRST_WAIT", 0.02)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def use_endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the environment name an object store."""

    def use(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return use

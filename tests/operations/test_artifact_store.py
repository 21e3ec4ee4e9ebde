"""Detectors and artifacts of nights in an S3 store behind the MLflow server: a run needs no key of the store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import psutil
import pytest

from configs import Settings, Workspace
from configs.schema import TrackingSettings
from tasks import registry, tracking
from tests.places import watched
from tests.servers import free_port, object_store, upload

pytestmark = pytest.mark.servers

BUCKET = "tilewatch"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    with object_store(tmp_path) as endpoint:
        empty = tmp_path / "nothing"
        empty.mkdir()
        upload(endpoint, BUCKET, empty)
        yield endpoint


@pytest.fixture
def tracking_server(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow server that keeps artifacts in the store; it alone has the keys."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", url.rpartition(":")[2], "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    before = mlflow.get_tracking_uri()
    with (tmp_path / "mlflow.log").open("w") as log:
        server = psutil.Popen(
            command, cwd=tmp_path, env=os.environ | keys | {"MLFLOW_S3_ENDPOINT_URL": store},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        end = time.monotonic() + 300
        while not healthy(url):
            assert server.is_running(), (tmp_path / "mlflow.log").read_text()
            assert time.monotonic() < end, "MLflow does not answer"
            time.sleep(0.2)
        yield url
    finally:
        mlflow.set_tracking_uri(before)
        family = [server, *server.children(recursive=True)]
        server.terminate()
        for one in psutil.wait_procs(family, timeout=15)[1]:
            one.kill()


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def kept(endpoint: str) -> str:
    """What the store says it holds."""
    return httpx.get(f"{endpoint}/{BUCKET}", params={"list-type": "2"}, timeout=10).text


def test_detectors_and_pages_go_to_the_store_and_come_from_it(tmp_path: Path, store: str, tracking_server: str) -> None:
    place = watched(tmp_path / "place")
    settings: Settings = place.settings.model_copy(update={"tracking": TrackingSettings(uri=tracking_server)})
    with tracking.run(settings, place.workspace, "nightly", "night 2020-08-15", {"night": "2020-08-15"}) as run:
        mlflow.log_text("<h1>flags</h1>", "report.html")
        version = registry.register(place.detector, settings, "first")
    elsewhere = Workspace(tmp_path / "another-machine")

    folder, found = registry.champion(settings, elsewhere)

    assert found == version
    assert folder.is_relative_to(elsewhere.root)
    place.detector.save(tmp_path / "expected")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "expected").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == expected
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.html") == "<h1>flags</h1>"
    objects = kept(store)
    assert f"{run.info.run_id}/artifacts/report.html" in objects
    assert "artifacts/detector/" in objects
    assert not list(tmp_path.glob("mlartifacts*"))

"""`tilewatch doctor`: every fault it knows is put there, and it says so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import flows.doctor as doctor
from configs import Workspace
from flows.doctor import Finding, examine
from tests.servers import free_port


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "scenes" / "meadow").mkdir(parents=True)
    path = tmp_path / "meadow.yaml"
    path.write_text("name: meadow\nsource: {root: scenes}\n")
    return path


def look(config: Path | None, workspace: Path, *overrides: str) -> dict[str, Finding]:
    return {one.about: one for one in examine(config, list(overrides), Workspace(workspace)).findings}


def test_nothing_is_wrong_with_this_installation(config: Path, tmp_path: Path):
    found = look(config, tmp_path / "workspace")

    assert [one for one in found.values() if one.state == "wrong"] == []
    assert found["champion"].advice == "train one: tilewatch train"
    assert {"Python", "fastapi", "sqlalchemy", "pandas", "torch's device", "rasters", "disk"} <= set(found)
    assert not (tmp_path / "workspace").exists()  # it only looked


def test_nights_that_wait_for_mlflow_are_told(config: Path, tmp_path: Path):
    pending = Workspace(tmp_path / "workspace").pending
    pending.mkdir(parents=True)
    for day in range(1, 5):
        (pending / f"2025-07-0{day}.json").touch()

    found = look(config, tmp_path / "workspace")["nights"]

    assert found.state == "warning"
    assert found.found == "4 not in MLflow yet: 2025-07-01, 2025-07-02, 2025-07-03 …"


def test_a_combination_that_fails_silently_is_found(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = metadata.version
    monkeypatch.setattr(doctor, "version", lambda name: "2.1.0" if name == "sqlalchemy" else real(name))

    found = look(config, tmp_path / "workspace")["sqlalchemy"]

    assert found.state == "wrong"
    assert found.found.startswith("2.1.0, where ")
    assert "pip install 'sqlalchemy<2.1" in found.advice


@pytest.mark.parametrize(
    ("overrides", "about", "words"),
    [
        (["train.epochs=0"], "configuration", "train.epochs = 0"),
        (["source.root=/nowhere"], "source", "/nowhere is not there"),
        ([f"tracking.uri=http://127.0.0.1:{free_port()}"], "MLflow", "does not answer"),
    ],
)
def test_a_watch_that_cannot_work_is_wrong(config: Path, tmp_path: Path, overrides: list[str], about: str, words: str):
    found = look(config, tmp_path / "workspace", *overrides)[about]

    assert found.state == "wrong"
    assert words in found.found
    assert found.advice


def test_a_prefect_server_that_is_away_is_wrong(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")

    assert look(config, tmp_path / "workspace")["Prefect"].state == "wrong"


@pytest.mark.parametrize(("free", "state"), [(0.5e9, "wrong"), (5e9, "warning"), (50e9, "ok")])
def test_a_full_disk_is_seen_in_time(
    config: Path, tmp_path: Path, free: float, state: str, monkeypatch: pytest.MonkeyPatch
):
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=int(free)))

    assert look(config, tmp_path / "workspace")["disk"].state == state


def test_a_champion_that_cannot_be_loaded_is_wrong(config: Path, tmp_path: Path):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "mlflow.db").write_text("this is no database")

    found = look(config, workspace)["champion"]

    assert found.state == "wrong"
    assert "tilewatch models rollback" in found.advice


def test_a_failing_look_does_not_end_the_examination():
    def look() -> str:
        raise ImportError("libGL.so.1: cannot open shared object file")

    found = doctor._tried("rasters", look, "install it")

    assert found == Finding("rasters", "wrong", "ImportError: libGL.so.1: cannot open shared object file", "install it")


@pytest.mark.slow
def test_the_exit_status_says_whether_anything_is_wrong(config: Path, tmp_path: Path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.cli", "doctor", "-c", str(config), "-w", str(tmp_path / "ws")]
        repository = Path(__file__).parents[2]
        return subprocess.run([*command, "--json", *arguments], cwd=repository, capture_output=True, text=True)

    well, ill = run(), run("--set", "source.root=/nowhere")

    assert well.returncode == 0, well.stdout + well.stderr
    assert ill.returncode == 1
    states = {one["about"]: one["state"] for one in json.loads(ill.stdout.splitlines()[-1])["findings"]}
    assert [about for about, state in states.items() if state == "wrong"] == ["source"]

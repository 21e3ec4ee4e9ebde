"""Prefect and MLflow on PostgreSQL: four processes write at once, and nothing is lost or refused.

`make test` installs PostgreSQL from Debian's packages where it is not there.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil
import psycopg2
import pytest

from tests.servers import free_port

pytestmark = pytest.mark.servers

REPOSITORY = Path(__file__).parents[2]
WRITERS, RUNS, TASKS, METRICS = 4, 3, 4, 25
PASSWORD = "a-test-only"
# What the databases, the two servers or the writers say when they get in each other's way.
TROUBLE = (
    "deadlock",
    "is locked",
    "could not serialize",
    "lock timeout",
    "OperationalError",
    "too many clients",
    "PANIC",
)


@dataclass(frozen=True)
class Servers:
    """Both servers, and the folder of their logs."""

    prefect: str
    mlflow: str
    folder: Path
    database: str

    @property
    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))}


def programs() -> Path | None:
    """Where PostgreSQL's programs lie; Debian does not put them on the PATH."""
    found = shutil.which("initdb")
    candidates = [Path(found)] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return candidates[-1].parent if candidates else None


@contextmanager
def postgres(logs: Path) -> Iterator[str]:
    """A PostgreSQL server of this machine with the databases `prefect` and `mlflow`: its address without a scheme.

    It refuses to run as root, and then gets a folder that another user can reach.
    """
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed: make test installs it")
    user = "nobody" if os.getuid() == 0 else getpass.getuser()
    as_user: dict[str, Any] = {}
    root = Path(tempfile.mkdtemp(prefix="tilewatch-postgres-"))
    if os.getuid() == 0:
        known = pwd.getpwnam(user)
        os.chown(root, known.pw_uid, known.pw_gid)
        as_user = {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []}
    secret = root / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data, port = root / "data", free_port()
    initdb = [where / "initdb", "-D", data, "-U", "tilewatch", "--auth=scram-sha-256", f"--pwfile={secret}"]
    made = subprocess.run([*initdb, "--no-sync", "-E", "UTF8"], cwd=root, capture_output=True, text=True, **as_user)
    assert made.returncode == 0, made.stderr
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": root, "fsync": "off"}
    command = [
        where / "postgres",
        "-D",
        data,
        *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
    ]
    address = f"tilewatch:{PASSWORD}@127.0.0.1:{port}"
    with process(command, logs / "postgres.log", dict(os.environ), root, **as_user):
        connection = until(lambda: connected(address), 30, "PostgreSQL answers")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE prefect")
            cursor.execute("CREATE DATABASE mlflow")
        connection.close()
        yield address
    shutil.rmtree(root)


def connected(address: str, database: str = "postgres") -> Any:
    try:
        return psycopg2.connect(f"postgresql://{address}/{database}")
    except psycopg2.OperationalError:
        return None


@contextmanager
def process(
    command: list[Any], log: Path, environment: dict[str, str], folder: Path, **options: Any
) -> Iterator[psutil.Popen]:
    """A server as a process of its own, ended with all that it started."""
    with log.open("a") as file:
        started = psutil.Popen(
            [str(part) for part in command],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options,
        )  # fmt: skip
    try:
        yield started
    finally:
        family = [started, *started.children(recursive=True)] if started.is_running() else [started]
        started.terminate()
        for one in psutil.wait_procs(family, timeout=20)[1]:
            one.kill()


def until(check: Any, seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("postgres")
    prefect, tracking = free_port(), free_port()
    with postgres(folder) as address:
        environment = os.environ | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{address}/prefect",
        }
        start = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", prefect]
        serve = ["mlflow", "server", "--workers", 1, "--host", "127.0.0.1", "--port", tracking]
        serve += ["--backend-store-uri", f"postgresql://{address}/mlflow"]
        serve += ["--artifacts-destination", (folder / "artifacts").as_uri()]
        with (
            process([sys.executable, "-m", *start], folder / "prefect.log", environment, folder),
            process([sys.executable, "-m", *serve], folder / "mlflow.log", environment, folder),
        ):
            found = Servers(f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{tracking}", folder, address)
            until(lambda: healthy(f"{found.prefect}/api/health"), 300, "Prefect answers")
            until(lambda: healthy(f"{found.mlflow}/health"), 300, "MLflow answers")
            yield found


WRITER = f"""
import sys
import time
from pathlib import Path

import mlflow
from prefect import flow, task

number = int(sys.argv[1])
mlflow.set_tracking_uri(sys.argv[2])
experiment = mlflow.set_experiment("watch").experiment_id


@task(persist_result=False)
def step(run, scene):
    return run * scene


@flow(name="nightly", flow_run_name="writer {{writer}}, run {{run}}", persist_result=False)
def nightly(writer, run):
    for future in [step.submit(run, scene) for scene in range({TASKS})]:
        future.result()
    with mlflow.start_run(experiment_id=experiment, run_name=f"night {{writer}} {{run}}", tags={{"night": f"{{run}}"}}):
        mlflow.log_params({{f"setting.{{index}}": index for index in range(30)}})
        for at in range({METRICS}):
            mlflow.log_metrics({{"flags": at, "scored": at * run}}, step=at)
        mlflow.log_text(f"{{writer}} {{run}}", "report.html")
    # All write to the histories of one and the same run.
    mlflow.MlflowClient().log_metric(sys.argv[3], f"history of {{writer}}", run, step=run)


Path(f"ready-{{number}}").touch()
while not Path("go").exists():
    time.sleep(0.05)
for run in range({RUNS}):
    nightly(number, run)
"""


@pytest.mark.slow
def test_four_processes_that_write_at_once_lose_nothing_and_wait_for_no_lock(servers: Servers, tmp_path: Path) -> None:
    mlflow_client = mlflow.MlflowClient(servers.mlflow)
    experiment = mlflow_client.create_experiment("watch")
    history = mlflow_client.create_run(experiment, run_name="history", tags={"tilewatch.kind": "history"}).info.run_id
    environment = os.environ | {"PREFECT_API_URL": f"{servers.prefect}/api", "OMP_NUM_THREADS": "1"}
    writers = []
    try:
        for number in range(WRITERS):
            own = environment | {"PREFECT_HOME": str(tmp_path / f"home-{number}")}
            with (servers.folder / f"writer-{number}.log").open("w") as log:
                command = [sys.executable, "-c", WRITER, str(number), servers.mlflow, history]
                writers.append(
                    psutil.Popen(command, env=own, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )
        until(lambda: len(list(tmp_path.glob("ready-*"))) == WRITERS, 300, "all writers are ready")
        (tmp_path / "go").touch()
        assert [writer.wait(300) for writer in writers] == [0] * WRITERS, servers.logs
    finally:
        for writer in writers:
            if writer.is_running():
                writer.kill()

    with httpx.Client(base_url=f"{servers.prefect}/api", timeout=30) as api:

        def count(what: str) -> int:
            completed = {what: {"state": {"type": {"any_": ["COMPLETED"]}}}}
            return int(api.post(f"/{what}/count", json=completed).json())

        assert count("flow_runs") == WRITERS * RUNS
        # Task runs reach the database through a queue of events.
        until(lambda: count("task_runs") >= WRITERS * RUNS * TASKS, 60, "every task run is kept")
        assert count("task_runs") == WRITERS * RUNS * TASKS
        names = {run["name"] for run in api.post("/flow_runs/filter", json={}).json()}
        assert names == {f"writer {writer}, run {run}" for writer in range(WRITERS) for run in range(RUNS)}
    nights = mlflow_client.search_runs([experiment], "tags.night != ''", max_results=1000)
    assert len(nights) == WRITERS * RUNS
    for night in nights:
        assert night.info.status == "FINISHED"
        assert len(night.data.params) == 30
        for name in ("flags", "scored"):
            assert [one.step for one in mlflow_client.get_metric_history(night.info.run_id, name)] == list(
                range(METRICS)
            )
    for writer in range(WRITERS):
        kept = mlflow_client.get_metric_history(history, f"history of {writer}")
        assert sorted(one.value for one in kept) == list(range(RUNS))
    for name, text in servers.logs.items():
        found = [line for line in text.splitlines() if any(word.lower() in line.lower() for word in TROUBLE)]
        assert not found, f"{name}: {found[:5]}"


def test_the_databases_are_really_those_of_postgresql(servers: Servers) -> None:
    for database, table in (("prefect", "flow_run"), ("mlflow", "runs")):
        connection = psycopg2.connect(f"postgresql://{servers.database}/{database}")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table}")
            assert cursor.fetchone()[0] >= WRITERS * RUNS
        connection.close()
    assert not list(servers.folder.rglob("*.db"))

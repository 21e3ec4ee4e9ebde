"""What `tilewatch up` is made of: programs on a leash, checks before anything starts, values of the deployments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from configs import SettingsError, Workspace
from flows.services import processes
from flows.services.processes import OF_WORKSPACE, Service, end, left_over
from flows.services.site import Site
from flows.services.values import from_environment
from tests.servers import free_port

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)",
]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[[list[str]], Service]]:
    made: list[Service] = []

    def make(command: list[str]) -> Service:
        environment = {**os.environ, OF_WORKSPACE: str(tmp_path)}
        made.append(Service("the sleeper", command, environment, tmp_path / "logs" / "sleeper.log"))
        return made[-1]

    yield make
    for one in made:
        one.stop(0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    config = tmp_path / "meadow.yaml"
    config.write_text("name: meadow\nsource: {location: meadow}\n")
    workspace = Workspace(tmp_path / "workspace")
    return Site(config, workspace, "127.0.0.1", free_port(), free_port(), "0 5 * * *", "UTC")


def wait(check: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_what_a_program_says_is_kept_in_its_log(service: Callable[[list[str]], Service]):
    sleeper = service(SLEEP)
    sleeper.start()

    wait(lambda: sleeper.log.exists() and sleeper.log.read_text() == "here\n")


def test_a_program_that_is_killed_is_started_again(
    service: Callable[[list[str]], Service], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processes, "BACKOFF", (0.0, 0.0))
    sleeper = service(SLEEP)
    sleeper.start()
    first = sleeper.pid

    os.kill(first or 0, signal.SIGKILL)
    wait(lambda: not sleeper.running)

    assert sleeper.status == "ended by signal 9"
    assert sleeper.keep_running()
    assert sleeper.running
    assert sleeper.pid != first


def test_a_program_that_ends_again_and_again_is_given_up(
    service: Callable[[list[str]], Service], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processes, "BACKOFF", (0.0, 0.0))
    broken = service([sys.executable, "-c", "raise SystemExit(3)"])
    broken.start()

    starts = 0
    while True:
        wait(lambda: not broken.running)
        if not broken.keep_running():
            break
        starts += 1
        assert starts < 10

    assert starts == 2
    assert broken.status == "ended with status 3"


def test_a_restart_waits_longer_each_time(service: Callable[[list[str]], Service], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "BACKOFF", (30.0,))
    broken = service([sys.executable, "-c", ""])
    broken.start()
    wait(lambda: not broken.running)

    assert broken.keep_running()
    assert not broken.running  # its time has not come


def test_a_program_that_does_not_listen_is_ended_all_the_same(service: Callable[[list[str]], Service]):
    stubborn = service(STUBBORN)
    stubborn.start()
    wait(lambda: stubborn.log.exists() and "here" in stubborn.log.read_text())

    stubborn.stop(0.2)

    assert not stubborn.running
    assert stubborn.status == "ended by signal 9"


def test_programs_end_with_the_process_that_started_them(tmp_path: Path):
    program = (
        "import os, sys, time; from pathlib import Path; from flows.services.processes import Service\n"
        f"one = Service('sleeper', {SLEEP!r}, dict(os.environ), Path({str(tmp_path / 'sleeper.log')!r}))\n"
        "one.start(); print(one.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))

    parent.kill()
    parent.wait()

    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


def test_what_a_killed_start_has_left_is_found_by_its_workspace(tmp_path: Path):
    mine = {**os.environ, OF_WORKSPACE: str(tmp_path / "mine")}
    other = {**os.environ, OF_WORKSPACE: str(tmp_path / "other")}
    left = [subprocess.Popen(SLEEP, env=values, stdout=subprocess.DEVNULL) for values in (mine, other)]
    try:
        wait(lambda: [one.pid for one in left_over(tmp_path / "mine")] == [left[0].pid])

        end(left_over(tmp_path / "mine"), 5)

        assert left[0].poll() is not None
        assert left[1].poll() is None
    finally:
        for process in left:
            process.kill()
            process.wait()


def test_a_port_in_use_is_named_with_its_option(site: Site):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.mlflow_port))
        taken.listen()

        with pytest.raises(SettingsError, match=rf"--mlflow-port {site.mlflow_port} on 127\.0\.0\.1: .* another port"):
            site.check_ports()


def changed(site: Site, **values: object) -> Site:
    return Site(**{**vars(site), **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cron": "at five"}, "'at five' is no time of cron"),
        ({"cron": "0 5 * * *; reboot"}, "is no time of cron"),
        ({"timezone": "Europe/Atlantis"}, "'Europe/Atlantis' is no time zone"),
        ({"config": Path("/nowhere/meadow.yaml")}, "cannot read the configuration"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(site: Site, values: dict[str, object], words: str):
    with pytest.raises(SettingsError, match=words):
        changed(site, **values).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "watch.example"])
def test_servers_that_others_can_reach_need_logins(site: Site, host: str, monkeypatch: pytest.MonkeyPatch):
    open_to_others = changed(site, host=host)
    with pytest.raises(SettingsError, match="PREFECT_SERVER_API_AUTH_STRING"):
        open_to_others.check()

    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "ana:")
    with pytest.raises(SettingsError, match="PREFECT_SERVER_API_AUTH_STRING to user:password"):
        open_to_others.check()

    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "ana:s3cret")
    with pytest.raises(SettingsError, match="MLFLOW_AUTH_ADMIN_PASSWORD"):
        open_to_others.check()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_alone_needs_none(site: Site, host: str):
    changed(site, host=host).check()


def test_passwords_are_in_no_argument_and_no_file(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "ana:s3cret-one")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "s3cret-two")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://ana:s3cret-three@db/mlflow")

    servers, worker = changed(site, host="0.0.0.0").services()

    arguments = " ".join(argument for one in [*servers, worker] for argument in one._command)
    assert "basic-auth" in arguments
    assert "s3cret" not in arguments
    written = [path.read_text() for path in site.folder.rglob("*") if path.is_file()]
    assert written
    assert not any("s3cret" in text for text in written)


def test_another_tracking_server_is_used_in_place_of_one_of_its_own(site: Site):
    site.config.write_text(
        "name: meadow\nsource: {location: meadow}\ntracking: {uri: 'http://tracking.example:5000'}\n"
    )

    servers, _ = site.services()

    assert [server.name for server in servers] == ["Prefect's server"]
    assert site.mlflow == "http://tracking.example:5000"


def test_the_deployments_get_the_watch_and_its_schedule(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TILEWATCH_CONFIG", str(site.config))
    monkeypatch.setenv("TILEWATCH_WORKSPACE", str(site.workspace.root))
    usual = from_environment()
    monkeypatch.setenv("TILEWATCH_CRON", "30 6 * * 1-5")
    monkeypatch.setenv("TILEWATCH_TIMEZONE", "Europe/Bucharest")

    asked = from_environment()

    assert (usual["cron"], usual["timezone"]) == ("0 5 * * *", "UTC")
    assert (asked["cron"], asked["timezone"]) == ("30 6 * * 1-5", "Europe/Bucharest")
    assert asked["config"] == str(site.config)
    assert asked["resource"] == "tilewatch.watch.meadow"


@pytest.mark.parametrize("name", ["TILEWATCH_CONFIG", "TILEWATCH_WORKSPACE"])
@pytest.mark.parametrize("path", ["", "workspace"])
def test_a_watch_without_absolute_paths_is_not_deployed(
    site: Site, name: str, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TILEWATCH_CONFIG", str(site.config))
    monkeypatch.setenv("TILEWATCH_WORKSPACE", str(site.workspace.root))
    monkeypatch.setenv(name, path)

    with pytest.raises(SettingsError, match=f"set {name} to an absolute path"):
        from_environment()

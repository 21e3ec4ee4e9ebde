"""The files of `deployments/` for containers, clusters and systemd.

No image is built here. What compose starts is started as processes of this machine: the same commands, variables and
health checks, with other ports and folders.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prefect.utilities.templating import apply_values, find_placeholders

from tests.operations.test_postgres import PASSWORD, postgres
from tests.servers import end_family, free_port

FOLDER = Path(__file__).parents[2] / "deployments"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")
LOGINS = {"PREFECT_USER": "watch", "PREFECT_PASSWORD": "prefects-secret", "MLFLOW_USER": "admin"} | {
    "MLFLOW_PASSWORD": "mlflows-secret-pass",
    "MLFLOW_SECRET_KEY": "a-key-for-forms",
    "POSTGRES_PASSWORD": PASSWORD,
}
SECRETS = {value for name, value in LOGINS.items() if "USER" not in name}


def example() -> dict[str, str]:
    lines = (FOLDER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_root_or_becomes_it_and_each_comes_back(name: str) -> None:
    service = SERVICES[name]

    assert int(service["user"].split(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == ("on-failure" if name == "register" else "unless-stopped")
    assert ("healthcheck" in service) == (name != "register"), "it ends, and then all others have what they wait for"
    assert not {"privileged", "network_mode", "pid"} & service.keys()


def test_nothing_is_published_but_both_pages_and_these_on_the_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:4200:4200", "127.0.0.1:5000:5000"]


def test_what_is_kept_lies_in_named_volumes_and_what_is_mounted_else_is_read_only() -> None:
    mounted = [volume.rsplit(":", 2) if volume.endswith(":ro") else [*volume.split(":"), "rw"]
               for service in SERVICES.values() for volume in service.get("volumes", [])]  # fmt: skip

    assert {source for source, _, mode in mounted if mode == "rw"} == COMPOSE["volumes"].keys()
    for source, _, _ in mounted:
        assert not source.startswith("./") or (FOLDER / source).is_file()


def test_services_wait_for_each_other_by_names_and_conditions_that_exist() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert ("healthcheck" in SERVICES[other]) == (how["condition"] == "service_healthy")


def test_no_secret_is_in_the_file_and_the_example_names_every_variable() -> None:
    named = {match[1] for text in strings(COMPOSE) for match in VARIABLE.finditer(text)}

    assert named - {"OMP_NUM_THREADS"} == example().keys()
    assert {name: value for name, value in example().items() if re.search("PASSWORD|KEY", name) and value} == {}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH_STRING|CONNECTION_URL|STORE_URI", name):
                assert VARIABLE.search(value), f"{name} holds a value"
    ignored = subprocess.run(["git", "check-ignore", "-q", "deployments/.env"], cwd=FOLDER.parent, check=False)
    assert ignored.returncode == 0


def test_a_secret_that_is_not_set_stops_compose() -> None:
    demanded = {match[1] for text in strings(COMPOSE) for match in VARIABLE.finditer(text) if match[2] == "?"}

    assert demanded == example().keys() - {"TORCH_INDEX"}, "the build says itself what it lacks"


def test_the_image_is_pinned_not_root_and_made_of_what_is_there() -> None:
    steps = (FOLDER / "Dockerfile").read_text()
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    installs = [line for line in steps.splitlines() if "pip install" in line]

    assert re.findall(r"^USER (\S+)", steps, re.MULTILINE)[-1] == "10001:10001"
    assert len(re.findall(r"^FROM ", steps, re.MULTILINE)) == 2
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    (extras,) = re.findall(r'"\.\[(.*)\]"', steps)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    kept = (FOLDER / "Dockerfile.dockerignore").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", steps, re.MULTILINE):
        for source in sources.split():
            assert (FOLDER.parent / source).exists()
            assert f"!{source}\n" in kept
    assert SERVICES["worker"]["image"] == f"tilewatch:{project['version']}"


def test_units_of_systemd_are_sound(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in (FOLDER / "systemd").glob("tilewatch-*"):
        text = unit.read_text().replace("/opt/tilewatch/.venv/bin/tilewatch", "/bin/true")
        (tmp_path / unit.name).write_text(text.replace("=tilewatch\n", "=root\n"))  # there is no such user here
    units = sorted(tmp_path.iterdir())
    assert len(units) == 3

    verified = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stderr) == (0, "")
    for unit in units:
        assert unit.suffix == ".timer" or "ProtectSystem=strict" in unit.read_text()


def rendered() -> dict[str, Any]:
    """The job that a Kubernetes worker makes of the template's defaults."""
    template = json.loads((FOLDER / "kubernetes/work-pool.json").read_text())
    given = {"env": [{"name": "A", "value": "b"}], "labels": {"a": "b"}, "command": ["x"], "name": "run"}
    values = {name: field.get("default") for name, field in template["variables"]["properties"].items()} | given
    named = {one.name for one in find_placeholders(template["job_configuration"])}
    assert named == values.keys(), "each variable is used, and each one used is described"
    found = apply_values(template["job_configuration"]["job_manifest"], values)
    assert isinstance(found, dict)
    return found


def test_pods_of_kubernetes_are_not_root_and_see_the_workspace() -> None:
    alone = yaml.safe_load((FOLDER / "kubernetes/cronjob.yaml").read_text())["spec"]["jobTemplate"]

    for job in (rendered(), alone):
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]} >= {"workspace", "configs"}


@dataclass(frozen=True)
class Started:
    """What compose would have started."""

    urls: dict[str, str]
    ports: dict[str, int]
    folder: Path
    environments: dict[str, dict[str, str]]

    def command(self, words: list[str], ports: dict[str, int]) -> list[str]:
        """A command of compose, with the ports and programs of this machine."""
        changed = [re.sub(r"\b(4200|5000|8080)\b", lambda found: str(ports[found[1]]), word) for word in words]
        program = [sys.executable] if changed[0] == "python" else [sys.executable, "-m", changed[0]]
        return [*program, *("127.0.0.1" if word == "0.0.0.0" else word for word in changed[1:])]


def environment_of(name: str, values: dict[str, str], moved: dict[str, str]) -> dict[str, str]:
    """The variables of a service; `moved` names what is elsewhere here."""
    found = {}
    for key, text in SERVICES[name]["environment"].items():
        text = VARIABLE.sub(lambda match: values.get(match[1], match[3] or ""), text)
        for old, new in moved.items():
            text = text.replace(old, new)
        found[key] = text
    return {key: text for key, text in found.items() if text}


@contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path, log: Path) -> Iterator[psutil.Popen]:
    folder.mkdir(exist_ok=True)
    with log.open("w") as file:
        started = psutil.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield started
    finally:
        end_family(started)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "watch.yaml").write_text("name: meadow\nsource: {root: .}\n")
    ports = {port: free_port() for port in ("4200", "5000", "8080")}
    values = example() | LOGINS
    with ExitStack() as stack:
        database = stack.enter_context(postgres(folder)).rsplit("@", 1)[1]
        moved = {"postgres:5432": database, "prefect:4200": f"127.0.0.1:{ports['4200']}", "/configs": str(folder)}
        moved |= {"mlflow:5000": f"127.0.0.1:{ports['5000']}", "/tmp/prefect": str(folder / "home")}
        moved |= {"/home/tilewatch": str(folder), "/mlflow/": f"{folder}/mlflow/", "/workspace": f"{folder}/workspace"}
        moved |= {"/etc/tilewatch": str(FOLDER), ":4200": f":{ports['4200']}", ":5000": f":{ports['5000']}"}
        machine = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": str(folder),
        }
        machine |= {"OMP_NUM_THREADS": "1", "PREFECT_WORKER_WEBSERVER_PORT": str(ports["8080"])}
        environments = {
            name: machine | environment_of(name, values, moved) for name in ("prefect", "mlflow", "register", "worker")
        }
        found = Started(
            {"prefect": f"http://127.0.0.1:{ports['4200']}", "mlflow": f"http://127.0.0.1:{ports['5000']}"},
            ports, folder, environments,
        )  # fmt: skip

        def start(name: str) -> psutil.Popen:
            command = found.command(SERVICES[name]["command"], ports)
            return stack.enter_context(running(command, environments[name], folder / name, folder / f"{name}.log"))

        servers = {name: start(name) for name in ("prefect", "mlflow")}
        for name, process in servers.items():
            healthy(name, found, process)
        command = found.command(SERVICES["register"]["command"], ports)
        done = subprocess.run(command, env=environments["register"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "register.log").write_text(done.stdout + done.stderr)
        healthy("worker", found, start("worker"))
        yield found


def healthy(name: str, started: Started, process: psutil.Popen) -> None:
    """Wait until the health check of compose is content."""
    check = started.command(SERVICES[name]["healthcheck"]["test"][1:], started.ports)
    log = started.folder / f"{name}.log"
    end = time.monotonic() + 120
    while subprocess.run(check, capture_output=True, check=False).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(1)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("prefect", "/api/admin/version"),
        ("prefect", "/api/flow_runs/filter"),
        ("mlflow", "/"),
        ("mlflow", "/api/2.0/mlflow/experiments/search"),
        ("mlflow", "/ajax-api/2.0/mlflow/experiments/search"),
        ("mlflow", "/api/2.0/mlflow-artifacts/artifacts"),
    ],
)
def test_who_has_no_password_is_refused_and_who_has_one_is_answered(started: Started, server: str, path: str) -> None:
    url = started.urls[server] + path
    login = (LOGINS[f"{server.upper()}_USER"], LOGINS[f"{server.upper()}_PASSWORD"])
    ask = {"/api/flow_runs/filter": "POST"}.get(path, "GET")
    params = {"max_results": 1} if "search" in path else {}

    def status(auth: tuple[str, str] | None) -> int:
        return httpx.request(ask, url, auth=auth, params=params, timeout=30).status_code

    assert status(None) == 401
    assert status((login[0], "a-guess-at-it")) == 401
    assert status(login) == 200


@pytest.mark.servers
def test_mlflow_answers_nobody_who_calls_it_by_another_name(started: Started) -> None:
    """A page in a browser could else reach it through a name of its own (DNS rebinding)."""
    answer = httpx.get(
        started.urls["mlflow"], headers={"Host": "evil.example"}, auth=("admin", LOGINS["MLFLOW_PASSWORD"])
    )

    assert answer.status_code == 403


@pytest.mark.servers
def test_the_deployments_are_registered_and_the_worker_works_with_its_passwords(started: Started) -> None:
    login = (LOGINS["PREFECT_USER"], LOGINS["PREFECT_PASSWORD"])
    with httpx.Client(base_url=f"{started.urls['prefect']}/api", auth=login, timeout=30) as api:
        deployments = api.post("/deployments/filter", json={}).json()
        workers = api.post("/work_pools/tilewatch/workers/filter", json={}).json()
        automations = api.post("/automations/filter", json={}).json()

    assert {"nightly", "train"} <= {one["name"] for one in deployments}
    assert [one["status"] for one in workers] == ["ONLINE"]
    assert automations
    check = started.command(SERVICES["worker"]["healthcheck"]["test"][1:], started.ports)
    assert subprocess.run(check, check=False).returncode == 0


@pytest.mark.servers
def test_the_runs_of_a_worker_reach_mlflow_with_a_password(started: Started) -> None:
    code = (
        "from configs import load_settings, Workspace; from pathlib import Path; from tasks import tracking\n"
        "settings = load_settings(None)\n"
        "with tracking.run(settings, Workspace(Path('workspace')), 'train', 'a run', {}) as run: print(run.info.run_id)"
    )
    environment = started.environments["worker"] | {"TILEWATCH_NAME": "meadow"}
    environment = {key: value for key, value in environment.items() if key != "TILEWATCH_CONFIG"}

    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=started.folder, capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stderr
    assert (started.folder / "mlflow/artifacts").is_dir(), "what it logged went through the server"


@pytest.mark.servers
def test_no_secret_is_in_a_log_or_on_a_command_line(started: Started) -> None:
    logs = "".join(path.read_text(errors="replace") for path in started.folder.glob("*.log"))
    commands = "\n".join(" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))

    assert [secret for secret in SECRETS if secret in logs] == []
    assert [secret for secret in SECRETS if secret in commands and secret != PASSWORD] == []

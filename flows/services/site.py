"""Where servers and worker run: addresses, programs, variables, and what must hold before they are started."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from configs import SettingsError, Workspace, load_settings
from configs.workspace import write_text
from flows.services.processes import OF_WORKSPACE, Service
from flows.services.registration import POOL, Registry
from flows.services.values import checked_cron, checked_timezone

WORKER = "this-machine"
# Of its own programs; a variable that is set already stands.
DEFAULTS = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # else runs are kept for ever
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "MLFLOW_TRACKING_USERNAME": "admin",
}
MLFLOW_LOGIN = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{database}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@dataclass(frozen=True)
class Site:
    """What `up` was asked for.

    Attributes:
        config: Settings of the watch, an absolute path; it may be missing only where the defaults are meant.
        workspace: Its workspace, an absolute path.
        host: Interface on which the servers listen.
        prefect_port: Of Prefect's server.
        mlflow_port: Of MLflow's; unused where the settings name a tracking server.
        cron: When the nightly run starts.
        timezone: In which zone that is meant.
    """

    config: Path
    workspace: Workspace
    host: str
    prefect_port: int
    mlflow_port: int
    cron: str
    timezone: str

    def check(self) -> None:
        """Look before anything is started.

        Raises:
            SettingsError: Settings, schedule or logins with which it cannot work.
        """
        load_settings(self.config)
        checked_cron(self.cron)
        checked_timezone(self.timezone)
        if not self.loopback:
            self._check_logins()

    def check_ports(self) -> None:
        """Look whether the ports are free.

        Raises:
            SettingsError: One is not.
        """
        ports = [("--prefect-port", self.prefect_port)]
        if self.own_mlflow:
            ports.append(("--mlflow-port", self.mlflow_port))
        if len({port for _, port in ports}) < len(ports):
            raise SettingsError(f"--prefect-port and --mlflow-port are both {self.prefect_port}: give two ports")
        for option, port in ports:
            self._check_port(option, port)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the servers."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def own_mlflow(self) -> bool:
        """Whether MLflow is started here: the settings name no other tracking server."""
        return load_settings(self.config).tracking.uri is None

    @property
    def folder(self) -> Path:
        """Prefect's database and the logs."""
        return self.workspace.root / "services"

    @property
    def prefect(self) -> str:
        """Address of Prefect's pages."""
        return f"http://{self._name}:{self.prefect_port}"

    @property
    def mlflow(self) -> str:
        """Address of MLflow's pages."""
        uri = load_settings(self.config).tracking.uri
        return uri or f"http://{self._name}:{self.mlflow_port}"

    @property
    def api(self) -> str:
        """Address of Prefect's API."""
        return f"{self.prefect}/api"

    def environment(self) -> dict[str, str]:
        """Variables of all that is started."""
        values = DEFAULTS | os.environ
        values |= {
            OF_WORKSPACE: str(self.workspace.root),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "TILEWATCH_CONFIG": str(self.config),
            "TILEWATCH_WORKSPACE": str(self.workspace.root),
            "TILEWATCH_CRON": self.cron,
            "TILEWATCH_TIMEZONE": self.timezone,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else it starts seven helpers of 260 MB each
        }
        if not self.loopback:
            values.setdefault("PREFECT_API_AUTH_STRING", values["PREFECT_SERVER_API_AUTH_STRING"])
            values.setdefault("MLFLOW_TRACKING_PASSWORD", values["MLFLOW_AUTH_ADMIN_PASSWORD"])
            values.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_hex(32))
            values.setdefault("MLFLOW_AUTH_CONFIG_PATH", str(self.folder / "mlflow-login.ini"))
        return values

    def registry(self) -> Registry:
        """The API of Prefect's server, with its login."""
        return Registry(self.api, self.environment().get("PREFECT_API_AUTH_STRING"))

    def services(self) -> tuple[list[Service], Service]:
        """The servers, and the worker; none is started."""
        environment, logs = self.environment(), self.folder / "logs"
        program = [sys.executable, "-m"]
        serve = ["prefect", "server", "start", "--host", self.host, "--port", str(self.prefect_port)]
        servers = [Service("Prefect's server", [*program, *serve], environment, logs / "prefect.log")]
        if self.own_mlflow:
            servers.append(Service("MLflow", [*program, *self._mlflow()], environment, logs / "mlflow.log"))
        work = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
        # The runs inherit the worker's variables: so they find MLflow.
        tracked = environment | {"TILEWATCH_TRACKING__URI": self.mlflow}
        return servers, Service("the worker", [*program, *work], tracked, logs / "worker.log")

    def _mlflow(self) -> list[str]:
        """MLflow's program. A database other than the workspace's is named by a variable, since it has a password."""
        command = ["mlflow", "server", "--host", self.host, "--port", str(self.mlflow_port), "--workers", "1"]
        command += ["--uvicorn-opts", "--log-level warning"]
        if "MLFLOW_BACKEND_STORE_URI" not in os.environ:
            command += ["--backend-store-uri", self.workspace.mlflow_uri]
        if "MLFLOW_ARTIFACTS_DESTINATION" not in os.environ:
            command += ["--artifacts-destination", self.workspace.mlflow_artifacts.resolve().as_uri()]
        if not self.loopback:
            login = MLFLOW_LOGIN.format(database=self.folder / "mlflow-login.db")
            write_text(self.folder / "mlflow-login.ini", login)
            command += ["--app-name", "basic-auth"]
        return command

    @property
    def _name(self) -> str:
        """The host as others write it in an address."""
        if self.host in ("0.0.0.0", "::"):
            return "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host

    def _check_logins(self, environment: Mapping[str, str] = os.environ) -> None:
        """Others can reach the servers: they must ask who it is."""
        why = f"--host {self.host} lets other machines reach the servers, which needs logins: "
        login = environment.get("PREFECT_SERVER_API_AUTH_STRING", "")
        if not all(login.partition(":")):
            raise SettingsError(f"{why}set PREFECT_SERVER_API_AUTH_STRING to user:password")
        if not self.own_mlflow:
            return
        if not environment.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
            raise SettingsError(f"{why}set MLFLOW_AUTH_ADMIN_PASSWORD, the password of MLflow's user admin")
        if find_spec("flask_wtf") is None:
            raise SettingsError(f"{why}MLflow's need `pip install 'mlflow[auth]'`, or tracking.uri of another server")

    def _check_port(self, option: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.host, port))
            except OSError as error:
                words = f"{option} {port} on {self.host}: {error.strerror}"
                raise SettingsError(f"{words}. End what uses it, or choose another port") from None

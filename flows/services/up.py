"""Servers and worker of one watch on this machine, from the start until they are told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event

from flows.services.processes import Service, end, left_over
from flows.services.registration import RegistrationFailed, Registry, deploy
from flows.services.site import WORKER, Site
from flows.services.web import Unreachable, answers
from tasks.exclusive import exclusive

log = logging.getLogger(__name__)

START_SECONDS = 180.0  # on a busy machine both servers take their time, the first time most of all
STOP_SECONDS = 20.0
LOOK_EVERY = 0.5
LOOK_FOR_CRASHES_EVERY = 15.0
CRASHED_FOR = timedelta(seconds=20)  # before that, it is for Prefect's automation to start a night again


class ServiceFailed(RuntimeError):
    """A server or the worker does not run, and trying again does not help."""


@dataclass(frozen=True)
class Addresses:
    """Where the pages are."""

    prefect: str
    mlflow: str
    workspace: str
    logs: str


def up(site: Site, ready: Callable[[Addresses], None], stop: Event, grace: float) -> None:
    """Start all, say when it is ready, and keep it running until it is to stop; then nothing is left.

    Args:
        site: What is asked for; checked already.
        ready: Told where the pages are.
        stop: Set from outside.
        grace: Seconds for which runs that are at work may go on when it stops.

    Raises:
        Busy: The same is running for this workspace.
        ServiceFailed: A server or the worker could not be kept running.
        RegistrationFailed: Prefect refused the deployments.
    """
    with exclusive(site.workspace, "up", wait=0):
        remains = left_over(site.workspace.root)
        if remains:
            log.warning("ending %d processes that a killed `tilewatch up` has left", len(remains))
            end(remains, STOP_SECONDS)
        site.check_ports()
        site.folder.mkdir(parents=True, exist_ok=True)
        servers, worker = site.services()
        try:
            if _start(site, servers, worker, stop):
                logs = str(site.folder / "logs")
                ready(Addresses(site.prefect, site.mlflow, str(site.workspace.root), logs))
                _watch([*servers, worker], partial(_start_nights_again, site.registry(), datetime.now(UTC)), stop)
        finally:
            _stop(site, servers, worker, grace)


def _start(site: Site, servers: list[Service], worker: Service, stop: Event) -> bool:
    """Servers first, then the worker, then what it is to work on.

    Returns:
        False when it was told to stop on the way.
    """
    for server in servers:
        server.start()
    health = [f"{site.api}/health", f"{site.mlflow}/health"][: len(servers)]
    for server, url in zip(servers, health, strict=True):
        if not _wait(partial(answers, url), server, stop):
            return False
    environment, registry = site.environment(), site.registry()
    registry.automate()
    if site.loopback:  # nobody else can have a worker here, and this one does not run yet
        cut_off = registry.give_up_runs("tilewatch up was not running any more.")
        if cut_off:
            log.warning("%d runs had been cut off; those of nights go on", cut_off)
    since = datetime.now(UTC)
    worker.start()
    if not _wait(lambda: registry.worker_online(WORKER, since), worker, stop):
        return False
    try:
        deploy(environment, site.folder)
    except RegistrationFailed:
        if not stop.is_set():  # Ctrl-C in the terminal ends it as well
            raise
    return not stop.is_set()


def _wait(answered: Callable[[], bool], service: Service, stop: Event) -> bool:
    """Wait until a service answers; False when it was told to stop before."""
    deadline = time.monotonic() + START_SECONDS
    while not answered():
        if stop.wait(LOOK_EVERY):
            return False
        if not service.running:
            raise ServiceFailed(f"{service.name} {service.status} as it started; {service.log} says why")
        if time.monotonic() > deadline:
            raise ServiceFailed(f"{service.name} did not answer within {START_SECONDS:g} s; see {service.log}")
    return True


def _watch(services: list[Service], start_nights_again: Callable[[], None], stop: Event) -> None:
    """Start again what ends by itself, until it is to stop."""
    looked = time.monotonic()
    while not stop.wait(LOOK_EVERY):
        if time.monotonic() - looked >= LOOK_FOR_CRASHES_EVERY:
            start_nights_again()
            looked = time.monotonic()
        for service in services:
            before = service.failures
            if not service.keep_running():
                times = f"{service.failures + 1} times in a row"
                raise ServiceFailed(f"{service.name} {service.status}, {times}; {service.log} says why. All stops")
            if service.failures > before:
                log.warning("%s %s; it is started again", service.name, service.status)


def _start_nights_again(registry: Registry, since: datetime) -> None:
    """Start nights again that crashed since a time and that Prefect has left so; later, when it does not answer."""
    try:
        reason = "Started again after a crash, by tilewatch up."
        count = registry.start_again(reason, since, datetime.now(UTC) - CRASHED_FOR)
    except Unreachable:
        return
    if count:
        log.warning("%d nights had crashed and were left so; they are started again", count)


def _stop(site: Site, servers: list[Service], worker: Service, grace: float) -> None:
    """The worker first, so that its runs still reach the servers; then these; then whatever is left."""
    deadline = time.monotonic() + grace
    if worker.children():
        log.warning("waiting up to %g s for runs that are at work", grace)
    while worker.children() and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    worker.stop(STOP_SECONDS)
    for server in servers:
        server.stop(STOP_SECONDS)
    end(left_over(site.workspace.root), STOP_SECONDS)

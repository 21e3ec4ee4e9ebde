"""Processes that belong to this one: they end with it, however it ends, and what they say is kept."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

import psutil

OF_WORKSPACE = "SERVICES_OF_WORKSPACE"  # variable of every process below `up`, by which one left over is known
LOG_BYTES, LOG_FILES = 5_000_000, 3
BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further start
FORGOTTEN_AFTER = 600.0  # seconds of running after which earlier failures count no more
PR_SET_PDEATHSIG = 1  # of prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


class Service:
    """A program that is kept running."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """A program, not started yet.

        Args:
            name: What people call it.
            command: Program and arguments; no secrets, since every user of the machine can read them.
            environment: All its variables.
            log: File for what it says; older ones beside it.
        """
        self.name, self.log = name, log
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._failures, self._started, self._next = 0, 0.0, 0.0

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in the terminal is for this process alone."""
        parent = os.getpid()

        def leash() -> None:
            # In the child. SIGINT may be ignored, in the background of a script: a worker would then never end.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it ended before the leash was on
                os._exit(1)

        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self.log.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=leash,
        )
        assert self._process.stdout is not None
        threading.Thread(target=_keep, args=(self._process.stdout, self.log), daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Number of its process, while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def failures(self) -> int:
        """How often it ended by itself, shortly after one another."""
        return self._failures

    @property
    def status(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode if self._process else None
        return f"ended by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"

    def keep_running(self) -> bool:
        """Start it again after it ended, a little later each time.

        Returns:
            False when it ended too often to be tried again.
        """
        if self.running:
            return True
        now = time.monotonic()
        if self._next <= self._started:  # its end was not noticed yet
            if now - self._started > FORGOTTEN_AFTER:
                self._failures = 0
            if self._failures >= len(BACKOFF):
                return False
            self._next = now + BACKOFF[self._failures]
            self._failures += 1
        if now >= self._next:
            self.end_group()
            self.start()
        return True

    def stop(self, seconds: float) -> None:
        """Ask it to end, and make it end when it takes longer."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self.end_group()

    def children(self) -> list[psutil.Process]:
        """Processes that it started and that still run."""
        try:
            return psutil.Process(self.pid).children() if self.pid else []
        except psutil.NoSuchProcess:
            return []

    def end_group(self) -> None:
        """End what is left of it; helpers of a server that was killed still hold its port."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def left_over(workspace: Path) -> list[psutil.Process]:
    """Processes below an `up` of this workspace, other than this one."""
    mark = str(workspace.resolve())
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(OF_WORKSPACE) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # gone, or somebody else's
            continue
    return found


def end(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Ask processes to end, and make those end that do not within some seconds."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _keep(stream: IO[bytes], log: Path) -> None:
    """Write what a process says to its log, which does not grow for ever."""
    handler = RotatingFileHandler(log, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8")
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip("\n")
            handler.handle(logging.LogRecord("services", logging.INFO, "", 0, text, None, None))
    handler.close()

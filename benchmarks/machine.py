"""What a benchmark ran on, and what it held in memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The processor, its cores, the threads that libraries may use, and how busy the machine was."""
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": int(threads) if threads else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(*names: str) -> dict[str, str]:
    """Versions of packages, and of Python."""
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def peak_megabytes() -> float:
    """The most memory this process has held; `ru_maxrss` would count that of the process that started it as well."""
    return _status("VmHWM")


def held_megabytes() -> float:
    """The memory this process holds now."""
    return _status("VmRSS")


def _status(key: str) -> float:
    lines: Iterable[str] = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

"""The worker's end of `benchmarks/peers/environment.py`; it runs in the peers' own environment, without tilewatch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ANSWERS, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
Given = tuple[dict[str, Any], np.ndarray | None]


def serve(handlers: dict[str, Callable[..., Given]]) -> None:
    """Answer requests, one JSON object a line, until there are no more.

    Args:
        handlers: By what is to be done: functions of the arrays by name to an answer and an array, or None.
    """
    handlers = {"ready": lambda: ({}, None)} | handlers
    for line in sys.stdin:
        request = json.loads(line)
        arrays = {name: np.load(path) for name, path in request["arrays"].items()}
        answer, given = handlers[request["do"]](**arrays)
        if given is not None:
            np.save(request["give"], given)
        print(json.dumps(answer | {"peak_megabytes": _peak()}), file=ANSWERS, flush=True)


def _peak() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

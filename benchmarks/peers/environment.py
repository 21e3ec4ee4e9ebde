"""Environments of their own for peers that cannot live beside tilewatch, and a worker process in one of them.

An environment is made once, in a cache folder outside the repository, and named by a digest of its requirements. The
worker speaks one JSON object a line on its standard streams and is handed arrays as .npy files.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PEERS = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("TILEWATCH_BENCHMARK_CACHE", Path.home() / ".cache" / "tilewatch" / "peers"))
UV = "uv==0.13.8"


def environment(requirements: Path, cache: Path = CACHE) -> Path:
    """The Python of an environment that holds a requirements file; it is made when it is not there yet.

    `uv` installs it and is itself installed beside it: it takes torch from the registry whatever pip is told to
    prefer, and torchvision only loads with that one. The whole takes a minute and, with torch, 5 GB.

    Args:
        requirements: One pinned package a line.
        cache: Folder below which environments lie.

    Raises:
        RuntimeError: The installation failed; the last lines of what was said.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = cache / f"{requirements.stem}-{digest}"
    python, done = home / "bin" / "python", home / "complete"
    if not done.exists():
        print(f"installing {requirements.name} in {home}", file=sys.stderr, flush=True)
        tools = cache / "tools"
        if not (tools / "bin" / "uv").exists():
            _run(sys.executable, "-m", "venv", str(tools))
            _run(str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", UV)
        uv = str(tools / "bin" / "uv")
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home))
        _run(uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements))
        done.touch()
    return python


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {ran.stderr[-2000:]}")


class Worker:
    """A process in another environment that runs a peer; it is ready, with its libraries loaded, once it is made.

    Args:
        python: Of the environment.
        script: File below benchmarks/peers.
        arguments: Of the script.
    """

    def __init__(self, python: Path, script: str, *arguments: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tilewatch-peer-")
        quiet = {"PYTHONWARNINGS": "ignore", "DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(
            [str(python), str(PEERS / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | quiet,
        )
        self.peak_megabytes = 0.0
        self.ask("ready")

    def ask(self, what: str, /, **arrays: NDArray[Any]) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """One request: what to do, and the arrays it is done with.

        Returns:
            What the worker answers, and the array that it hands back, if any.

        Raises:
            RuntimeError: The worker ended; what it said is on the standard error.
        """
        paths = {}
        for name, array in arrays.items():
            paths[name] = str(Path(self._folder.name) / f"{name}.npy")
            np.save(paths[name], array)
        given = Path(self._folder.name) / "given.npy"
        given.unlink(missing_ok=True)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps({"do": what, "arrays": paths, "give": str(given)}), file=stdin, flush=True)
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self._process.args!r} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        self.peak_megabytes = answer["peak_megabytes"]
        return answer, np.load(given) if given.exists() else None

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

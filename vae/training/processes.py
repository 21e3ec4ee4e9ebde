"""Training in several processes that share each batch, one for each GPU, or some on a CPU.

Each is started as a program of its own: nothing is pickled, whoever asks may be a thread, and no script runs twice.
They find the tiles in files and each other by a port of this machine. After each epoch the first of them writes the
checkpoint, says so, and waits until it is told to go on: what `on_epoch` sees is the state after that epoch.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.schema import ModelSettings, TrainSettings
from vae.conditions import Conditions
from vae.device import choose_device
from vae.errors import VaeError
from vae.networks import VAE
from vae.normalisation import Normalisation
from vae.tiles import TileArrays
from vae.training.checkpoint import State, load_state, save_state
from vae.training.job import Job

POLL = 0.1  # seconds between two looks at whether all processes are still there
LAST_WORDS = 2000  # characters of what a process said before it ended

Told = dict[str, Any]


def train_in_processes(job: Job, state: State, checkpoint: Path | None, keep: Callable[[State, VAE], None]) -> Told:
    """Train from a state to the end.

    Args:
        job: What is fitted, in `job.settings.devices` processes.
        state: Where it starts.
        checkpoint: Rewritten by the first process after every epoch; None keeps it in a folder that is removed.
        keep: Given the state and the network after every epoch, in this process.

    Returns:
        Empty when all went well, else where training broke down: epoch, step and what.

    Raises:
        VaeError: There are too few GPUs, or a process ended in error; with its last words.
    """
    count, device = job.settings.devices, choose_device(job.settings.device)
    if device.type == "cuda" and torch.cuda.device_count() < count:
        raise VaeError(
            f"train.devices is {count}, and there are {torch.cuda.device_count()} GPUs: use as many, or fewer"
        )
    with tempfile.TemporaryDirectory(prefix="tilewatch-train-") as name:
        folder = Path(name)
        path = (checkpoint or folder / "state.safetensors").resolve()
        save_state(path, state)
        (folder / "job.json").write_text(json.dumps(_written(job, folder) | {"checkpoint": str(path)}))
        network = job.network().eval()
        with _started(folder, count, device) as processes:
            for told in _answers(processes, folder):
                if told.get("what"):
                    return told
                after = load_state(path, state.fingerprint)
                if after is None:
                    raise VaeError(f"{path} was removed or altered while training wrote it: start again")
                network.load_state_dict(after.weights)
                keep(after, network)
                processes[0].stdin.write(b"go on\n")  # type: ignore[union-attr]
    return {}


def read_job(folder: Path) -> tuple[Job, Path]:
    """What `train_in_processes` wrote, and the path of the checkpoint."""
    about = json.loads((folder / "job.json").read_text())
    train, held_out = (None if part is None else _read_tiles(part) for part in (about["train"], about["held_out"]))
    if train is None:
        raise VaeError(f"{folder / 'job.json'} names no tiles to learn from")
    job = Job(
        train,
        held_out,
        Normalisation.from_dict(about["normalisation"]),
        ModelSettings.model_validate(about["model"]),
        TrainSettings.model_validate(about["settings"]),
        about["seed"],
    )
    return job, Path(about["checkpoint"])


@contextmanager
def _started(folder: Path, count: int, device: torch.device) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes; whatever happens, none is left behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
    }
    if device.type == "cpu":
        common["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
        if sys.platform == "linux":
            common.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it asks what the machine's name resolves to
    processes = []
    try:
        for rank in range(count):
            with (folder / f"{rank}.log").open("wb") as words:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "vae.training.worker", str(folder)],
                        env=common | {"LOCAL_RANK": str(rank)},
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE if rank == 0 else words,
                        stderr=words,
                        bufsize=0,
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.kill()  # those that are done are left alone
        for process in processes:
            process.communicate()


def _answers(processes: list[subprocess.Popen[bytes]], folder: Path) -> Iterator[Told]:
    """What the first process says, one JSON object a line, until it ends."""
    stdout = processes[0].stdout
    assert stdout is not None
    os.set_blocking(stdout.fileno(), False)
    held = b""
    while True:
        ended = [process.poll() for process in processes]
        held += stdout.read() or b""
        *lines, held = held.split(b"\n")
        for line in lines:
            yield json.loads(line)
        for rank, code in enumerate(ended):
            if code:
                words = (folder / f"{rank}.log").read_text(errors="replace")[-LAST_WORDS:]
                raise VaeError(f"process {rank + 1} of {len(processes)} that trained ended with {code}: {words}")
        if None not in ended:
            return
        if not lines:
            try:
                processes[0].wait(POLL)
            except subprocess.TimeoutExpired:
                continue


def _written(job: Job, folder: Path) -> Told:
    return {
        "train": _write_tiles(job.train, folder, "train"),
        "held_out": None if job.held_out is None else _write_tiles(job.held_out, folder, "held_out"),
        "normalisation": job.normalisation.to_dict(),
        "model": job.model.model_dump(mode="json"),
        "settings": job.settings.model_dump(mode="json"),
        "seed": job.seed,
    }


def _write_tiles(tiles: TileArrays, folder: Path, name: str) -> Told:
    parts = {"values": tiles.values, "valid": tiles.valid, "scaling": tiles.scaling}
    if tiles.conditions is not None:
        parts |= {f"conditions.{field.name}": getattr(tiles.conditions, field.name) for field in fields(Conditions)}
    return {key: _where(part, folder / f"{name}.{key}.npy") for key, part in parts.items() if part is not None}


def _where(array: np.ndarray, path: Path) -> Told:
    """A file that holds an array: its own if it is all of one that is mapped into memory, else a copy."""
    owner: object = array.base
    if isinstance(owner, mmap.mmap) and isinstance(array, np.memmap) and array.flags.c_contiguous:
        about = {"path": str(Path(str(array.filename)).resolve()), "offset": array.offset}
    else:
        np.save(path, array)
        mapped = np.load(path, mmap_mode="r")
        about = {"path": str(path), "offset": mapped.offset}
    return about | {"dtype": array.dtype.str, "shape": list(array.shape)}


def _read_tiles(about: Told) -> TileArrays:
    arrays = {
        name: np.memmap(part["path"], part["dtype"], "r", part["offset"], tuple(part["shape"]))
        for name, part in about.items()
    }
    told = {name.removeprefix("conditions."): part for name, part in arrays.items() if name.startswith("conditions.")}
    return TileArrays(arrays["values"], arrays["valid"], Conditions(**told) if told else None, arrays.get("scaling"))

"""What the training loop costs beside the bare network, what it holds in memory, and that kills change nothing.

    python benchmarks/train.py [--quick] [--json] [--out DIR] [--only PART ...] [--without-peers]

Needs torch, numpy, lightning, pydantic and safetensors alone, and peers an environment of their own. Parts:

- speed: tiles a second of the loop (tiles from disk, normalised, turned, optimiser, checkpoints) beside forward and
  backward passes of the same network on random data, in turns in one process; on the CPU, and on a GPU if there is one.
- memory: the most memory that a training holds with so many tiles, and with ten times as many.
- kill: a training is killed ten times at random moments and taken up again; its weights against the undisturbed one's.
- peers: training of pythae's and PyOD's variational autoencoders on the same tiles, each beside bare passes of its own
  network. Their networks differ from ours, so that tiles a second tell what a user waits for, not whose loop is better.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

import numpy as np
import torch

from benchmarks.machine import machine, peak_megabytes, versions
from benchmarks.peers.environment import PEERS, Worker, environment
from configs.schema import ModelSettings, TrainSettings
from vae.device import choose_precision
from vae.networks import build
from vae.normalisation import Normalisation
from vae.objectives import objective
from vae.tiles import TileArrays
from vae.training import fit

BANDS, SIDE = 3, 64
SCALE, OFFSET = 1e-4, -0.1  # of the raw integers on disk
GOAL = 0.9  # of bare
KILLS = 10
SMALL = ModelSettings(width=4, depth=2, latent_channels=2)  # where not the network is measured
PARTS = ("speed", "memory", "kill", "peers")
KINDS = {"pythae-mlp": "pythae VAE, its MLP", "pythae-conv": "pythae VAE, its CelebA network", "pyod": "PyOD VAE"}


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tiles and repetitions; the same work")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the parts to measure")
    parser.add_argument("--without-peers", action="store_true", help="install and measure no peers")
    parser.add_argument("--one", nargs=2, metavar=("PART", "ABOUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        part, about = arguments.one
        print(json.dumps(memory_here(about) if part == "memory" else kill_here(int(about))))
        return
    parts = [part for part in arguments.only if part != "peers" or not arguments.without_peers]
    here = {"machine": machine() | gpu(), "versions": versions("torch", "numpy", "lightning")}
    result: dict[str, Any] = {"goal": GOAL, "measured": {}}
    for part in parts:
        result[part] = {"speed": speed, "memory": memory, "kill": kill, "peers": peers}[part](arguments.quick)
        result["measured"][part] = here
        if arguments.out:
            keep(result, arguments.out / "train.json")
    if not arguments.json:
        print_table(result)
    print(json.dumps(result))


def keep(result: dict[str, Any], path: Path) -> None:
    """Write what was measured; parts that an earlier run has measured, and this one has not, stay beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    together = before | result | {"measured": before.get("measured", {}) | result["measured"]}
    path.write_text(json.dumps(together, indent=1) + "\n", encoding="utf-8")


def print_table(result: dict[str, Any]) -> None:
    """The same for people."""
    for row in result.get("speed", []):
        print(
            f"{row['device']:<5} {row['precision']:<8} {'compiled' if row['compile'] else 'eager':<9} "
            f"batches of {row['batch']:>4}: {row['tiles_per_second']:9.1f} tiles/s, bare "
            f"{row['bare_tiles_per_second']:9.1f}: {row['share']:.1%} of bare"
        )
    for row in result.get("memory", []):
        print(f"{row['tiles']:>7} tiles, {row['data_megabytes']:6.0f} MB on disk: peak {row['peak_megabytes']:6.0f} MB")
    if killed := result.get("kill"):
        same = "the same" if killed["same_weights"] else "OTHER"
        print(f"killed {killed['kills']} times, after epochs {killed['after_epochs']}: {same} weights")
    for row in result.get("peers", []):
        print(
            f"{row['name']:<32} {row['tiles_per_second']:9.1f} tiles/s, bare {row['bare_tiles_per_second']:9.1f}: "
            f"{row['tiles_per_second'] / row['bare_tiles_per_second']:.1%} of bare, {row['parameters']} parameters"
        )


def gpu() -> dict[str, Any]:
    """The GPU's name, if there is one."""
    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def make_tiles(folder: Path, count: int) -> TileArrays:
    """Smooth ground with noise as raw integers in files that are mapped into memory; the same for the same count."""
    draw = np.random.default_rng(0)
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", np.uint16, (count, BANDS, SIDE, SIDE))
    valid = np.lib.format.open_memmap(folder / "valid.npy", "w+", np.bool_, (count, SIDE, SIDE))
    for start in range(0, count, 256):
        some = min(256, count - start)
        ground = draw.normal(size=(some, BANDS, SIDE // 8, SIDE // 8)).repeat(8, axis=2).repeat(8, axis=3)
        noise = draw.normal(size=(some, BANDS, SIDE, SIDE))
        values[start : start + some] = (2500 + 400 * ground + 60 * noise).clip(1000, 9000)
        valid[start : start + some] = draw.random((some, SIDE, SIDE)) > 0.02
    values.flush()
    return open_tiles(folder)


def open_tiles(folder: Path) -> TileArrays:
    """What `make_tiles` wrote, mapped into memory."""
    values, valid = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("values", "valid"))
    return TileArrays(values, valid, scaling=np.tile((SCALE, OFFSET), (len(values), BANDS, 1)))


def normalisation() -> Normalisation:
    """For these tiles."""
    return Normalisation.from_limits({f"B{band}": (0.05, 0.3) for band in range(BANDS)}, log=True, clip=3.0)


def speed(quick: bool) -> list[dict[str, Any]]:
    """The loop beside the bare network: each way that training is done here."""
    rows = [_speed("cpu", "float32", 64, 512 if quick else 2048, False)]
    if torch.cuda.is_available():
        tiles = 4096 if quick else 16_384
        for precision, batch, compiled in (
            ("float32", 64, False),
            ("bf16", 64, False),
            ("bf16", 512, False),
            ("bf16", 512, True),
        ):
            rows.append(_speed("cuda", precision, batch, tiles, compiled))
    return rows


def _speed(device: str, precision: str, batch: int, tiles: int, compiled: bool) -> dict[str, Any]:
    """Loop and bare passes in turns, epoch by epoch, so that whatever else the machine does hits both."""
    settings = TrainSettings(epochs=5, batch_size=batch, device=device, precision=precision, compile=compiled)  # type: ignore[arg-type]
    bare = Bare(settings)
    loop_seconds, bare_seconds = [], []
    clock = _clocks()

    def after_epoch(*_: Any) -> None:
        nonlocal clock
        loop_seconds.append(_clocks() - clock)
        clock = _clocks()
        bare.run(-(-tiles // batch))
        bare_seconds.append(_clocks() - clock)
        clock = _clocks()

    with tempfile.TemporaryDirectory() as name:
        data = make_tiles(Path(name), tiles)
        checkpoint = Path(name) / "checkpoint.safetensors"
        fit(data, None, normalisation(), ModelSettings(), settings, 0, checkpoint, after_epoch)
    (loop, loop_cpu), (passes, passes_cpu) = (
        tiles / np.median(seconds[1:], axis=0) for seconds in (loop_seconds, bare_seconds)
    )
    return {
        "device": device,
        "precision": precision,
        "compile": compiled,
        "batch": batch,
        "tiles": tiles,
        "tiles_per_second": float(loop),
        "bare_tiles_per_second": float(passes),
        "share": float(loop / passes),
        "share_of_processor_time": float(loop_cpu / passes_cpu) if device == "cpu" else None,  # whatever else runs
    }


def _clocks() -> np.ndarray:
    """Seconds on the wall, and of this process on the processor."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


class Bare:
    """Forward and backward passes of the same network and objective on random data that lie on the device.

    Neither tiles are read, nor weights changed.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self._settings, self._device = settings, torch.device(settings.device)
        self._network = build(BANDS, ModelSettings(), 0).to(self._device)
        self._called = torch.compile(self._network) if settings.compile else self._network
        source = torch.Generator(self._device).manual_seed(0)
        shape = (settings.batch_size, BANDS, SIDE, SIDE)
        self._x = torch.randn(shape, generator=source, device=self._device)
        self._valid = torch.ones(shape[0], SIDE, SIDE, dtype=torch.bool, device=self._device)
        self._draw = lambda size: torch.randn(tuple(size), generator=source, device=self._device)

    def run(self, steps: int) -> None:
        """So many passes."""
        mixed = choose_precision(self._settings.precision, self._device) == "bf16"
        for _ in range(steps):
            self._network.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
                found = objective(
                    self._called, self._x, self._valid, self._settings, 1.0, self._draw, core=self._network
                )
            found.loss.backward()


def memory(quick: bool) -> list[dict[str, Any]]:
    """The peak of a training in a process of its own, for so many tiles and for ten times as many."""
    few, rows = 512 if quick else 1024, []  # whole batches, of those that judge as well
    for tiles in (few, 10 * few):
        with tempfile.TemporaryDirectory() as name:
            for part, count in (("train", tiles), ("held_out", tiles // 4)):
                make_tiles(_folder(name, part), count)
            size = sum(path.stat().st_size for path in Path(name).rglob("*.npy")) / 1e6
            rows.append({"tiles": tiles, "data_megabytes": size} | _in_a_process("memory", name))
    return rows


def memory_here(folder: str) -> dict[str, Any]:
    """Train in this process on tiles that lie in a folder."""
    train, held_out = (open_tiles(Path(folder) / part) for part in ("train", "held_out"))
    settings = TrainSettings(epochs=1, batch_size=32, device="cpu")
    fit(train, held_out, normalisation(), SMALL, settings, 0, Path(folder) / "checkpoint.safetensors")
    return {"peak_megabytes": peak_megabytes()}


def kill(quick: bool) -> dict[str, Any]:
    """Kill a training ten times; in a process of its own, in which nothing has started a thread yet."""
    return _in_a_process("kill", str(64 if quick else 512))


def kill_here(tiles: int) -> dict[str, Any]:
    """Train undisturbed, then with kills, and compare."""
    import vae.training.trainer  # noqa: F401 (Lightning takes seconds, in which each child would be killed)

    torch.set_num_threads(1)
    draw, after = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as name:
        data, held_out = (make_tiles(_folder(name, part), count) for part, count in (("train", tiles), ("held", 32)))
        folder = Path(name)

        def start(run: str) -> int:
            process = os.fork()
            if process == 0:
                try:
                    _train_and_tell(data, held_out, folder, run)
                finally:
                    os._exit(0)
            return process

        started = time.perf_counter()
        os.waitpid(start("undisturbed"), 0)
        whole = time.perf_counter() - started
        for _ in range(KILLS):
            process = start("killed")
            time.sleep(whole * draw.uniform(0.02, 0.1))  # ten of them are less than a whole training
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            after.append(_epochs_done(folder / "killed.log"))
        finished_early = (folder / "killed.sha256").exists()
        os.waitpid(start("killed"), 0)
        undisturbed, killed = ((folder / f"{run}.sha256").read_text() for run in ("undisturbed", "killed"))
    return {
        "kills": 0 if finished_early else KILLS,
        "after_epochs": after,
        "seconds_undisturbed": whole,
        "same_weights": undisturbed == killed,
        "weights": [undisturbed, killed],
    }


def _train_and_tell(data: TileArrays, held_out: TileArrays, folder: Path, run: str) -> None:
    """Train to the end, from the checkpoint if there is one; keep a digest of the weights and the ELBOs."""

    def after_epoch(metrics: Any, network: Any) -> None:
        with (folder / f"{run}.log").open("a") as log:
            log.write(f"{metrics.epoch}\n")

    settings = TrainSettings(epochs=30, batch_size=16, device="cpu", patience=30)
    checkpoint = folder / f"{run}.safetensors"
    fitted = fit(data, held_out, normalisation(), SMALL, settings, 0, checkpoint, after_epoch)
    digest = hashlib.sha256(json.dumps([entry.elbo_held_out for entry in fitted.history]).encode())
    for name, tensor in sorted(fitted.network.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    (folder / f"{run}.sha256").write_text(digest.hexdigest())


def _epochs_done(log: Path) -> int:
    lines = log.read_text().splitlines() if log.exists() else []
    return int(lines[-1]) if lines else 0


def peers(quick: bool) -> list[dict[str, Any]]:
    """Ours and the peers on the same tiles, one after another, on the CPU."""
    tiles, epochs = (128, 2) if quick else (256, 3)  # one convolutional peer learns from two to thirty tiles a second
    ours = _speed("cpu", "float32", 64, tiles, False)
    parameters = sum(one.numel() for one in build(BANDS, ModelSettings(), 0).parameters())
    rows = [{"name": "tilewatch", "parameters": parameters} | ours]
    with tempfile.TemporaryDirectory() as name:
        data = make_tiles(Path(name), tiles)
        x = np.clip(data.physical(np.arange(tiles)) / 0.5, 0, 1).astype(np.float32)
    python = environment(PEERS / "training_requirements.txt")
    for kind, shown in KINDS.items():
        worker = Worker(python, "workers/training.py", kind, "64", str(epochs))
        try:
            answer, _ = worker.ask("fit", x=x)
        finally:
            worker.close()
        rows.append({"name": shown} | answer)
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _folder(name: str, part: str) -> Path:
    folder = Path(name) / part
    folder.mkdir()
    return folder


def _in_a_process(part: str, about: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", part, about]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{part} failed: {ran.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()

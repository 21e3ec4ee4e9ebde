"""A simulated year: a nightly run for each of 365 nights, one process for all, and what each night took.

    python benchmarks/year.py [--nights N] [--json] [--out DIR]

Three small places are simulated and a small detector is trained on the year before. Then, night by night, three new
scenes are put into the source and the flow `nightly` runs, with a Prefect server beside it that stays up, as in
operation. After each night the time it took, the memory and the open files are noted. What grows with the number of
nights would end a watch after some years: the last month is compared with the first.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings

from benchmarks.machine import held_megabytes, machine, versions
from flows.nightly import nightly
from flows.parameters import TrainRequest, Watch
from flows.train import train
from imagery.simulate import Location, Plan, simulate

NIGHTS, MONTH = 365, 30
MOST_GROWTH = 0.10
FIRST = date(2025, 1, 1)  # night; what is learned from lies in the year before
PLACES = (
    Location("tisza-plain", "river", 32634, west=463_200, north=5_218_600, size=64),
    Location("black-forest", "forest", 32632, west=441_500, north=5_309_400, size=64),
    Location("vendee-coast", "coast", 32630, west=589_700, north=5_154_900, size=64),
)
# Enough scenes of the year before that the first night is compared with as many of its season as the last: two of them.
HISTORY = tuple(FIRST - timedelta(days=days) for days in range(390, 10, -4))
TRAINING, CALIBRATION = HISTORY[:70], HISTORY[70:]
SETTINGS = {
    "name": "year",
    "source": {"root": "scenes", "bands": ["B02", "B03", "B04", "B08"]},
    "masks": {"class_band": "SCL"},
    "grid": {"tile_size": 16},
    "reference": {"scenes": 3, "seasonal": 2},
    "split": {
        "train": {"end": TRAINING[-1]},
        "calibrate": {"start": CALIBRATION[0], "end": CALIBRATION[-1]},
    },
    "model": {"depth": 2, "width": 8, "latent_channels": 4},
    "train": {"epochs": 4},
    "calibration": {"min_tiles": 20, "false_alarm_rate": 0.01},
    "injections": {"enabled": False},
    "compute": {"threads": 1},
}


@dataclass(frozen=True)
class NightCost:
    """What a night took.

    Attributes:
        night: Its date.
        seconds: From the start of the flow to its end.
        processor_seconds: Of this process, on all its threads.
        megabytes: Resident memory of this process afterwards.
        open_files: Of this process afterwards: files, sockets, pipes.
        threads: Of this process afterwards.
        server_megabytes: Resident memory of the Prefect server afterwards.
        flags: Flagged tiles.
    """

    night: str
    seconds: float
    processor_seconds: float
    megabytes: float
    open_files: int
    threads: int
    server_megabytes: float
    flags: int


JUDGED = ("seconds", "processor_seconds", "megabytes", "open_files", "threads", "server_megabytes")


def main() -> None:
    """Run the year, print the first month beside the last, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=NIGHTS, help=f"instead of {NIGHTS}")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which year.json and year.png are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs, sizes = run(Path(folder), arguments.nights, say)
    result = record(costs, sizes)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "year.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        draw(costs, arguments.out / "year.png")
    if not arguments.json:
        for row in result["results"]:
            print(
                f"{row['what']:<18} first {row['first']:9.2f}  last {row['last']:9.2f}  growth {row['growth']:+7.1%}  "
                f"{'met' if row['met'] else 'NOT MET'}"
            )
    print(json.dumps({**result, "nights": len(costs)}))


def say(number: int, total: int, cost: NightCost) -> None:
    """One line every ten nights, on standard error."""
    if number % 10 == 0 or number == total:
        print(f"{number}/{total} {json.dumps(asdict(cost))}", file=sys.stderr, flush=True)


def run(
    folder: Path, nights: int, on_night: Callable[[int, int, NightCost], None] | None = None
) -> tuple[list[NightCost], dict[str, float]]:
    """Simulate, train, and run night after night.

    Args:
        folder: An empty folder for everything.
        nights: How many.
        on_night: Called with the number of the night, how many there are, and what it took.

    Returns:
        What each night took, and the sizes of what was kept in the end, in MB.
    """
    dates = tuple(FIRST + timedelta(days=number) for number in range(nights))
    plan = Plan(11, PLACES, (*TRAINING, *CALIBRATION, *dates), TRAINING[-1], CALIBRATION[-1])
    simulate(folder / "simulated", plan)
    config, workspace = folder / "year.yaml", folder / "workspace"
    config.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    watch = Watch(config=str(config), workspace=str(workspace))
    costs: list[NightCost] = []
    with prefect_server(folder / "prefect") as server:
        for day in (*TRAINING, *CALIBRATION):
            arrive(folder, day)
        train(watch, TrainRequest(reason="before the year"))
        for number, day in enumerate(dates, start=1):
            arrive(folder, day)
            costs.append(measured(watch, day, server))
            if on_night:
                on_night(number, nights, costs[-1])
    return costs, {
        "workspace_megabytes": megabytes(workspace.rglob("*")),
        "mlflow_megabytes": megabytes(workspace.glob("mlflow.db*")),
        "prefect_megabytes": megabytes((folder / "prefect").glob("prefect.db*")),
    }


def arrive(folder: Path, day: date) -> None:
    """Put the scenes of a day into the source."""
    for place in PLACES:
        there = folder / "scenes" / place.name / f"{day}.tif"
        there.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "simulated" / place.name / there.name, there)


def measured(watch: Watch, day: date, server: psutil.Process) -> NightCost:
    """Run one night."""
    process = psutil.Process()
    started, used = time.perf_counter(), time.process_time()
    summary = nightly(watch)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    nights = [night.night for night in summary.nights]
    if nights != [day]:
        raise RuntimeError(f"the run of {day} reported {nights}")
    gc.collect()
    return NightCost(
        night=day.isoformat(),
        seconds=round(seconds, 3),
        processor_seconds=round(used, 3),
        megabytes=round(held_megabytes(), 1),
        open_files=process.num_fds(),
        threads=process.num_threads(),
        server_megabytes=round(sum(one.memory_info().rss for one in family(server)) / 2**20, 1),
        flags=summary.nights[0].flags,
    )


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started."""
    return [process, *process.children(recursive=True)]


@contextmanager
def prefect_server(home: Path) -> Iterator[psutil.Process]:
    """A Prefect server of this machine, on which the flows of the block run."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    home.mkdir(parents=True)
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_API_URL": url}
    with (home / "server.log").open("w") as log:
        server = psutil.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until_healthy(url, server)
        # Without signs of life, as commands run: with them a flow ends on the next whole second.
        here = {PREFECT_API_URL: url, PREFECT_HOME: home, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        with temporary_settings(here):
            yield server
    finally:
        started = family(server)
        server.terminate()
        _, left = psutil.wait_procs(started, timeout=20)
        for one in left:
            one.kill()


def until_healthy(url: str, server: psutil.Process, seconds: float = 120) -> None:
    """Wait for a Prefect server."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the Prefect server does not answer")


def megabytes(paths: Iterator[Path]) -> float:
    """The size of some files."""
    return round(sum(path.stat().st_size for path in paths if path.is_file()) / 2**20, 1)


def growth(values: Sequence[float], month: int = MONTH) -> dict[str, float]:
    """The median of the first nights, that of the last, and by what share the latter is greater.

    Args:
        values: One a night, in order; two at least.
        month: How many nights are compared with as many; at most half of them.
    """
    count = max(1, min(month, len(values) // 2))
    first, last = statistics.median(values[:count]), statistics.median(values[-count:])
    return {"first": first, "last": last, "growth": last / first - 1}


def record(costs: Sequence[NightCost], sizes: dict[str, float]) -> dict[str, Any]:
    """The benchmark's result."""
    rows = []
    for what in JUDGED:
        found = growth([getattr(cost, what) for cost in costs])
        rows.append(
            {
                "what": what,
                **{name: round(value, 4) for name, value in found.items()},
                "goal": MOST_GROWTH,
                "met": found["growth"] <= MOST_GROWTH,
            }
        )
    return {
        "benchmark": "year",
        "machine": machine(),
        "versions": versions("tilewatch", "prefect", "mlflow", "torch"),
        "places": len(PLACES),
        "results": rows,
        "kept": sizes,
        "nights": [asdict(cost) for cost in costs],
    }


def draw(costs: Sequence[NightCost], path: Path) -> None:
    """Time, memory and open files of every night; the first and the last month shaded."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("seconds a night", {"seconds": "elapsed", "processor_seconds": "processor"}),
        ("memory, MB", {"megabytes": "this process", "server_megabytes": "Prefect server"}),
        ("open files, threads", {"open_files": "open files", "threads": "threads"}),
    )
    numbers = range(1, len(costs) + 1)
    count = max(1, min(MONTH, len(costs) // 2))
    for axes, (label, lines) in zip(figure.subplots(len(panels), sharex=True), panels, strict=True):
        for name, words in lines.items():
            axes.plot(numbers, [getattr(cost, name) for cost in costs], linewidth=0.9, label=words)
        for start in (1, len(costs) - count + 1):
            axes.axvspan(start, start + count - 1, color="0.92", zorder=0)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right", fontsize="small", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("night")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    logging.getLogger("prefect").setLevel(logging.WARNING)
    main()

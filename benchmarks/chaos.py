"""Nightly runs that are killed -9 at random moments and started again, beside one that nobody disturbed.

    python benchmarks/chaos.py [--kills 51] [--seed 0] [--at-once 1] [--out DIR] [--json]

A watch of one small place is trained once. Then an MLflow server, a Prefect server and a worker are started. Each trial
begins with a copy of the trained workspace and an MLflow experiment of its own, in which three nights are due. The run
is a deployment's, which the worker executes. At a moment drawn evenly from the time that an undisturbed run takes, one
of three is killed: the process of the run (`engine`), the worker with that process (`worker`), or the MLflow server
with all its processes (`mlflow`). What was killed is started again, the nightly deployment runs once more, and then
everything must be as without the kill: see `benchmarks/sameness.py`. Trials at the same time have servers of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.chaos_servers import Servers, started, until
from benchmarks.machine import machine, versions
from benchmarks.sameness import differences, kept, tracked
from configs import quiet
from imagery.simulate import Event, Location, Plan, simulate

quiet.apply()

VICTIMS = ("engine", "worker", "mlflow")
DATES = tuple(date(2025, 5, 1) + timedelta(days=5 * number) for number in range(17))
NIGHTS = 3
SETTINGS = {
    "name": "meadow",
    "source": {"root": "scenes", "bands": ["B02", "B03", "B04", "B08"]},
    "masks": {"class_band": "SCL"},
    "grid": {"tile_size": 16},
    "reference": {"scenes": 3},
    "split": {"train": {"end": DATES[9]}, "calibrate": {"start": DATES[10], "end": DATES[-NIGHTS - 1]}},
    "model": {"depth": 2, "width": 8, "latent_channels": 4},
    "train": {"epochs": 3},
    "calibration": {"min_tiles": 20, "false_alarm_rate": 0.05},
    "injections": {"enabled": False},
    "compute": {"threads": 1},
}


@dataclass(frozen=True)
class Trial:
    """What became of a run that was killed.

    Attributes:
        number: From 1.
        killed: Who.
        at: Seconds after the run had begun, as drawn.
        hit: Whether the run was still at work then; runs that were faster than the undisturbed one count for nothing.
        doing: What was there of the nights at that moment.
        state: Of the run that was killed, as Prefect knows it when the next one begins.
        seconds: From its start to the end of the second run.
        different: What is not as without the kill; nothing is as it should be.
    """

    number: int
    killed: str
    at: float
    hit: bool
    doing: str
    state: str
    seconds: float
    different: tuple[str, ...]


class Chaos:
    """A trained watch, of which each trial gets a copy."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        self._folder, self.servers = folder, servers
        self._config, self._trained = folder / "meadow.yaml", folder / "trained"
        meadow = Location("meadow", "river", 32634, west=463_200, north=5_218_600, size=64)
        flood = Event("flood", "meadow", DATES[-3], DATES[-2], radius=12)
        clear = tuple(("meadow", day) for day in DATES)
        simulate(folder / "scenes", Plan(3, (meadow,), DATES, DATES[9], DATES[-NIGHTS - 1], (flood,), (), clear))
        self._config.write_text(yaml.safe_dump(SETTINGS))
        servers.train(self._config, self._trained)

    def watch(self, name: str) -> tuple[dict[str, Any], Path]:
        """A workspace in which all nights are due, and the parameter that names it."""
        workspace = self._folder / name
        shutil.copytree(self._trained, workspace)
        overrides = [f"tracking.uri={self.servers.mlflow}", f"tracking.experiment={name}"]
        overrides += [f"review.experiment={name}-review"]
        return {"config": str(self._config), "workspace": str(workspace), "overrides": overrides}, workspace

    def calm(self, name: str) -> tuple[float, dict[str, str], dict[str, Any]]:
        """A run that nobody disturbs: how long its flow took, what it left in the workspace and in MLflow."""
        watch, workspace = self.watch(name)
        run = self.servers.begin(watch)
        until(lambda: _holder(workspace), "the run begins", 0.02)
        begun = time.monotonic()
        until(lambda: not _holder(workspace), "the run ends", 0.005)
        taken = time.monotonic() - begun
        wrong = self.servers.wait(run)
        if wrong:
            raise RuntimeError(wrong[0])
        return taken, kept(workspace), tracked(self.servers.mlflow, name)

    def trial(self, number: int, victim: str, at: float, expected: tuple[dict[str, str], dict[str, Any]]) -> Trial:
        """A run that is killed at a moment, another one after it, and the comparison."""
        name, servers = f"trial-{number}", self.servers
        watch, workspace = self.watch(name)
        began = time.monotonic()
        run, wrong = servers.begin(watch), []
        until(lambda: _holder(workspace), "the run begins", 0.02)
        time.sleep(at)
        doing, at_work = _doing(workspace), _holder(workspace)
        if victim != "engine":
            servers.kill(victim)
        elif at_work:
            with suppress(ProcessLookupError):
                os.kill(at_work, signal.SIGKILL)
        if victim == "mlflow":
            wrong += servers.wait(run)  # a night goes on without it
        if victim != "engine":
            servers.start(victim)
        state = servers.state(run)
        wrong += servers.wait(servers.begin(watch))
        files, runs = kept(workspace), tracked(servers.mlflow, name)
        different = (*wrong, *differences(expected[0], files), *differences(expected[1], runs))
        if not different:
            shutil.rmtree(workspace)
        taken = round(time.monotonic() - began, 1)
        return Trial(number, victim, round(at, 3), bool(at_work), doing, state, taken, different)


def measure(folder: Path, kills: int, seed: int, at_once: int = 1) -> Iterator[dict[str, Any]]:
    """What the trials come to so far, after each of them.

    Args:
        folder: Empty.
        kills: How many runs are killed; those that were faster come in addition.
        seed: Of the moments.
        at_once: Trials at the same time, each with servers of its own, and compared with undisturbed runs there.
    """
    left, found = deque(_moments(kills, random.Random(seed))), Queue[tuple[Calm, Trial] | None]()
    trials, calms = list[Trial](), list[Calm]()

    def work(number: int) -> None:
        try:
            for one in _trials(folder / f"servers-{number}", left):
                found.put(one)
        finally:
            found.put(None)

    with ThreadPoolExecutor(at_once) as workers:
        at_work = [workers.submit(work, number) for number in range(at_once)]
        going = at_once
        try:
            while going:
                one = found.get()
                if one is None:
                    going -= 1
                    continue
                calm, trial = one
                if calm not in calms:
                    calms.append(calm)
                trials.append(replace(trial, number=len(trials) + 1))
                yield _record(seed, at_once, calms, trials)
        finally:
            left.clear()  # when it is stopped, or nothing is asked of it any more, no further trial begins
        for worker in at_work:
            worker.result()


@dataclass(frozen=True, eq=False)
class Calm:
    """Two runs that nobody disturbed.

    Attributes:
        seconds: That one took.
        files: What the first left in its workspace.
        entries: What it left in MLflow.
        differing: What was not the same in the second.
    """

    seconds: float
    files: dict[str, str]
    entries: dict[str, Any]
    differing: tuple[str, ...]

    @classmethod
    def of(cls, chaos: Chaos) -> Calm:
        """Run them."""
        (one, files, entries), (other, *again) = chaos.calm("calm"), chaos.calm("calm-again")
        differing = (*differences(files, again[0]), *differences(entries, again[1]))
        return cls((one + other) / 2, files, entries, differing)


def _trials(folder: Path, left: deque[tuple[str, float]]) -> Iterator[tuple[Calm, Trial]]:
    """Trials with servers of their own, as long as moments are left; one that came too late is put back, earlier."""
    folder.mkdir()
    with started(folder) as servers:
        chaos = Chaos(folder, servers)
        calm = Calm.of(chaos)
        for number in count(1):
            try:
                victim, share = left.popleft()
            except IndexError:
                return
            trial = chaos.trial(number, victim, share * calm.seconds, (calm.files, calm.entries))
            if not trial.hit:
                left.append((victim, 0.9 * share))
            yield calm, trial


def _record(seed: int, at_once: int, calms: Sequence[Calm], trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "benchmark": "chaos",
        "machine": machine(),
        "versions": versions("mlflow", "prefect", "torch"),
        "nights": NIGHTS,
        "seed": seed,
        "at_once": at_once,
        "undisturbed_seconds": [round(calm.seconds, 2) for calm in calms],
        "files_compared": min(len(calm.files) for calm in calms),
        "mlflow_entries_compared": min(len(calm.entries) for calm in calms),
        "two_undisturbed_runs_differ_in": [one for calm in calms for one in calm.differing],
        "kills": sum(trial.hit for trial in trials),
        "came_too_late": sum(not trial.hit for trial in trials),
        "same": sum(trial.hit and not trial.different for trial in trials),
        "by_victim": dict(Counter(trial.killed for trial in trials if trial.hit)),
        "by_moment": dict(Counter(trial.doing for trial in trials if trial.hit)),
        "trials": [asdict(trial) for trial in trials],
    }


def _moments(kills: int, draw: random.Random) -> list[tuple[str, float]]:
    """Whom to kill, in turn, and when, as a share of the run: one moment in each equal part of it, for each victim."""
    turns = -(-kills // len(VICTIMS))
    parts = {victim: draw.sample(range(turns), turns) for victim in VICTIMS}
    every = [(victim, (parts[victim][turn] + draw.random()) / turns) for turn in range(turns) for victim in VICTIMS]
    return every[:kills]


def _holder(workspace: Path) -> int | None:
    """Process of the run that is at work, as the lock tells."""
    with suppress(FileNotFoundError, ValueError):
        return int(json.loads((workspace / "locks" / "nightly.lock").read_text())["pid"])
    return None


def _doing(workspace: Path) -> str:
    """What there is of the nights."""
    finished = len(list(workspace.glob("reports/*/night.json")))
    scored = len(list(workspace.glob("scores/*/*/*_profile.json")))
    if finished == NIGHTS:
        return f"{NIGHTS} nights finished"
    if list(workspace.glob("pending/[!.]*.json")):
        return f"night {finished + 1} is told"
    if scored > finished:
        return f"night {finished + 1} is reported"
    return f"night {finished + 1} is scored" if finished or scored else "before the first score"


def _row(trial: Mapping[str, Any]) -> str:
    outcome = "; ".join(trial["different"]) or ("same" if trial["hit"] else "came too late")
    return (
        f"{trial['number']:3}  {trial['killed']:<7} {trial['at']:6.2f} s  {trial['doing']:<22} {trial['state']:<10} "
        f"{trial['seconds']:6.1f} s  {outcome}"
    )


def main() -> None:
    """Kill, compare, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=51, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--at-once", type=int, default=1, help="trials at the same time, each with its own servers")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    arguments = parser.parse_args()
    if arguments.kills < 1 or arguments.at_once < 1:
        parser.error("--kills and --at-once are at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with tempfile.TemporaryDirectory(prefix="tilewatch-chaos-") as folder:
        for result in measure(Path(folder), arguments.kills, arguments.seed, arguments.at_once):
            if not arguments.json:
                print(_row(result["trials"][-1]), flush=True)
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                (arguments.out / "chaos.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=None if arguments.json else 1))
    sys.exit(0 if result["same"] == result["kills"] else 1)


if __name__ == "__main__":
    main()

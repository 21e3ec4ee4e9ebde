"""Several processes write one catalog while others read it: a scene is there whole or not at all, during and after."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from configs import Workspace
from imagery.catalog import Catalog, SceneRecord, SceneReplaced
from tests.catalogs import grid_at
from tests.commands import ROOT

# Writes the same three scenes again and again, takes one out now and then, and one scene of its own. All numbers of a
# scene follow from its seed: fingerprint, share of valid pixels, tiles and statistics must tell the same one.
WRITER = """
import os
import sys
from datetime import timedelta
from pathlib import Path
from configs import Workspace
from imagery.catalog import Catalog
from imagery.statistics import BandStats
from tests.catalogs import enter, scene_record
from tests.rasters import DAY
catalog, me, rounds = Catalog(Workspace(Path(sys.argv[1]))), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(rounds):
    seed = 1000 * me + turn
    stats = {"B02": BandStats.of([float(seed)])}
    day = DAY + timedelta(days=turn % 3)
    if turn % 7 == 6:
        catalog.remove(scene_record(acquired=day).scene)
    else:
        enter(catalog, acquired=day, seed=seed, stats=stats, stamp=(str(seed),))
    enter(catalog, f"of {me}", seed=seed, stats=stats, stamp=(str(seed),))
os._exit(0)  # all is written; on a busy machine a library's threads may abort the interpreter as it shuts down
"""


@contextmanager
def writers(folder: Path, count: int, rounds: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that write, started at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(number), str(rounds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def check_whole(catalog: Catalog, record: SceneRecord) -> None:
    """Record, statistics and tiles of a scene are of one writing."""
    assert record.stamp == (record.fingerprint.removeprefix("f"),)
    assert record.stats["B02"].mean == int(record.stamp[0])
    tiles = catalog.tiles(record)
    assert set(tiles["fingerprint"]) == {record.fingerprint}
    assert len(tiles) == 9


@pytest.mark.slow
def test_readers_never_meet_half_a_scene_and_none_is_left_behind(tmp_path: Path) -> None:
    catalog, read, replaced = Catalog(Workspace(tmp_path)), 0, 0
    with writers(tmp_path, count=3, rounds=60) as processes:
        while any(process.poll() is None for process in processes):
            for record in catalog.scenes():
                try:
                    check_whole(catalog, record)
                    read += 1
                except SceneReplaced:  # the record is of a moment ago
                    replaced += 1
            for _, tiles in catalog.query().groupby("scene_id"):
                assert len(tiles) == 9
                assert tiles["fingerprint"].nunique() == 1
        assert [process.returncode for process in processes] == [0, 0, 0]

    assert read > 20
    records = catalog.scenes()
    assert {record.location for record in records} >= {"of 0", "of 1", "of 2"}
    for record in records:
        check_whole(catalog, record)
        if record.location != "here":
            assert record.stamp == (str(1000 * int(record.location[-1]) + 59),), "the last writing counts"
    assert {path.name for path in tmp_path.rglob("*.part*")} == set()
    assert {catalog.grid(record.location) for record in records} == {grid_at()}


@pytest.mark.slow
def test_writers_that_are_killed_leave_no_half_scene_and_hold_nobody_back(tmp_path: Path) -> None:
    catalog, draw, found = Catalog(Workspace(tmp_path)), random.Random(0), 0
    for _ in range(4):
        with writers(tmp_path, count=2, rounds=10_000) as processes:
            begun = time.monotonic()
            while not {"of 0", "of 1"} <= set(catalog.locations()):  # on a busy machine they begin late
                assert time.monotonic() < begun + 60
            for process in processes:
                time.sleep(draw.uniform(0.05, 0.4))
                process.send_signal(signal.SIGKILL)
        for record in catalog.scenes():
            check_whole(catalog, record)
            found += 1
    assert found >= 4

"""The benchmark of training runs where little is installed, and shows what is said of kills and of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.train import keep

ROOT = Path(__file__).parents[2]
# What a bare GPU machine lacks. What the rest of tilewatch is built of must not be asked for.
LACKING = ("geopandas", "mlflow", "numba", "pandas", "prefect", "rasterio", "scipy", "sklearn")

pytestmark = pytest.mark.slow


def run(*arguments: str, lacking: tuple[str, ...] = ()) -> dict:
    """What the benchmark ends with, in a process of its own."""
    start = (
        "import runpy, sys\n"
        f"for name in {lacking!r}: sys.modules[name] = None\n"
        f"sys.argv = ['train.py', *{list(arguments)!r}]\n"
        f"runpy.run_path({str(ROOT / 'benchmarks' / 'train.py')!r}, run_name='__main__')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", start],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_training_killed_ten_times_at_random_moments_ends_with_the_same_weights():
    killed = run("--quick", "--json", "--only", "kill", lacking=LACKING)["kill"]
    assert killed["kills"] == 10
    assert killed["same_weights"]
    assert killed["after_epochs"] == sorted(killed["after_epochs"])
    assert killed["after_epochs"][-1] > 0, "no kill came before the work had begun"


def test_memory_stays_flat_as_data_grow_tenfold():
    few, many = run("--quick", "--json", "--only", "memory")["memory"]
    assert many["tiles"] == 10 * few["tiles"]
    more = many["data_megabytes"] - few["data_megabytes"]
    assert more > 150
    # What libraries take varies by some megabytes from run to run; held data would be all of it.
    assert many["peak_megabytes"] < few["peak_megabytes"] + more / 5


def test_a_part_that_is_measured_anew_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    kept = tmp_path / "train.json"
    keep({"measured": {"speed": "yesterday", "kill": "yesterday"}, "speed": [1], "kill": [2]}, kept)
    keep({"measured": {"speed": "today"}, "speed": [3]}, kept)

    assert json.loads(kept.read_text()) == {
        "measured": {"speed": "today", "kill": "yesterday"}, "speed": [3], "kill": [2],
    }  # fmt: skip

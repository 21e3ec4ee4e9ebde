"""Nearly four hundred odd, huge, truncated and corrupt files: each is entered or set aside, and none stops the run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import DONE, ROOT
from tests.rasters import NORTH, WEST

# Of private memory that can be written to, touched or not. RLIMIT_AS would count the libraries' code and read-only
# mappings as well, 3.4 GB before the first file is opened; what is resident is measured besides.
MEMORY = 3 * 1024**3
PLACE = f"<PAMDataset><SRS>EPSG:32634</SRS><GeoTransform>{WEST},10,0,{NORTH},0,-10</GeoTransform></PAMDataset>"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ran:
    """One run of `tilewatch ingest`: its summary, and the most memory that one of its processes held."""

    summary: dict[str, Any]
    errors: str
    resident: int


def ingest(folder: Path, *settings: str) -> Ran:
    """Run the command on `scenes` in a folder, under the limit of memory."""
    arguments = ["ingest", "--json", "--set", "source.root=scenes", "--set", "source.bands=[B1]"]
    for setting in settings:
        arguments += ["--set", setting]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CPL_LOG": os.devnull, "MALLOC_ARENA_MAX": "4"}
    with (folder / "out").open("w") as out, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=folder,
            env=os.environ | environment | {"PREFECT_HOME": str(folder / "prefect")},
            stdout=out,
            stderr=errors,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    said = (folder / "errors").read_text(errors="replace")
    assert process.returncode == DONE, said[-2000:]
    summary = json.loads((folder / "out").read_text().splitlines()[-1])
    return Ran(summary, said, usage.ru_maxrss * 1024)


def check(ran: Ran, files: int) -> None:
    """Each file was entered, or set aside with a reason that names it; the counts that were said add up."""
    summary = ran.summary
    assert summary["ingested"] + len(summary["quarantined"]) == files
    assert summary["skipped"] == {}
    for scene, reason in summary["quarantined"].items():
        assert len(reason) > 30, (scene, reason)
        assert scene in reason or "/scenes/" in reason, (scene, reason)
        assert "unexpectedly" not in reason, (scene, reason)
    assert "unexpected" not in ran.errors
    assert "NotGeoreferencedWarning" not in ran.errors, "said in words, once, where the scene is set aside"
    assert ran.resident < MEMORY


def test_all_are_entered_or_set_aside_with_a_reason_in_one_run(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """As they are, with their own endings, masks and pyramids beside those to which they belong."""
    folder = shared("hostile")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SCAN.tsv")
    assert len(files) > 350
    for number, path in enumerate(files):
        owner = next((other for other in files if path.name.startswith(f"{other.name}.")), path)
        place = tmp_path / "scenes" / str(number if owner is path else files.index(owner))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"2020-01-01{owner.suffix}{path.name.removeprefix(owner.name)}").symlink_to(path)
    settings = ("source.pattern='{location}/{date:%Y-%m-%d}.*'", "source.band_names=[B1]")

    ran = ingest(tmp_path, *settings)

    check(ran, len(files))
    reasons = list(ran.summary["quarantined"].values())
    assert sum(reason.count("cannot be opened as GTiff") for reason in reasons) > 10
    assert sum("no coordinate reference system" in reason for reason in reasons) > 100
    assert [reason for reason in reasons if "is not on the grid" in reason] == [], "each is a place of its own"

    again = ingest(tmp_path, *settings).summary
    assert again["unchanged"] == ran.summary["ingested"]
    assert again["quarantined_before"] == len(reasons)
    assert again["ingested"] == 0


def test_the_pixels_of_all_are_read_when_they_are_given_a_place(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """Most have no place on Earth and are refused for that; with one beside them, their first bands must be read."""
    files = sorted(path for path in shared("hostile").rglob("*") if path.suffix.lower() in (".tif", ".tiff"))
    for number, path in enumerate(files):
        place = tmp_path / f"scenes/{number}/2020-01-01"
        place.mkdir(parents=True)
        (place / "B1.tif").symlink_to(path)
        (place / "B1.tif.aux.xml").write_text(PLACE)

    ran = ingest(tmp_path, "source.pattern='{location}/{date:%Y-%m-%d}/{band}.tif'")

    check(ran, len(files))
    reasons = list(ran.summary["quarantined"].values())
    assert sum("cannot be read" in reason for reason in reasons) >= 3
    assert ran.summary["ingested"] > 300

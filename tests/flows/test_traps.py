"""An archive of rasters that point elsewhere, through the real command: each is set aside, and nobody is visited."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import DONE, result, run_tilewatch
from tests.rasters import ground, write_raster
from tests.traps import TRAPS, elsewhere

pytestmark = pytest.mark.slow


def test_ingest_follows_no_raster_out_of_its_folder(tmp_path: Path) -> None:
    day = "2020-06-01"
    write_raster(tmp_path / f"scenes/good/{day}/a.tif", ground(bands=("B1",)))
    (tmp_path / "elsewhere").mkdir()
    with elsewhere(tmp_path / "elsewhere") as target:
        for number, trap in enumerate(TRAPS):
            TRAPS[trap](tmp_path / f"scenes/{number}/{day}", f"{target.url}/{number}")

        ran = run_tilewatch(
            tmp_path,
            tmp_path / "prefect",
            "ingest",
            "--json",
            *("--set", "source.root=scenes", "--set", "source.pattern='{location}/{date:%Y-%m-%d}/a.*'"),
            *("--set", "source.bands=[B1]"),
        )

        assert target.visits.read_text() == ""
    assert ran.returncode == DONE, ran.stderr
    summary = result(ran)
    assert summary["ingested"] == 1
    files = list((tmp_path / "scenes").glob(f"*/{day}/a.*"))
    assert len(summary["quarantined"]) == len(files) - 1
    for number, trap in enumerate(TRAPS):
        reason = summary["quarantined"][f"{number}/{day}"]
        assert any(words in reason for words in ("cannot be opened as", "is no TIFF", "in another file")), (
            trap,
            reason,
        )

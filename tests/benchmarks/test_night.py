"""The cost of a night, measured on a scene of a few tiles: the benchmark follows what it measures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.night import measure


def test_every_step_of_a_night_is_measured_beside_the_bare_work(tmp_path: Path) -> None:
    result = measure(tmp_path, side=256, repetitions=1)

    rows = {row["step"]: row["tiles_per_second"] for row in result["results"]}
    assert list(rows) == ["bare read", "ingest", "bare network", "score"]
    assert min(rows.values()) > 0

"""Killed nightly runs are compared with an undisturbed one, and the comparison sees what it should."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from benchmarks.chaos import VICTIMS, _moments, measure
from benchmarks.sameness import differences, kept


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A few files as nights leave them."""
    root = tmp_path / "one"
    for name, content in {
        "reports/2025-07-10/night.json": {"flags": 3, "run_id": "first"},
        "quarantine/here/2025-07-10.json": {"reason": "empty", "at": "2025-07-11T05:00:00"},
        "scores/v1/here/2025-07-10.stac.json": {"id": "scene"},
    }.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(json.dumps(content))
    return root


def changed(workspace: Path, name: str, text: str) -> list[str]:
    """What a comparison says when one file of a copy is written."""
    copy = workspace.with_name("two")
    shutil.copytree(workspace, copy)
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text(text)
    return differences(kept(workspace), kept(copy))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("reports/2025-07-10/night.json", '{"flags": 3, "run_id": "second"}', []),
        ("quarantine/here/2025-07-10.json", '{"reason": "empty", "at": "2025-07-12T05:00:00"}', []),
        ("mlflow.db", "x", []),
        ("reports/2025-07-10/night.json", '{"flags": 4, "run_id": "first"}', ["reports/2025-07-10/night.json differs"]),
        ("scores/v1/here/2025-07-10.stac.json", '{"id":  "scene"}', ["scores/v1/here/2025-07-10.stac.json differs"]),
        ("scores/v1/here/.a.part.tif", "half", ["scores/v1/here/.a.part.tif is too many"]),
        ("pending/2025-07-10.json", "{}", ["pending/2025-07-10.json is too many"]),
    ],
)
def test_all_but_run_ids_and_times_must_be_the_same(workspace: Path, name: str, text: str, told: list[str]) -> None:
    assert changed(workspace, name, text) == told


def test_a_file_that_is_lost_is_told(workspace: Path) -> None:
    found = kept(workspace)

    assert differences(found, {}) == [f"{name} is missing" for name in found]


def test_the_moments_cover_the_whole_run_for_each_victim() -> None:
    moments = _moments(30, random.Random(0))

    for victim in VICTIMS:
        shares = sorted(share for who, share in moments if who == victim)
        assert [int(share * 10) for share in shares] == list(range(10))
    assert [who for who, _ in moments[:3]] == list(VICTIMS)
    assert [share for _, share in moments] != sorted(share for _, share in moments)


@pytest.mark.slow
@pytest.mark.servers
def test_runs_killed_with_their_engine_worker_or_mlflow_end_as_if_nobody_had_disturbed_them(tmp_path: Path) -> None:
    *_, result = measure(tmp_path, kills=len(VICTIMS), seed=1)

    assert result["two_undisturbed_runs_differ_in"] == []
    assert [trial["different"] for trial in result["trials"] if trial["different"]] == []
    assert result["kills"] == len(VICTIMS)
    assert set(result["by_victim"]) == set(VICTIMS)
    assert result["files_compared"] > 30

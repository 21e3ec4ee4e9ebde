"""A workspace of another version of tilewatch: its scenes are read again, and nothing falls over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import Settings, Workspace
from imagery.catalog import Catalog
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tests.rasters import ground, watch_settings, write_raster


def run(settings: Settings, workspace: Workspace) -> int:
    """Ingest what is new; how many scenes that was."""
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    return len(plan.scenes)


def test_scenes_whose_record_is_of_another_version_are_read_again_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for day in (1, 2, 3):
        write_raster(tmp_path / f"scenes/here/2020-06-0{day}.tif", ground(seed=day))
    settings, workspace = watch_settings(tmp_path / "scenes"), Workspace(tmp_path / "w")
    assert (run(settings, workspace), run(settings, workspace)) == (3, 0)
    before = {record.scene_id: record.fingerprint for record in Catalog(workspace).scenes()}
    older, newer, _ = sorted((tmp_path / "w/catalog/here").glob("2020*.json"))
    record = json.loads(older.read_text())
    older.write_text(json.dumps({key: value for key, value in record.items() if key not in ("format", "masked")}))
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"haze": 0.5}))
    caplog.clear()

    assert len(Catalog(workspace).scenes()) == 1
    assert (run(settings, workspace), run(settings, workspace)) == (2, 0)

    assert caplog.text.count("written by another version of tilewatch") == 1
    assert {record.scene_id: record.fingerprint for record in Catalog(workspace).scenes()} == before

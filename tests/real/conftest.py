"""Real imagery lies outside the repository; tests that need it skip where it is absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import Settings, Workspace, load_settings
from imagery.catalog import Catalog, SceneRecord
from imagery.quarantine import Quarantine
from tasks.ingest import ingest_scene, plan_ingest, settle_grids

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A folder of the shared imagery."""

    def folder(name: str) -> Path:
        root = Path(os.environ.get("TILEWATCH_SHARED_DATA") or ROOT.parent / "shared" / "data")
        if not (root / name).is_dir():
            pytest.skip(f"the real imagery {root / name} is not there: set TILEWATCH_SHARED_DATA to where it lies")
        return root / name

    return folder


def preset(name: str, root: Path, *overrides: str) -> Settings:
    """A shipped preset, reading from a folder."""
    return load_settings(ROOT / "configs" / f"{name}.yaml", [f"source.root={root}", *overrides], environment={})


def ingested(settings: Settings, workspace: Workspace) -> tuple[list[SceneRecord], dict[str, str]]:
    """The scenes that were entered, and those that were set aside with the reason."""
    plan = plan_ingest(settings, workspace)
    assert plan.skipped == ()
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        ingest_scene(scene, settings, workspace)
    quarantined = {record.scene_id: record.reason for record in Quarantine(workspace).records()}
    return Catalog(workspace).scenes(), quarantined

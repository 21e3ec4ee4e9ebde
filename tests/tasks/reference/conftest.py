"""Scenes of one place, and tonight's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from tests.places import FIRST, ingested, write_scene
from tests.rasters import watch_settings
from tests.tasks.reference.scenes import AFTER


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scenes"


@pytest.fixture
def settings(root: Path) -> Settings:
    return watch_settings(root, masks={"class_band": "SCL"}, reference={"scenes": 4, "seasonal": 0})


@pytest.fixture
def records(root: Path, settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """Six scenes, five days apart; the fourth is mostly cloud."""
    for number in range(6):
        write_scene(root, FIRST + timedelta(days=5 * number), clouded=80 if number == 3 else 5)
    return ingested(settings, workspace)


@pytest.fixture
def tonight(root: Path, settings: Settings, workspace: Workspace, records: list[SceneRecord]) -> SceneRecord:
    """A seventh scene, two pixels off."""
    write_scene(root, AFTER, 2, -1, gain=1.2)
    return ingested(settings, workspace)[-1]

"""What a truth says of a scored scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs import Period, Settings, Workspace
from tasks.evaluate import read_scores
from tasks.truth import SceneTruth, ScoredScene, Shares, load_truth, scored_scenes
from tests.rasters import watch_settings
from tests.tasks.truth.given import WINDOW


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return watch_settings(tmp_path, grid={"tile_size": 32})


@pytest.fixture
def answers(workspace: Workspace, settings: Settings) -> Callable[..., SceneTruth | None]:
    """What a truth says of a scene."""

    def ask(
        path: Path | str, scene: ScoredScene, kind: Any = "auto", complete: bool = False, shares: Shares | None = None
    ) -> SceneTruth | None:
        scenes = scored_scenes(workspace, "v1", Period())
        truth = load_truth(str(path), kind, scenes, settings, workspace, complete)
        return truth.of(scene, read_scores(scene, "score", WINDOW), shares or Shares())

    return ask

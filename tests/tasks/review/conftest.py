"""Questions without scenes: what a night asks, put into an embedded MLflow."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from configs import Settings, Workspace
from configs.workspace import write_text
from tasks.nights import night_folder
from tasks.review.questions import FILE, Question

NIGHT = date(2025, 7, 1)


def make_question(number: int, location: str = "oxbow", night: date = NIGHT, asked: str = "flag") -> Question:
    """A question about one of the tiles of a place."""
    return Question(
        night=night,
        location=location,
        scene_id=f"{location}/{night}",
        tile_id=f"{location}-r{32 * number:05d}-c00000",
        asked=asked,
        share=1.0 if asked == "flag" else 0.125,
        detector_version="v3",
        score=20.0 - number / 10,
        p_value=0.001,
        p_reviewed=0.001,
        threshold=8.0,
        kind="aligned_difference",
        suppressed="",
        latitude=47.1,
        longitude=20.5,
        valid_fraction=0.98,
        bands={"B08": 0.6, "B04": 0.4},
    )


def keep_questions(workspace: Workspace, *questions: Question) -> None:
    """Keep what a night asks, each with a picture."""
    found = []
    for number, one in enumerate(questions):
        picture = night_folder(workspace, one.night) / "questions" / f"{number}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(jpeg(number))
        found.append(asdict(one) | {"night": str(one.night), "picture": str(picture.relative_to(workspace.root))})
    path = night_folder(workspace, questions[0].night) / FILE
    write_text(path, json.dumps({"format": 1, "questions": found}))


def jpeg(seed: int, side: int = 160) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "jpeg", quality=70)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an MLflow in which nothing was logged yet; making one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def workspace(tmp_path: Path, empty_mlflow: Path) -> Workspace:
    made = Workspace(tmp_path / "workspace")
    made.root.mkdir()
    shutil.copy(empty_mlflow, made.root / "mlflow.db")
    return made


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate({"name": "meadow"})


@pytest.fixture
def with_settings() -> Callable[..., Settings]:
    return lambda **review: Settings.model_validate({"name": "meadow", "review": review})

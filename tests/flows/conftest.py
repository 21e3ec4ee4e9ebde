"""A small watch on a simulated place, trained once; flows run in this process against a database of their own."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from flows.parameters import TrainRequest, Watch
from flows.train import TrainSummary, train
from imagery.simulate import Event, Location, Plan, simulate

DATES = tuple(date(2024, 3, 1) + timedelta(days=6 * number) for number in range(40))
TRAIN_END, CALIBRATE_END = DATES[19], DATES[27]
GAIN_FROM = DATES[32]
SETTINGS = {
    "name": "meadow",
    "source": {"root": "scenes", "bands": ["B02", "B03", "B04", "B08"]},
    "masks": {"class_band": "SCL"},
    "grid": {"tile_size": 16},
    "reference": {"scenes": 3},
    "split": {"train": {"end": TRAIN_END}, "calibrate": {"start": DATES[20], "end": CALIBRATE_END}},
    "model": {"depth": 2, "width": 8, "latent_channels": 4},
    "train": {"epochs": 8},
    "calibration": {"min_tiles": 20, "false_alarm_rate": 0.05},
    "injections": {"kinds": ["flood"], "tiles": 5},
    "compute": {"threads": 1},
}


@pytest.fixture(scope="session")
def prefect_database(prefect_server: str) -> None:
    """Flows of this process keep their history apart."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, prefect_database: None) -> tuple[Watch, TrainSummary]:
    """A trained watch. Tests that change it work on a copy: `fresh_watch`."""
    folder = tmp_path_factory.mktemp("watch")
    meadow = Location("meadow", "river", 32634, west=463_200, north=5_218_600, size=64)
    flood = Event("flood", "meadow", DATES[29], DATES[30], radius=12)
    clear = tuple(("meadow", day) for day in DATES)
    plan = Plan(3, (meadow,), DATES, TRAIN_END, CALIBRATE_END, (flood,), (), clear, GAIN_FROM, 1.6)
    simulate(folder / "scenes", plan)
    config = folder / "meadow.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    watch = Watch(config=str(config), workspace=str(folder / "workspace"))
    return watch, train(watch, TrainRequest(reason="first"))


@pytest.fixture
def fresh_watch(trained: tuple[Watch, TrainSummary], tmp_path: Path) -> Watch:
    """The trained watch in a folder of its own. Its MLflow artifacts stay where they were logged."""
    watch, _ = trained
    copy = tmp_path / "workspace"
    shutil.copytree(watch.workspace, copy)
    return watch.model_copy(update={"workspace": str(copy)})

"""After a training: who is the champion, and what is kept of the comparison. No night is scored by two detectors."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from configs.schema import PromotionSettings, ScoreSettings
from flows.models import PromoteRequest, promote, settle
from flows.nightly import nightly
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.train import TrainSummary, train
from tasks import registry, steps, tracking
from tasks.calibrate import calibrate_detector
from tasks.frozen import FrozenSet
from tasks.train import train_detector
from tests.flows.conftest import DATES
from tests.places import CALIBRATE, TRAIN, Watched, day, watched
from vae.detector import Detector

pytestmark = pytest.mark.slow
END = day(TRAIN + CALIBRATE - 1)


@pytest.fixture(scope="module")
def place_and_worse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, Detector]:
    """A watched place with its detector, and one that does not look back."""
    place = watched(tmp_path_factory.mktemp("place"))
    score = ScoreSettings(name="rx", without_past="rx", also=())
    settings = place.settings.model_copy(update={"score": score})
    trained = train_detector(settings, place.workspace)
    return place, calibrate_detector(trained.detector, trained.split, settings, place.workspace).detector


@pytest.fixture
def place(place_and_worse: tuple[Watched, Detector], tmp_path: Path) -> Watched:
    place, _ = place_and_worse
    copy = tmp_path / "workspace"
    shutil.copytree(place.workspace.root, copy)
    return replace(place, workspace=type(place.workspace)(copy))


def trained_as(detector: Detector, place: Watched, alias: str = "challenger", **promotion: object) -> tuple[str, str]:
    """Register a detector as a training does, and settle who is the champion: its run, and the verdict."""
    settings = place.settings.model_copy(update={"promotion": PromotionSettings(**promotion)})
    with tracking.run(settings, place.workspace, "train", "train", {}) as run:
        version = registry.register(detector, settings, "", alias)  # type: ignore[arg-type]
        settled = settle(version, END, settings, place.workspace)
    assert settled.promoted == (registry.champion(settings, place.workspace)[1] == version)
    return run.info.run_id, settled.verdict


def test_a_better_challenger_takes_over_and_all_of_the_comparison_is_kept(
    place: Watched, place_and_worse: tuple[Watched, Detector], prefect_database: None
) -> None:
    _, worse = place_and_worse
    _, first = trained_as(worse, place)
    run_id, verdict = trained_as(place.detector, place)

    assert first == "the first detector of this watch"
    assert verdict.startswith("v2 is better than v1.")
    assert registry.champion(place.settings, place.workspace)[1] == "v2"
    row = registry.listed(place.settings, place.workspace)[0]
    assert row.aliases == ("champion",)
    assert (row.instead_of, row.promoted_why) == ("v1", verdict)
    run = mlflow.MlflowClient().get_run(run_id)
    metrics = run.data.metrics
    assert metrics["challenge/ap"] == row.compared["ap"] > row.compared["ap_champion"]
    assert metrics["challenge/difference_low"] == row.compared["low"] > 0
    assert run.data.tags["tilewatch.verdict"] == verdict
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id))
    assert {path.name for path in (folder / "challenge").iterdir()} == {
        "frozen.json",
        "tiles.parquet",
        "challenge.json",
    }
    frozen = FrozenSet.from_json((folder / "challenge" / "frozen.json").read_text())
    assert frozen.digest == row.compared["frozen"]
    assert len(pd.read_parquet(folder / "challenge" / "tiles.parquet")) > 300
    assert json.loads((folder / "challenge" / "challenge.json").read_text())["better"] is True
    assert (folder / "figures" / "challenge.png").stat().st_size > 5000
    assert {one["kind"] for one in _rows(folder / "challenge.json")} == {"flood", "bare_soil"}


def test_an_equal_challenger_leaves_the_champion_and_says_how_to_promote_it(
    place: Watched, prefect_database: None
) -> None:
    trained_as(place.detector, place)
    _, verdict = trained_as(place.detector, place)

    assert registry.champion(place.settings, place.workspace)[1] == "v1"
    assert registry.listed(place.settings, place.workspace)[0].aliases == ("challenger",)
    assert verdict.startswith("v2 is not shown to be better than v1: v1 goes on.")
    assert verdict.endswith("`tilewatch models promote v2` makes it the champion.")


def test_a_better_challenger_waits_where_people_decide_and_goes_on_untested_where_nobody_does(
    place: Watched, place_and_worse: tuple[Watched, Detector], prefect_database: None
) -> None:
    _, worse = place_and_worse
    trained_as(worse, place)
    _, asked = trained_as(place.detector, place, when="asked")
    _, untested = trained_as(worse, place, when="always")

    assert asked.startswith("v2 is better than v1.")
    assert "promotion.when is asked: `tilewatch models promote v2` makes it the champion." in asked
    assert untested == "promotion.when is always: not compared"
    assert registry.champion(place.settings, place.workspace)[1] == "v3"
    assert registry.listed(place.settings, place.workspace)[0].compared == {}


def test_a_champion_that_cannot_score_the_scenes_any_more_loses(place: Watched, prefect_database: None) -> None:
    other = replace(place.detector, metadata={**place.detector.metadata, "reading_key": "other"})
    trained_as(other, place)
    _, verdict = trained_as(place.detector, place)
    assert verdict.startswith("v1 cannot score the scenes as they are read now, so v2 takes over: the detector was")

    # Nor does one whose files were changed.
    folder = registry.champion(place.settings, place.workspace)[0]
    shutil.rmtree(folder)
    mlflow.MlflowClient().set_model_version_tag(place.settings.name, "2", registry.DIGEST_TAG, "0" * 64)
    _, verdict = trained_as(place.detector, place)
    assert "v3 takes over" in verdict
    assert "somebody changed them" in verdict


def test_with_nothing_to_compare_on_the_champion_goes_on(place: Watched, prefect_database: None) -> None:
    weather = place.settings.injections.model_copy(update={"kinds": ("haze",)})
    place = replace(place, settings=place.settings.model_copy(update={"injections": weather}))
    trained_as(place.detector, place)
    _, verdict = trained_as(place.detector, place)
    assert verdict.startswith("v2 was not compared with v1, which goes on: nothing can be injected")


def test_a_second_training_with_the_same_settings_is_refused_and_the_nights_go_on(
    fresh_watch: Watch, trained: tuple[Watch, TrainSummary]
) -> None:
    assert trained[1].promoted
    assert trained[1].verdict == "the first detector of this watch"

    again = train(fresh_watch, TrainRequest(reason="again"))

    assert again is not None
    assert (again.detector_version, again.promoted) == ("v2", False)
    (record,) = nightly(fresh_watch, NightRequest(night=DATES[28])).nights
    assert record.detector_version == "v1"

    # Promoted in the Prefect UI while a run is under way: that run ends with the detector that it began with.
    settings, workspace = fresh_watch.open()
    started = workspace.scores / "v1" / "meadow" / f"{DATES[29]}.parquet"
    last = workspace.reports / str(DATES[31]) / "night.json"
    moved: list[tuple[str, bool]] = []

    def click() -> None:
        end = time.monotonic() + 120
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.01)
        move = registry.promote(settings, workspace, "challenger", "clicked")
        moved.append((move.of if move else "", last.exists()))

    clicking = threading.Thread(target=click)
    clicking.start()
    done = nightly(fresh_watch, NightRequest(since=DATES[29], until=DATES[31]))
    clicking.join()

    assert moved == [("v2", False)]
    assert [record.detector_version for record in done.nights] == ["v1", "v1", "v1"]
    assert not (workspace.scores / "v2").exists()
    (record,) = nightly(fresh_watch, NightRequest(night=DATES[32])).nights
    assert record.detector_version == "v2"
    for night, version in ((DATES[31], "v1"), (DATES[32], "v2")):
        scores = pd.read_parquet(workspace.scores / version / "meadow" / f"{night}.parquet")
        assert set(scores["detector_version"]) == {version}

    back = promote(fresh_watch, PromoteRequest(version="previous"))
    assert (back.champion, back.instead_of) == ("v1", "v2")
    steps.load_detector.cache_clear()


@pytest.mark.parametrize("version", ["champion", "v0", "3.1", "../v1", ""])
def test_the_form_takes_versions_and_nothing_else(version: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        PromoteRequest(version=version)


def _rows(path: Path) -> list[dict[str, object]]:
    """The rows of a table that MLflow has logged."""
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

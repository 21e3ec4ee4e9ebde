"""`tilewatch evaluate`: scores against a truth, in JSON, in words, and in an MLflow run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from configs import Workspace
from flows.evaluate import EvaluateRequest
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch
from tests.rasters import BANDS, write_raster
from tests.scored import HERE, write_scored

Tilewatch = Callable[..., subprocess.CompletedProcess[str]]
ARTIFACTS = {
    "evaluation.json", "request.json", "metrics.json", "scenes.json", "settings.json", "tiles.parquet", "curves.png",
    "kinds.png", "scores.png",
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture
def tilewatch(tmp_path: Path, prefect_server: str) -> Tilewatch:
    """`tilewatch evaluate` on two places with two scored dates each and a mask of an event in the first three tiles."""
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump({"source": {"root": "scenes", "bands": list(BANDS)}}))
    mask = np.zeros((HERE.height, HERE.width), dtype=np.uint8)
    mask[:32, :96] = 1
    for place in ("a", "b"):
        write_raster(tmp_path / f"truth/{place}.tif", {"event": mask})
        for day in ("2020-06-01", "2020-06-11"):
            other = {"score_cva": np.arange(35) * 1.0}
            write_scored(Workspace(tmp_path / "workspace"), {0, 1, 5}, location=place, day=day, **other)
    return partial(
        run_tilewatch,
        tmp_path,
        prefect_server,
        "evaluate",
        "-c",
        "watch.yaml",
        "--version",
        "v1",
        "--repetitions",
        "50",
    )


def test_one_json_object_holds_every_number_and_the_run_keeps_it(tilewatch: Tilewatch, tmp_path: Path) -> None:
    ran = tilewatch("--truth", "truth", "--against", "cva", "--json")
    assert ran.returncode == DONE, ran.stderr
    found = result(ran)

    assert (found["detector_version"], found["positives"], found["flags"]) == ("v1", 12, 12)
    assert found["estimates"]["recall"]["value"] == pytest.approx(2 / 3)
    assert 0 < found["estimates"]["pro"]["value"] < 1
    assert found["comparison"]["differences"]["average_precision"]["low"] is not None
    kept = {path.name: path for path in (tmp_path / "workspace/mlartifacts").rglob("*") if path.is_file()}
    assert set(kept) == ARTIFACTS
    assert json.loads(kept["evaluation.json"].read_text()) == found
    tiles = pd.read_parquet(kept["tiles.parquet"])
    assert tiles["positive"].sum() == 12
    assert {"share", "kind", "other"} <= set(tiles.columns)
    assert found["run_id"] in str(kept["tiles.parquet"])


def test_a_person_reads_what_was_found_what_was_left_out_and_what_the_intervals_are_worth(
    tilewatch: Tilewatch, tmp_path: Path
) -> None:
    labels = pd.DataFrame({"tile_id": ["a-r00000-c00000", "a-r00000-c00032"], "date": "2020-06-01", "label": [1, 0]})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    ran = tilewatch("--truth", "labels.csv", "--complete", "--until", "2020-06-01")

    assert ran.returncode == DONE, ran.stderr
    assert "1 of 68 tiles show an event, in 2 scenes of 2 locations" in ran.stdout
    assert "2 tiles without a score" in ran.stdout
    assert "false alarm rate" in ran.stdout
    assert "Intervals: none, since there is one date only." in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--truth", "nowhere.geojson"), FAILED, "there is no nowhere.geojson"),
        (("--truth", "truth", "--positive-share", "2"), WRONG, "positive_share: Input should be less than 1"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_words(
    tilewatch: Tilewatch, arguments: tuple[str, ...], status: int, words: str
) -> None:
    ran = tilewatch(*arguments)

    assert ran.returncode == status, ran.stderr
    assert words in ran.stderr
    assert in_words(ran)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"positive_share": 0.1, "negative_share": 0.5}, "a tile would be both"),
        ({"since": "2020-06-02", "until": "2020-06-01"}, "starts .* after it ends"),
        ({"truth_kind": "guess"}, "'auto', 'mask', 'polygons' or 'labels'"),
        ({"repetitions": 0}, "greater than or equal to 1"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EvaluateRequest(truth="truth", **values)

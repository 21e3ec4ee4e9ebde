"""The presets on real imagery, from the command line: train, and look at the nights after."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from tests.commands import DONE, result, run_tilewatch, state
from tests.real.conftest import ROOT

SMALL = ("--set", "model.width=8", "--set", "train.epochs=2", "--set", "train.device=cpu", "--json")

pytestmark = pytest.mark.slow


def test_no_tile_of_the_border_of_a_landsat_scene_gets_a_score(
    shared: Callable[[str], Path], tmp_path: Path, prefect_server: str
) -> None:
    folder = shared("landsat8")
    few = ("--set", f"source.root={folder}", "--set", "injections.enabled=false")
    watch = ("--config", ROOT / "configs/landsat8.yaml", *few, *SMALL)

    trained = run_tilewatch(tmp_path, prefect_server, "train", *watch)
    ran = run_tilewatch(tmp_path, prefect_server, "nightly", "--night", "2020-05-18", *watch)

    assert trained.returncode == DONE, trained.stderr
    assert result(trained)["calibration_basis"] == "training"
    assert ran.returncode == DONE, ran.stderr
    (night,) = result(ran)["nights"]
    with rasterio.open(next(folder.glob("*.TIF"))) as dataset:
        usable = (dataset.read() != 0).all(axis=0)
        crs, transform = dataset.crs, dataset.transform
    stem = tmp_path / "workspace/scores/v1/224078/2020-05-18"
    scores = gpd.read_parquet(stem.with_suffix(".parquet"))
    assert len(scores) == night["tiles"] == 32 * 30
    for tile in scores.itertuples():
        share = usable[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width].mean()
        assert np.isfinite(tile.score) == (share >= 0.5)
        assert isinstance(tile.reason, str) == (share < 0.5)
        assert np.isfinite(tile.score) or not tile.flagged
    with rasterio.open(stem.with_name("2020-05-18_anomaly.tif")) as heatmap:
        assert (heatmap.crs, heatmap.transform) == (crs, transform)
        assert np.isnan(heatmap.read(1)[~usable]).all()


def test_nights_over_romania_come_in_order_and_change_nothing_the_second_time(
    shared: Callable[[str], Path], tmp_path: Path, prefect_server: str
) -> None:
    (tmp_path / "scenes").mkdir()
    for path in shared("romania_s2").glob("*.tif"):
        if "2018-06" < path.name < "2019-08":
            shutil.copy(path, tmp_path / "scenes")
    few = ("--set", "source.root=scenes", "--set", "injections.tiles=5")
    watch = ("--config", ROOT / "configs/romania.yaml", *few, *SMALL)
    until = ("--until", "2019-07-31")

    trained = run_tilewatch(tmp_path, prefect_server, "train", *watch)
    ran = run_tilewatch(tmp_path, prefect_server, "nightly", *until, *watch)

    assert trained.returncode == DONE, trained.stderr
    assert result(trained)["calibration_basis"] == "held_out"
    assert ran.returncode == DONE, ran.stderr
    nights = result(ran)["nights"]
    days = [night["night"] for night in nights]
    assert days == sorted(days)
    assert "2019-07-01" <= days[0] <= days[-1] <= "2019-07-31"
    workspace, kinds = tmp_path / "workspace", set[str]()
    for night in nights:
        assert (workspace / night["report"]).is_file()
        for scene in night["scenes"]:
            scores = gpd.read_parquet(workspace / f"scores/v1/{scene}.parquet")
            assert (scores["score"].notna() == (scores["valid_fraction"] >= 0.5)).all()
            assert not scores.loc[scores["score"].isna(), "flagged"].any()
            assert set(scores["kind"]) <= {"change", "novelty", ""}
            assert set(scores.loc[scores["score"].notna(), "basis"]) <= {"calibrated"}
            kinds |= set(scores["kind"])
    assert "change" in kinds

    before = state(workspace)
    again = run_tilewatch(tmp_path, prefect_server, "nightly", *until, *watch)
    assert again.returncode == DONE, again.stderr
    assert result(again)["nights"] == []
    assert state(workspace) == before

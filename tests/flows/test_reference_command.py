"""`tilewatch reference`: what a place normally looks like, found or built, and built again to the same bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from configs import Workspace, load_settings
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tests.commands import DONE, FAILED, WRONG, in_words, result, run_tilewatch
from tests.rasters import BANDS, ground, write_raster

Tilewatch = Callable[..., subprocess.CompletedProcess[str]]
DAYS = ("2020-06-01", "2020-06-04", "2020-06-07", "2020-06-10")


@pytest.fixture
def tilewatch(tmp_path: Path) -> Tilewatch:
    """The command, with a catalog of four dates of a meadow, each brighter than the one before."""
    for number, day in enumerate(DAYS):
        bright = {band: values + np.uint16(10 * number) for band, values in ground().items()}
        write_raster(tmp_path / f"scenes/meadow/{day}.tif", bright)
    source = {"root": "scenes", "bands": list(BANDS)}
    config = tmp_path / "meadow.yaml"
    config.write_text(yaml.safe_dump({"source": source, "grid": {"tile_size": 16}, "model": {"depth": 2}}))
    settings, workspace = load_settings(config, environment={}), Workspace(tmp_path / "workspace")
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    return partial(run_tilewatch, tmp_path, tmp_path / "prefect")


def built(ran: subprocess.CompletedProcess[str], folder: Path) -> tuple[list[str], Path]:
    """The members and the file of the one reference."""
    assert ran.returncode == DONE, ran.stderr
    (reference,) = result(ran)["references"]
    return [member["scene_id"] for member in reference["members"]], folder / reference["path"]


def test_a_reference_is_the_median_of_the_scenes_before_a_night_and_comes_out_the_same_when_deleted(
    tilewatch: Tilewatch, tmp_path: Path
) -> None:
    members, path = built(tilewatch("reference", "-c", "meadow.yaml", "--night", "2020-06-10", "--json"), tmp_path)

    assert members == [f"meadow/{day}" for day in DAYS[:3]]
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == (*BANDS, "count")
        np.testing.assert_allclose(dataset.read(1), (ground()["B02"] + 10) * 1e-4, rtol=1e-6)
        assert (dataset.read(5) == 3).all()
    first = path.read_bytes()
    path.unlink()
    assert built(tilewatch("reference", "-c", "meadow.yaml", "--night", "2020-06-10", "--json"), tmp_path)[1] == path
    assert path.read_bytes() == first


def test_without_a_night_it_is_that_after_the_last_scene_and_a_person_sees_where_it_lies(
    tilewatch: Tilewatch, tmp_path: Path
) -> None:
    members, path = built(tilewatch("reference", "-c", "meadow.yaml", "--json"), tmp_path)

    assert members == [f"meadow/{day}" for day in DAYS]
    spoken = tilewatch("reference", "-c", "meadow.yaml")
    assert spoken.returncode == DONE
    assert "2020-06-01" in spoken.stdout
    assert str(path.relative_to(tmp_path)) in spoken.stdout


def test_what_cannot_be_shown_is_said_in_words(tilewatch: Tilewatch) -> None:
    unknown = tilewatch("reference", "-c", "meadow.yaml", "--location", "medow")
    elsewhere = tilewatch("reference", "-c", "meadow.yaml", "-w", "nowhere")
    none = tilewatch("reference", "-c", "meadow.yaml", "--night", "2020-06-01")

    assert (unknown.returncode, elsewhere.returncode, none.returncode) == (WRONG, FAILED, DONE)
    assert "did you mean meadow?" in unknown.stderr
    assert "tilewatch ingest" in elsewhere.stderr
    assert in_words(unknown)
    assert in_words(elsewhere)
    assert "No place has a clear scene" in none.stdout

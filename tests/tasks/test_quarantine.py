"""What cannot be used is set aside with the reason, stops nothing else, and comes back when it is repaired."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import Workspace
from imagery.catalog import Catalog
from imagery.quarantine import Quarantine
from tasks.ingest import Ingested, ingest_scene, plan_ingest, settle_grids
from tests.archives import DATES, archive, files, run
from tests.rasters import WEST, ground, watch_settings, write_raster


def spoil_truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil_text(path: Path) -> None:
    path.write_text("<html>Service unavailable</html>")


def spoil_band(path: Path) -> None:
    write_raster(path, ground(40, 40, ("B02", "B03", "B04")))


def spoil_grid(path: Path) -> None:
    write_raster(path, ground(40, 40), west=WEST + 400)


def spoil_crs(path: Path) -> None:
    write_raster(path, ground(40, 40), crs="EPSG:32633")


def spoil_local_crs(path: Path) -> None:
    write_raster(path, ground(40, 40), crs='LOCAL_CS["survey",UNIT["metre",1]]')


def spoil_all_nodata(path: Path) -> None:
    write_raster(path, ground(40, 40), missing=np.ones((40, 40), bool), nodata="declared")


def spoil_numbers(path: Path) -> None:
    write_raster(path, ground(40, 40), dtype="complex64")


BAD = [
    (spoil_truncated, ["2020-06-06.tif", "cannot be read"]),
    (spoil_text, ["2020-06-06.tif cannot be opened as GTiff"]),
    (spoil_band, ["no band B08", "found: B02, B03, B04"]),
    (spoil_grid, ["covers nothing of here (40 x 40 px of 10 from 500000, 5200000 in EPSG:32634)"]),
    (spoil_crs, ["covers nothing of here"]),
    (spoil_local_crs, ["2020-06-06.tif"]),
    (spoil_all_nodata, ["here/2020-06-06 has no data", "nodata"]),
    (spoil_numbers, ["complex"]),
]


@pytest.mark.parametrize(("spoil", "told"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_scene_is_set_aside_in_words_and_the_others_are_entered(
    tmp_path: Path, workspace: Workspace, spoil: Any, told: list[str]
) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    spoil(tmp_path / "scenes/here/2020-06-06.tif")

    _, results = run(settings, workspace)

    (record,) = Quarantine(workspace).records()
    assert (record.scene_id, record.location, record.step) == ("here/2020-06-06", "here", "ingest")
    assert record.day == date(2020, 6, 6)
    assert datetime.fromisoformat(record.at) <= datetime.now(UTC)
    for words in told:
        assert words in record.reason
    assert [result.scene_id for result in results if result.reason] == ["here/2020-06-06"]
    assert len(Catalog(workspace).scenes()) == 5
    assert "here/2020-06-06" not in {scene.scene_id for scene in Catalog(workspace).scenes()}


# Not one on another grid: the first scene that is whole defines the grid, wherever it lies.
@pytest.mark.parametrize("spoil", [spoil for spoil, _ in BAD if spoil not in (spoil_grid, spoil_crs)])
def test_a_bad_scene_that_comes_first_does_not_spoil_the_location(
    tmp_path: Path, workspace: Workspace, spoil: Any
) -> None:
    settings = watch_settings(archive(tmp_path / "scenes", ("here",)))
    spoil(tmp_path / "scenes/here/2020-06-01.tif")

    run(settings, workspace)

    assert [record.scene_id for record in Quarantine(workspace).records()] == ["here/2020-06-01"]
    assert len(Catalog(workspace).scenes()) == 2


def test_a_scene_of_other_ground_that_is_all_nodata_does_not_define_the_grid(
    tmp_path: Path, workspace: Workspace
) -> None:
    settings = watch_settings(archive(tmp_path / "scenes", ("here",)))
    write_raster(
        tmp_path / "scenes/here/2020-05-01.tif",
        ground(40, 40),
        west=WEST + 5000,
        missing=np.ones((40, 40), bool),
        nodata="declared",
    )

    run(settings, workspace)

    assert [record.scene_id for record in Quarantine(workspace).records()] == ["here/2020-05-01"]


def test_a_scene_that_is_set_aside_is_not_tried_every_night(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    spoil_text(tmp_path / "scenes/here/2020-06-06.tif")
    run(settings, workspace)
    before = files(workspace)

    plan, results = run(settings, workspace)

    assert (plan.scenes, plan.unchanged, plan.quarantined, results) == ((), 5, 1, [])
    assert files(workspace) == before


def test_a_scene_that_is_set_aside_is_tried_again_when_that_is_asked_for(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    spoil_text(tmp_path / "scenes/here/2020-06-06.tif")
    run(settings, workspace)

    plan, (result,) = run(settings, workspace, retry_quarantined=True)

    assert len(plan.scenes) == 1
    assert result.reason is not None


def test_a_scene_that_was_repaired_leaves_quarantine(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    path = tmp_path / "scenes/here/2020-06-06.tif"
    spoil_text(path)
    run(settings, workspace)

    write_raster(path, ground(40, 40, seed=1))
    _, (result,) = run(settings, workspace)

    assert result == Ingested("here/2020-06-06", 9, None)
    assert Quarantine(workspace).records() == []
    assert len(Catalog(workspace).scenes()) == 6


@pytest.mark.parametrize("step", ["release", "write", "remove", "add"])
def test_a_scene_is_never_in_the_catalog_and_set_aside_at_once_whenever_it_is_killed(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It would count as known for ever, and be refused every night."""
    settings = watch_settings(archive(tmp_path / "scenes", ("here",), DATES[:2]))
    path = tmp_path / "scenes/here/2020-06-06.tif"
    becomes_bad = step in ("remove", "add")
    if not becomes_bad:
        spoil_text(path)
    run(settings, workspace)
    spoil_text(path) if becomes_bad else write_raster(path, ground(40, 40, seed=1))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Quarantine if step in ("release", "add") else Catalog, step, killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings, workspace)
    known = {record.scene_id for record in Catalog(workspace).scenes()}
    assert not known & {record.scene_id for record in Quarantine(workspace).records()}

    run(settings, workspace)

    assert len(Catalog(workspace).scenes()) == (1 if becomes_bad else 2)
    assert len(Quarantine(workspace).records()) == (1 if becomes_bad else 0)


def test_a_setting_that_makes_a_scene_fit_frees_it(tmp_path: Path, workspace: Workspace) -> None:
    root = archive(tmp_path / "scenes")
    write_raster(root / "here/2020-06-06.tif", ground(40, 40), west=WEST + 44)  # 4.4 pixels
    run(watch_settings(root, grid={"on_mismatch": "refuse"}), workspace)
    (record,) = Quarantine(workspace).records()
    assert "is not on the grid of here" in record.reason
    assert "its pixels lie up to 0.40 pixels off" in record.reason

    run(watch_settings(root), workspace)

    assert Quarantine(workspace).records() == []
    (entered,) = (one for one in Catalog(workspace).scenes() if one.scene_id == "here/2020-06-06")
    assert entered.valid_fraction == pytest.approx(0.9)


def test_a_good_scene_that_turns_bad_leaves_the_catalog(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    run(settings, workspace)

    spoil_truncated(tmp_path / "scenes/here/2020-06-06.tif")
    run(settings, workspace)

    assert len(Catalog(workspace).scenes()) == 5
    assert [record.scene_id for record in Quarantine(workspace).records()] == ["here/2020-06-06"]


def test_a_file_that_vanishes_before_it_is_read_stops_nothing(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    planned = plan_ingest(settings, workspace)
    settle_grids(planned.scenes, settings, workspace)
    (tmp_path / "scenes/here/2020-06-06.tif").unlink()

    results = [ingest_scene(scene, settings, workspace) for scene in planned.scenes]

    assert [result.scene_id for result in results if result.reason] == ["here/2020-06-06"]
    assert len(Catalog(workspace).scenes()) == 5


def test_a_scene_whose_name_is_not_utf8_stops_nothing(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes", ("here",)))
    folder = os.fsencode(tmp_path / "scenes") + b"/caf\xe9"
    os.mkdir(folder)
    os.link(tmp_path / "scenes/here/2020-06-06.tif", folder + b"/2020-06-06.tif")

    run(settings, workspace)

    assert {"here/2020-06-01", "here/2020-06-06", "here/2020-06-11"} <= {
        record.scene_id for record in Catalog(workspace).scenes()
    }

"""Ingest reads what is new or changed, once."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from configs import Workspace
from imagery.catalog import Catalog
from imagery.errors import ImageryError
from imagery.quarantine import Quarantine
from tasks.ingest import open_scene, plan_ingest, reading_key, settle_grids
from tests.archives import DATES, archive, files, run
from tests.rasters import WEST, ground, watch_settings, write_raster


def test_every_scene_is_read_once_and_entered(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))

    plan, results = run(settings, workspace)

    assert len(plan.scenes) == 6
    assert [result.reason for result in results] == [None] * 6
    assert {result.tiles for result in results} == {9}
    records = Catalog(workspace).scenes()
    assert [record.scene_id for record in records] == [f"{place}/{day}" for day in DATES for place in ("here", "there")]
    for record in records:
        assert record.valid_fraction == 1
        assert record.fingerprint == record.scene.fingerprint()
        assert record.stats["B02"].count == 1600


def test_running_again_does_nothing(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    run(settings, workspace)
    before = files(workspace)

    plan, results = run(settings, workspace)

    assert (plan.scenes, plan.unchanged, results) == ((), 6, [])
    assert files(workspace) == before


def test_a_new_scene_is_read_and_the_others_are_left_alone(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    run(settings, workspace)
    before = files(workspace)

    write_raster(tmp_path / "scenes/here/2020-06-16.tif", ground(40, 40, seed=9))
    plan, (result,) = run(settings, workspace)

    assert (result.scene_id, result.reason, plan.unchanged) == ("here/2020-06-16", None, 6)
    after = files(workspace)
    assert {name: after[name] for name in before} == before


def test_a_file_that_was_touched_but_holds_the_same_is_not_read_again(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    run(settings, workspace)
    tiles_before = files(workspace)["catalog/here/2020-06-06.parquet"]
    ingested_before = [record.ingested_at for record in Catalog(workspace).scenes()]

    os.utime(tmp_path / "scenes/here/2020-06-06.tif", (1_600_000_000, 1_600_000_000))
    plan, (result,) = run(settings, workspace)

    assert (result.scene_id, result.tiles, result.reason) == ("here/2020-06-06", 9, None)
    assert plan.unchanged == 5
    assert files(workspace)["catalog/here/2020-06-06.parquet"] == tiles_before
    assert [record.ingested_at for record in Catalog(workspace).scenes()] == ingested_before


def test_a_file_that_was_touched_is_looked_at_once_and_not_every_night(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    run(settings, workspace)
    os.utime(tmp_path / "scenes/here/2020-06-06.tif", (1_600_000_000, 1_600_000_000))
    run(settings, workspace)

    plan, _ = run(settings, workspace)

    assert plan.scenes == ()


def test_an_archive_that_moved_is_found_where_it_is_now(tmp_path: Path, workspace: Workspace) -> None:
    run(watch_settings(archive(tmp_path / "scenes")), workspace)
    (tmp_path / "scenes").rename(tmp_path / "moved")
    settings = watch_settings(tmp_path / "moved")

    run(settings, workspace)

    for record in Catalog(workspace).scenes():
        with open_scene(record.scene, settings, workspace) as reader:
            assert reader.grid.width == 40


def test_a_file_that_changed_is_read_again(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))
    run(settings, workspace)
    before = {record.scene_id: record for record in Catalog(workspace).scenes()}
    mean = before["here/2020-06-06"].stats["B02"].mean

    write_raster(tmp_path / "scenes/here/2020-06-06.tif", ground(40, 40, seed=99))
    plan, (result,) = run(settings, workspace)

    assert (result.scene_id, plan.unchanged) == ("here/2020-06-06", 5)
    after = {record.scene_id: record for record in Catalog(workspace).scenes()}
    assert {name for name in after if after[name].fingerprint != before[name].fingerprint} == {"here/2020-06-06"}
    assert after["here/2020-06-06"].stats["B02"].mean != mean


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"source": {"scale": 1.0}}, True),
        ({"source": {"bands": ("B03", "B02")}}, True),
        ({"masks": {"nodata": 1}}, True),
        ({"grid": {"tile_size": 8}}, True),
        ({"train": {"epochs": 3}}, False),
        ({"score": {"min_valid": 0.9}}, False),
    ],
)
def test_scenes_are_read_again_when_a_setting_changes_that_decides_what_is_read(
    tmp_path: Path, workspace: Workspace, sections: dict, expected: bool
) -> None:
    root = archive(tmp_path / "scenes")
    run(watch_settings(root), workspace)
    changed = watch_settings(root, **sections)

    plan, results = run(changed, workspace)

    assert len(plan.scenes) == (6 if expected else 0)
    assert {result.reason for result in results} <= {None}
    assert {record.key for record in Catalog(workspace).scenes()} == {reading_key(changed)}


def test_another_resolution_than_that_of_the_location_is_refused_before_any_work(
    tmp_path: Path, workspace: Workspace
) -> None:
    root = archive(tmp_path / "scenes", ("here",))
    run(watch_settings(root), workspace)
    before = files(workspace)

    with pytest.raises(ImageryError, match=r"here was entered at a resolution of 10, grid\.resolution is 20"):
        run(watch_settings(root, grid={"resolution": 20.0}), workspace)

    assert files(workspace) == before


def test_a_cloud_model_that_lacks_a_band_is_refused_before_any_work(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(
        archive(tmp_path / "scenes"), source={"bands": ("B02", "B03")}, masks={"cloud_model": "ukis-csmask-l2a"}
    )

    with pytest.raises(ImageryError, match="cloud_model=ukis-csmask-l2a needs a red, a nir band"):
        run(settings, workspace)

    assert files(workspace) == {}


def test_later_scenes_may_be_left_out(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch_settings(archive(tmp_path / "scenes"))

    plan, _ = run(settings, workspace, until=date(2020, 6, 6))

    assert {scene.acquired.date().isoformat() for scene in plan.scenes} == {"2020-06-01", "2020-06-06"}


def test_a_file_without_a_readable_date_is_listed(tmp_path: Path, workspace: Workspace) -> None:
    root = archive(tmp_path / "scenes", ("here",))
    write_raster(root / "here/latest.tif", ground(40, 40))

    plan, _ = run(watch_settings(root), workspace)

    ((path, reason),) = plan.skipped
    assert Path(path).name == "latest.tif"
    assert "not a date" in reason


def test_scenes_read_side_by_side_give_the_same_catalog_as_one_after_another(tmp_path: Path) -> None:
    root = archive(tmp_path / "scenes", ("a", "b", "c"))
    write_raster(root / "b/2020-06-16.tif", ground(40, 40), west=WEST)  # not where b is
    settings = watch_settings(root)
    catalogs = []
    for workers in (1, 6):
        workspace = Workspace(tmp_path / f"w{workers}")
        run(settings, workspace, workers)
        catalog = Catalog(workspace)
        records = [
            {**record.__dict__, "ingested_at": None, "stats": {b: s.to_record() for b, s in record.stats.items()}}
            for record in catalog.scenes()
        ]
        tiles = [catalog.tiles(record).drop(columns="ingested_at") for record in catalog.scenes()]
        grids = [catalog.grid(location) for location in ("a", "b", "c")]
        reasons = [(record.scene_id, record.reason) for record in Quarantine(workspace).records()]
        catalogs.append((records, tiles, grids, reasons))

    (records, tiles, grids, reasons), (others, other_tiles, other_grids, other_reasons) = catalogs
    assert records == others
    assert grids == other_grids
    assert reasons == other_reasons
    assert len(reasons) == 1
    for one, other in zip(tiles, other_tiles, strict=True):
        assert one.equals(other)


def test_the_oldest_scene_defines_the_grid_in_whatever_order_they_are_listed(
    tmp_path: Path, workspace: Workspace
) -> None:
    root = archive(tmp_path / "scenes", ("here",))
    write_raster(root / "here/2020-05-01.tif", ground(48, 48))
    settings = watch_settings(root)

    settle_grids(reversed(plan_ingest(settings, workspace).scenes), settings, workspace)

    grid = Catalog(workspace).grid("here")
    assert grid is not None
    assert grid.width == 48


def test_many_scenes_of_one_day_are_all_entered(tmp_path: Path, workspace: Workspace) -> None:
    root = tmp_path / "scenes"
    for number in range(3):
        write_raster(root / "here" / f"2020-06-01_{number}.tif", ground(40, 40, seed=number))
    settings = watch_settings(root, source={"pattern": "{location}/{date:%Y-%m-%d}_*.tif"})

    run(settings, workspace)

    assert [record.scene_id for record in Catalog(workspace).scenes()] == [
        "here/2020-06-01", "here/2020-06-01/2", "here/2020-06-01/3"
    ]  # fmt: skip

"""Which nights are due, and how a finished one is recognised."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from configs import Period, Settings, Workspace
from imagery.catalog import Catalog
from imagery.quarantine import Quarantine
from imagery.sources import Scene
from tasks.ingest import ingest_scene, plan_ingest, quarantine_scene, settle_grids
from tasks.nights import (
    Night,
    NightRecord,
    due_nights,
    learned_until,
    night_folder,
    read_night,
    read_nights,
    refresh,
    write_night,
)
from tests.rasters import WEST, ground, watch_settings, write_raster
from tests.vae.conftest import make_detector
from vae.detector import Detector

DATES = tuple(date(2020, 6, number) for number in (1, 2, 3, 4, 5))
OPEN = Period()


@pytest.fixture
def settings(tmp_path: Path, workspace: Workspace) -> Settings:
    """Two places, five dates, all ingested."""
    for place, location in enumerate(("here", "there")):
        for seed, day in enumerate(DATES):
            write_raster(
                tmp_path / "scenes" / location / f"{day}.tif",
                ground(16, 16, seed=10 * place + seed),
                west=WEST + 10_000 * place,
            )
    settings = watch_settings(tmp_path / "scenes")
    ingest(settings, workspace)
    return settings


def ingest(settings: Settings, workspace: Workspace) -> None:
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        ingest_scene(scene, settings, workspace)


def detector(training: str = "2020-06-01", validation: str = "", calibration: str = "2020-06-02") -> Detector:
    metadata = {
        "training_dates": [training],
        "validation_dates": [validation] if validation else [],
        "calibration_dates": [calibration] if calibration else [],
    }
    return replace(make_detector(), metadata=metadata)


def finished(night: Night, **values: Any) -> NightRecord:
    record = NightRecord(
        night=night.night,
        detector_version="v1",
        calibration_id="c0ffee",
        scenes={scene.scene_id: scene.fingerprint for scene in night.scenes},
        unknown=(),
        quarantined={bad.scene_id: bad.reason for bad in night.quarantined},
        tiles=2,
        scored=2,
        flags=0,
        alarmed=False,
        drift_reasons=(),
        drift_began=None,
    )
    return replace(record, **values)


def due(settings: Settings, workspace: Workspace, period: Period = OPEN, force: bool = False) -> list[Night]:
    return due_nights(settings, workspace, detector(), period, force)


def days(nights: list[Night]) -> list[int]:
    return [night.night.day for night in nights]


@pytest.mark.parametrize(
    ("learned", "last"),
    [
        (("2020-06-03", "2020-06-01", "2020-06-02"), 3),
        (("2020-06-01", "2020-06-04", ""), 4),
        (("2020-06-01", "", "2020-06-05"), 5),
    ],
)
def test_a_detector_learned_from_its_training_validation_and_calibration_dates(
    learned: tuple[str, str, str], last: int
) -> None:
    assert learned_until(detector(*learned)) == date(2020, 6, last)


def test_the_nights_after_all_that_was_learned_from_are_due_oldest_first(
    settings: Settings, workspace: Workspace
) -> None:
    nights = due(settings, workspace)

    assert days(nights) == [3, 4, 5]
    for night in nights:
        assert [scene.location for scene in night.scenes] == ["here", "there"]
        assert {scene.day for scene in night.scenes} == {night.night}
        assert night.quarantined == ()


def test_a_period_chooses_nights_and_its_start_may_lie_in_training(settings: Settings, workspace: Workspace) -> None:
    assert days(due(settings, workspace, Period(end=date(2020, 6, 4)))) == [3, 4]
    assert days(due(settings, workspace, Period(start=date(2020, 6, 2), end=date(2020, 6, 3)))) == [2, 3]
    assert days(due(settings, workspace, Period(start=date(2021, 1, 1)))) == []


def test_a_night_that_is_finished_is_due_no_more(settings: Settings, workspace: Workspace) -> None:
    write_night(workspace, finished(due(settings, workspace)[0]))

    assert days(due(settings, workspace)) == [4, 5]
    assert days(due(settings, workspace, force=True)) == [3, 4, 5]


def test_a_scene_that_arrives_late_makes_its_night_due_again(
    tmp_path: Path, settings: Settings, workspace: Workspace
) -> None:
    for night in due(settings, workspace):
        write_night(workspace, finished(night))
    write_raster(tmp_path / "scenes/late/2020-06-04.tif", ground(16, 16))
    ingest(settings, workspace)

    (night,) = due(settings, workspace)

    assert night.night.day == 4
    assert [scene.location for scene in night.scenes] == ["here", "late", "there"]


def test_a_scene_whose_content_changed_makes_its_night_due_again(
    tmp_path: Path, settings: Settings, workspace: Workspace
) -> None:
    for night in due(settings, workspace):
        write_night(workspace, finished(night))
    write_raster(tmp_path / "scenes/here/2020-06-05.tif", ground(16, 16, seed=99))
    ingest(settings, workspace)

    assert days(due(settings, workspace)) == [5]


def test_a_bad_scene_alone_makes_a_night_that_is_due_once(
    tmp_path: Path, settings: Settings, workspace: Workspace
) -> None:
    for night in due(settings, workspace):
        write_night(workspace, finished(night))
    (tmp_path / "scenes/here/2020-06-09.tif").write_text("no raster")
    ingest(settings, workspace)

    (night,) = due(settings, workspace)
    assert (night.night.day, night.scenes) == (9, ())
    assert [bad.scene_id for bad in night.quarantined] == ["here/2020-06-09"]

    write_night(workspace, finished(night))
    assert due(settings, workspace) == []


def test_a_scene_that_is_set_aside_later_makes_its_night_due_again(settings: Settings, workspace: Workspace) -> None:
    nights = due(settings, workspace)
    for night in nights:
        write_night(workspace, finished(night))

    quarantine_scene(nights[1].scenes[0].scene, "validate", "it looks odd", settings, workspace)

    (night,) = due(settings, workspace)
    assert night.night.day == 4
    assert [scene.location for scene in night.scenes] == ["there"]


def test_scenes_that_were_read_with_other_settings_make_no_night(settings: Settings, workspace: Workspace) -> None:
    other = settings.model_copy(update={"source": settings.source.model_copy(update={"scale": 1.0})})

    assert due(other, workspace) == []


def test_a_night_is_refreshed_after_some_of_its_scenes_were_set_aside(settings: Settings, workspace: Workspace) -> None:
    night = due(settings, workspace)[0]
    quarantine_scene(night.scenes[1].scene, "validate", "it looks odd", settings, workspace)

    again = refresh(night, workspace)

    assert [scene.location for scene in again.scenes] == ["here"]
    assert [(bad.scene_id, bad.reason) for bad in again.quarantined] == [("there/2020-06-03", "it looks odd")]
    assert refresh(again, workspace) == again


def test_refreshing_keeps_what_was_set_aside_before(tmp_path: Path, settings: Settings, workspace: Workspace) -> None:
    (tmp_path / "scenes/here/2020-06-03.tif").write_text("no raster")
    ingest(settings, workspace)
    night = due(settings, workspace)[0]
    quarantine_scene(night.scenes[0].scene, "score", "vanished", settings, workspace)

    again = refresh(night, workspace)

    assert again.scenes == ()
    assert {bad.scene_id: bad.step for bad in again.quarantined} == {
        "here/2020-06-03": "ingest", "there/2020-06-03": "score",
    }  # fmt: skip


def test_a_scene_whose_file_vanished_can_still_be_set_aside(
    tmp_path: Path, settings: Settings, workspace: Workspace
) -> None:
    """As scoring does, which is the first to notice."""
    night = due(settings, workspace)[0]
    (tmp_path / "scenes/here/2020-06-03.tif").unlink()

    quarantine_scene(night.scenes[0].scene, "score", "cannot be opened", settings, workspace)

    assert [scene.location for scene in refresh(night, workspace).scenes] == ["there"]


def test_a_record_is_read_back_as_it_was_written(settings: Settings, workspace: Workspace) -> None:
    night = due(settings, workspace)[0]
    record = finished(
        night,
        unknown=("x/2020-06-03",),
        quarantined={"y/2020-06-03": "cannot be read: ünïcode"},
        alarmed=True,
        drift_reasons=("mean of B02 moved", "PSI"),
        drift_began=date(2020, 6, 2),
        statistics={"psi/B02": 0.25},
        report="reports/2020-06-03/report.html",
        run_id="abc",
    )

    write_night(workspace, record)

    assert read_night(workspace, date(2020, 6, 3)) == record
    assert read_night(workspace, date(2020, 6, 4)) is None
    assert (night_folder(workspace, record.night) / "night.json").is_file()


def test_a_night_without_a_verdict_stays_without_one(settings: Settings, workspace: Workspace) -> None:
    write_night(workspace, finished(due(settings, workspace)[0], alarmed=None))

    record = read_night(workspace, date(2020, 6, 3))

    assert record is not None
    assert record.alarmed is None
    assert record.judged_again(True).alarmed is True
    assert record.alarmed is None, "the record itself is left as it is"


def test_the_nights_of_one_detector_are_listed_oldest_first(settings: Settings, workspace: Workspace) -> None:
    nights = due(settings, workspace)
    for night, version in zip(reversed(nights), ("v2", "v1", "v1"), strict=True):
        write_night(workspace, finished(night, detector_version=version))

    assert [record.night.day for record in read_nights(workspace, "v1")] == [3, 4]
    assert [record.night.day for record in read_nights(workspace, "v2")] == [5]
    assert [record.night.day for record in read_nights(workspace, "v1", before=date(2020, 6, 4))] == [3]
    assert read_nights(workspace, "v3") == []


def test_a_folder_without_a_record_is_no_finished_night(settings: Settings, workspace: Workspace) -> None:
    """As when a run was killed after the page and before the record."""
    folder = night_folder(workspace, date(2020, 6, 3))
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("half")

    assert read_night(workspace, date(2020, 6, 3)) is None
    assert days(due(settings, workspace)) == [3, 4, 5]


def test_a_scene_belongs_to_the_utc_day_it_was_acquired_on(tmp_path: Path, workspace: Workspace) -> None:
    write_raster(tmp_path / "scenes/fiji/20200603T233000+0000.tif", ground(16, 16))
    write_raster(tmp_path / "scenes/fiji/20200604T003000+0200.tif", ground(16, 16, seed=1))
    settings = watch_settings(tmp_path / "scenes", source={"pattern": "{location}/{date:%Y%m%dT%H%M%S%z}.tif"})
    ingest(settings, workspace)

    (night,) = due(settings, workspace)

    assert night.night == date(2020, 6, 3)
    assert [scene.acquired.hour for scene in night.scenes] == [22, 23]


def test_a_quarantined_scene_belongs_to_its_own_night_too(settings: Settings, workspace: Workspace) -> None:
    scene = Scene("here", datetime(2020, 6, 4, 23, 30, tzinfo=UTC), ())
    quarantine_scene(scene, "ingest", "cannot be read", settings, workspace)

    night = next(night for night in due(settings, workspace) if night.night.day == 4)

    assert [bad.scene_id for bad in night.quarantined] == ["here/2020-06-04T233000Z"]
    assert Quarantine(workspace).get(scene) == night.quarantined[0]
    assert len(Catalog(workspace).scenes()) == 10

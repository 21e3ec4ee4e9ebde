"""Checks of scenes: each fails when it should, and only critical ones set a scene aside."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.quarantine import Quarantine
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tasks.validate import Validation, build_suite, scene_frame, validate_scenes
from tests.rasters import ground, watch_settings, write_raster

CHECKS = (
    "complete", "duplicate_tiles", "finite", "future_date", "valid_fraction", "cloud_fraction", "plausible",
    "negative", "range_vs_training",
)  # fmt: skip
RANGES = {"B02": (0.05, 0.4), "B03": (0.05, 0.4), "B04": (0.05, 0.4), "B08": (0.05, 0.4)}


def watch(tmp_path: Path, **validation: Any) -> Settings:
    return watch_settings(tmp_path / "scenes", masks={"class_band": "SCL"}, validation=validation)


def ingested(settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    return Catalog(workspace).scenes()


def scene(tmp_path: Path, day: str = "2020-06-01", factor: float = 1.0, offset: int = 0, classes: Any = 4) -> Path:
    numbers = {band: (values * factor + offset).astype(np.uint16) for band, values in ground(40, 40).items()}
    return write_raster(tmp_path / "scenes/here" / f"{day}.tif", numbers, classes=np.broadcast_to(classes, (40, 40)))


def failures(validation: Validation) -> dict[str, set[str]]:
    """Names of the failed checks, by day."""
    found: dict[str, set[str]] = {}
    for check in validation.failed:
        found.setdefault(check.scene_id.removeprefix("here/"), set()).add(check.check)
    return found


def test_an_offset_that_is_subtracted_twice_sets_a_scene_aside(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path)
    dark = {band: np.full((40, 40), 800, np.uint16) for band in ("B02", "B03", "B04", "B08")}  # 0.08 as it is stored
    write_raster(tmp_path / "scenes/here/2020-06-01.tif", dark, classes=np.full((40, 40), 4))
    wrong = settings.model_copy(update={"source": settings.source.model_copy(update={"scale": 1e-4, "offset": -0.1})})

    validation = validate_scenes(ingested(wrong, workspace), wrong, workspace)

    assert failures(validation) == {"2020-06-01": {"negative"}}
    (bad,) = Quarantine(workspace).records()
    assert "negative: B02_negative is 1, expected at most 0.25" in bad.reason
    assert "source.offset" in bad.reason


def test_a_good_scene_passes_every_check(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path)
    scene(tmp_path)

    validation = validate_scenes(ingested(settings, workspace), settings, workspace, RANGES)

    assert validation.failed == ()
    assert {check.check for check in validation.checks} == set(CHECKS)
    assert validation.result["success"] is True
    assert Quarantine(workspace).records() == []


def test_no_scenes_are_fine(tmp_path: Path, workspace: Workspace) -> None:
    validation = validate_scenes([], watch(tmp_path), workspace, RANGES)

    assert validation.checks == ()
    assert validation.failed == ()
    json.dumps(validation.result)


def test_a_scene_of_the_day_after_tomorrow_is_set_aside_and_the_others_are_not(
    tmp_path: Path, workspace: Workspace
) -> None:
    settings = watch(tmp_path)
    today = datetime.now(UTC).date()
    late = today + timedelta(days=2)
    for day in ("2020-06-01", str(today), str(late)):
        scene(tmp_path, day)

    validation = validate_scenes(ingested(settings, workspace), settings, workspace, RANGES)

    assert failures(validation) == {str(late): {"future_date"}}
    (record,) = Quarantine(workspace).records()
    assert (record.scene_id, record.step) == (f"here/{late}", "validate")
    assert "future_date" in record.reason
    assert len(Catalog(workspace).scenes()) == 2


@pytest.mark.parametrize(
    ("factor", "offset"), [(0.05, 0), (4.0, 0), (1.0, 8000)], ids=["far too dark", "far too bright", "offset"]
)
def test_values_out_of_the_range_of_training_are_noticed(
    tmp_path: Path, workspace: Workspace, factor: float, offset: int
) -> None:
    ranges = dict.fromkeys(RANGES, (0.15, 0.4))
    settings = watch(tmp_path, range_margin=0.4)
    scene(tmp_path, "2020-06-01", factor, offset)
    scene(tmp_path, "2020-06-02")
    records = ingested(settings, workspace)

    validation = validate_scenes(records, settings, workspace, ranges)

    assert failures(validation) == {"2020-06-01": {"range_vs_training"}}
    assert {check.severity for check in validation.failed} == {"warning"}
    assert Quarantine(workspace).records() == [], "a warning sets nothing aside"
    assert failures(validate_scenes(records, settings, workspace)) == {}, "before the first training there is no range"


def test_the_margin_around_the_range_of_training_is_a_share_of_its_width(tmp_path: Path, workspace: Workspace) -> None:
    scene(tmp_path)  # its 98th percentile is 0.393
    settings = watch(tmp_path, range_margin=0.5)
    records = ingested(settings, workspace)

    within = validate_scenes(records, settings, workspace, {"B02": (0.05, 0.3)})  # up to 0.425
    beyond = validate_scenes(records, settings, workspace, {"B02": (0.05, 0.26)})  # up to 0.365

    assert failures(within) == {}
    assert [(check.check, check.column) for check in beyond.failed] == [("range_vs_training", "B02_p98")]


def test_implausible_values_are_critical(tmp_path: Path, workspace: Workspace) -> None:
    """As when the scale was forgotten: reflectances of several thousand per cent."""
    settings = watch(tmp_path, max_value=1.0)
    scene(tmp_path, "2020-06-01", 10.0)
    scene(tmp_path, "2020-06-02")

    validation = validate_scenes(ingested(settings, workspace), settings, workspace)

    assert failures(validation) == {"2020-06-01": {"plausible"}}
    (record,) = Quarantine(workspace).records()
    assert "B02_p98" in record.reason
    assert "at most 1" in record.reason
    assert [one.scene_id for one in Catalog(workspace).scenes()] == ["here/2020-06-02"]


def test_a_cloudy_scene_is_told_and_kept(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path)
    classes = np.full((40, 40), 9)
    scene(tmp_path, "2020-06-01", classes=classes)
    classes[:8] = 4
    scene(tmp_path, "2020-06-02", classes=classes)

    validation = validate_scenes(ingested(settings, workspace), settings, workspace, RANGES)

    assert failures(validation) == {"2020-06-01": {"cloud_fraction", "valid_fraction"}}
    assert {check.check: check.severity for check in validation.failed} == {
        "cloud_fraction": "info", "valid_fraction": "warning",
    }  # fmt: skip
    assert Quarantine(workspace).records() == []


def test_a_scene_with_hardly_a_usable_pixel_fails_its_check_without_cloud(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path)
    classes = np.full((40, 40), 11)  # snow
    classes[0] = 4
    scene(tmp_path, classes=classes)

    validation = validate_scenes(ingested(settings, workspace), settings, workspace, RANGES)

    assert failures(validation) == {"2020-06-01": {"valid_fraction"}}
    (check,) = validation.failed
    assert check.observed == pytest.approx(0.025)
    assert "at least 0.05" in check.words


def tamper(workspace: Workspace, day: str, change: Any) -> None:
    catalog = Catalog(workspace)
    record = next(one for one in catalog.scenes() if one.scene_id == f"here/{day}")
    catalog.write(record, change(catalog.tiles(record)))


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda tiles: tiles.iloc[:-2], {"complete"}),
        (lambda tiles: tiles.iloc[[0, 1, 1, *range(2, len(tiles))]], {"duplicate_tiles"}),
        (lambda tiles: tiles.iloc[[0, 0, *range(2, len(tiles))]], {"complete", "duplicate_tiles"}),
        (lambda tiles: tiles.assign(B03_mean=[np.nan, *tiles["B03_mean"][1:]]), {"finite"}),
        (lambda tiles: tiles.assign(B03_mean=[np.inf, *tiles["B03_mean"][1:]]), {"finite"}),
    ],
    ids=["missing tiles", "a tile twice", "a tile in place of another", "no number", "an infinite number"],
)
def test_a_catalog_that_is_not_whole_is_critical(
    tmp_path: Path, workspace: Workspace, change: Any, failed: set[str]
) -> None:
    settings = watch(tmp_path)
    scene(tmp_path, "2020-06-01")
    scene(tmp_path, "2020-06-02")
    records = ingested(settings, workspace)
    tamper(workspace, "2020-06-01", change)

    validation = validate_scenes(records, settings, workspace, RANGES)

    assert failures(validation) == {"2020-06-01": failed}
    assert [record.scene_id for record in Quarantine(workspace).records()] == ["here/2020-06-01"]
    assert [record.scene_id for record in Catalog(workspace).scenes()] == ["here/2020-06-02"]


def test_masked_tiles_need_no_numbers(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path)
    classes = np.full((40, 40), 4)
    classes[:16, :16] = 9
    scene(tmp_path, classes=classes)
    records = ingested(settings, workspace)
    assert Catalog(workspace).tiles(records[0])["B02_mean"].isna().sum() == 1

    assert validate_scenes(records, settings, workspace, RANGES).failed == ()


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
def test_the_severity_of_the_settings_decides_what_becomes_of_the_scene(
    tmp_path: Path, workspace: Workspace, severity: str
) -> None:
    settings = watch(tmp_path, cloud_fraction=severity, valid_fraction="off")
    scene(tmp_path, "2020-06-01", classes=9)
    scene(tmp_path, "2020-06-02")

    validation = validate_scenes(ingested(settings, workspace), settings, workspace, RANGES)

    assert failures(validation) == {"2020-06-01": {"cloud_fraction"}}
    assert {check.severity for check in validation.failed} == {severity}
    assert len(Quarantine(workspace).records()) == (severity == "critical")
    assert len(Catalog(workspace).scenes()) == 2 - (severity == "critical")


@pytest.mark.parametrize("off", CHECKS)
def test_a_check_that_is_off_is_not_made(tmp_path: Path, off: str) -> None:
    suite = build_suite(watch(tmp_path, **{off: "off"}), RANGES)

    assert {expectation.check for expectation in suite} == set(CHECKS) - {off}


def test_all_off_is_fine(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path, **dict.fromkeys(CHECKS, "off"))
    scene(tmp_path)

    assert validate_scenes(ingested(settings, workspace), settings, workspace, RANGES).checks == ()


def test_every_reason_of_a_scene_is_kept_when_several_checks_fail(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path, max_value=0.3)
    scene(tmp_path, "2090-06-01")

    validate_scenes(ingested(settings, workspace), settings, workspace)

    (record,) = Quarantine(workspace).records()
    assert "future_date" in record.reason
    for band in ("B02", "B03", "B04", "B08"):
        assert f"{band}_p98" in record.reason


def test_a_scene_that_failed_is_not_tried_again_until_the_checks_change(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path, max_value=0.3)
    scene(tmp_path)
    validate_scenes(ingested(settings, workspace), settings, workspace)

    assert plan_ingest(settings, workspace).quarantined == 1
    assert len(plan_ingest(watch(tmp_path, max_value=1.0), workspace).scenes) == 1


def test_the_result_is_that_of_great_expectations_and_can_be_kept_as_json(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path, max_value=0.3)
    scene(tmp_path, "2020-06-01")
    scene(tmp_path, "2020-06-02", 0.5)

    validation = validate_scenes(ingested(settings, workspace), settings, workspace, RANGES)

    result = json.loads(json.dumps(validation.result, default=str))
    assert result["success"] is False
    assert result["statistics"]["evaluated_expectations"] == len(build_suite(settings, RANGES))
    failed = {
        (outcome["expectation_config"]["meta"]["check"], outcome["expectation_config"]["kwargs"]["column"])
        for outcome in result["results"]
        if not outcome["success"]
    }
    assert failed == {("plausible", f"{band}_p98") for band in RANGES}
    assert all(
        outcome["expectation_config"]["severity"] == "critical"
        for outcome in result["results"]
        if not outcome["success"]
    )


def test_what_is_checked_is_what_the_catalog_knows(tmp_path: Path, workspace: Workspace) -> None:
    settings = watch(tmp_path)
    classes = np.full((40, 40), 4)
    classes[:10] = 9
    scene(tmp_path, classes=classes)
    (record,) = ingested(settings, workspace)

    frame = scene_frame([record], workspace, now=datetime(2020, 6, 2, tzinfo=UTC))

    row = frame.iloc[0]
    assert (row["missing_tiles"], row["duplicate_tiles"], row["not_finite"]) == (0, 0, 0)
    assert row["hours_ahead"] == 0
    assert scene_frame([record], workspace, now=datetime(2020, 5, 30, tzinfo=UTC))["hours_ahead"].tolist() == [48]
    assert row["valid_fraction"] == row["cloud_fraction"] + 0.5 == 0.75
    values = ground(40, 40)["B08"][10:] * 1e-4
    assert row["B08_p02"] == pytest.approx(np.percentile(values, 2), rel=0.006)
    assert row["B08_p98"] == pytest.approx(np.percentile(values, 98), rel=0.006)
    assert isinstance(frame, pd.DataFrame)


def test_many_scenes_are_told_apart(tmp_path: Path, workspace: Workspace) -> None:
    """Also those that share everything but the number or the place."""
    settings = watch(tmp_path)
    scene(tmp_path, "2020-06-01")
    (record,) = ingested(settings, workspace)
    twins = [replace(record, number=number, scene_id=f"here/2020-06-01/{number}") for number in (2, 3)]
    tiles = Catalog(workspace).tiles(record)
    Catalog(workspace).write(twins[0], tiles)
    Catalog(workspace).write(twins[1], tiles.iloc[1:])

    validation = validate_scenes([record, *twins], settings, workspace, RANGES)

    assert failures(validation) == {"2020-06-01/3": {"complete"}}

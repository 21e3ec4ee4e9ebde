"""The reference of a place is made of its normal scenes, and a scene is brought to it: to its place and its light."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord, list_files
from imagery.errors import ImageryError
from tasks.ingest import open_scene
from tasks.reference import SceneAlignment, align_scene, flagged_as_whole, reference_for
from tests.places import FIRST, SIDE, ingested, land, write_scene
from tests.rasters import BANDS, watch_settings, whole, write_raster
from tests.tasks.reference.scenes import AFTER, days_of, write_scores


def test_it_is_made_of_the_last_clear_scenes_before_the_day(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    reference = reference_for("here", AFTER, settings, workspace)

    assert reference is not None
    assert days_of(reference) == [5, 10, 20, 25]
    with reference.open() as reader:
        values, count = reader.read(whole(reference.grid))
    assert values.shape == (4, SIDE, SIDE)
    assert set(np.unique(count[5:])) == {4}
    assert set(np.unique(count[:5])) == {0}

    earlier = reference_for("here", FIRST + timedelta(days=10), settings, workspace)
    assert earlier is not None
    assert days_of(earlier) == [0, 5]


def test_without_an_earlier_scene_there_is_none(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    assert reference_for("here", FIRST, settings, workspace) is None
    assert reference_for("elsewhere", AFTER, settings, workspace) is None


def test_a_scene_that_was_flagged_as_a_whole_by_any_version_is_left_out(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    write_scores(workspace, records[2], flagged=3, version="v1")
    write_scores(workspace, records[2], flagged=0, version="v2")
    write_scores(workspace, records[4], flagged=2)

    reference = reference_for("here", AFTER, settings, workspace)

    assert reference is not None
    assert days_of(reference) == [0, 5, 20, 25]


@pytest.mark.parametrize(("flagged", "scored", "whole"), [(2, 8, False), (3, 8, True), (2, 7, True), (0, 0, False)])
def test_flagged_as_a_whole_means_more_than_the_share_of_what_was_scored(
    settings: Settings, workspace: Workspace, records: list[SceneRecord], flagged: int, scored: int, whole: bool
) -> None:
    write_scores(workspace, records[0], flagged, scored=scored)

    assert settings.split.max_flagged == 0.25
    assert flagged_as_whole(records[0], settings, workspace) is whole
    assert not flagged_as_whole(records[1], settings, workspace)


def test_when_all_were_flagged_as_a_whole_there_is_none(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    for record in records:
        write_scores(workspace, record, flagged=8)

    assert reference_for("here", AFTER, settings, workspace) is None


def test_a_scene_that_is_gone_is_left_out_and_named(
    settings: Settings, workspace: Workspace, records: list[SceneRecord], caplog: pytest.LogCaptureFixture
) -> None:
    Path(records[4].files[0].path).unlink()

    with caplog.at_level(logging.WARNING):
        reference = reference_for("here", AFTER, settings, workspace)

    assert reference is not None
    assert days_of(reference) == [0, 5, 10, 25]
    assert "here/2020-06-21 can no longer be read" in caplog.text


def test_deleted_and_built_again_from_the_catalog_it_is_the_same_to_the_byte(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    first = reference_for("here", AFTER, settings, workspace)
    assert first is not None
    content = first.path.read_bytes()
    first.path.unlink()

    again = reference_for("here", AFTER, settings, workspace)

    assert again == first
    assert again.path.read_bytes() == content


def test_scenes_read_in_another_way_make_another_reference(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    other = settings.model_copy(update={"masks": settings.masks.model_copy(update={"bad_classes": (9, 4)})})

    names = {reference_for("here", AFTER, chosen, workspace).name for chosen in (settings, other)}

    assert len(names) == 2


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (2, -1), (-3, 3)])
def test_a_scene_is_brought_to_the_place_and_the_light_of_its_reference(
    root: Path, settings: Settings, workspace: Workspace, records: list[SceneRecord], rows: int, cols: int
) -> None:
    write_scene(root, AFTER, rows, cols, gain=1.4, offset=300)
    record = ingested(settings, workspace)[-1]
    reference = reference_for("here", AFTER, settings, workspace)
    assert reference is not None

    found = align_scene(record, reference, settings, workspace)

    assert found.registration.reason is None
    assert (found.registration.rows, found.registration.cols) == pytest.approx((rows, cols), abs=0.1)
    assert found.registration.correction == pytest.approx((rows, cols), abs=0.1)
    assert found.alignment.reason is None
    np.testing.assert_allclose(found.alignment.gain, 1.4, atol=0.05)
    # Brought to it, the scene differs by noise (0.001) and what resampling blurs, not by light or place (0.1).
    with (
        reference.open() as before,
        open_scene(record.scene, settings, workspace, found.registration.correction) as after,
    ):
        window = whole(reference.grid)
        old, count = before.read(window)
        new = after.read(window)
    common = (count > 0) & new.valid
    assert common.mean() > 0.85
    assert found.alignment.pixels == common.sum()
    mapped = found.alignment.apply(old)
    assert np.abs(mapped - new.values)[:, common].mean() < 0.005
    assert np.abs(old - new.values)[:, common].mean() > 0.05


def test_what_was_found_is_kept_beside_the_reference_and_not_sought_again(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    reference = reference_for("here", records[5].day, settings, workspace)
    assert reference is not None
    found = align_scene(records[5], reference, settings, workspace)
    Path(records[5].files[0].path).unlink()

    again = align_scene(records[5], reference, settings, workspace)

    (path,) = list_files(workspace.reference)
    assert path == workspace.reference / "here/2020-06-26.json"
    assert again.to_json() == found.to_json() == path.read_text(encoding="utf-8")
    assert SceneAlignment.from_json(found.to_json()).to_json() == found.to_json()


@pytest.mark.parametrize("written", ["", "{}", '{"scene_id": "here/2020-06-26"}'])
def test_what_another_version_wrote_is_sought_again(
    settings: Settings, workspace: Workspace, records: list[SceneRecord], written: str
) -> None:
    reference = reference_for("here", records[5].day, settings, workspace)
    assert reference is not None
    found = align_scene(records[5], reference, settings, workspace)
    (path,) = list_files(workspace.reference)
    path.write_text(written, encoding="utf-8")

    assert align_scene(records[5], reference, settings, workspace).to_json() == found.to_json()
    assert path.read_text(encoding="utf-8") == found.to_json()


@pytest.mark.parametrize("what", ["content", "settings", "reference"])
def test_it_is_sought_again_when_what_it_depends_on_has_changed(
    root: Path, settings: Settings, workspace: Workspace, records: list[SceneRecord], what: str
) -> None:
    day = records[5].day
    reference = reference_for("here", day, settings, workspace)
    assert reference is not None
    before = align_scene(records[5], reference, settings, workspace)
    if what == "content":
        write_scene(root, day, 0, 0, gain=1.5)
        records = ingested(settings, workspace)
    elif what == "settings":
        settings = settings.model_copy(update={"alignment": settings.alignment.model_copy(update={"max_gain": 4.0})})
    else:
        reference = reference_for("here", records[4].day, settings, workspace)
        assert reference is not None

    after = align_scene(records[5], reference, settings, workspace)

    assert after.to_json() != before.to_json()
    (path,) = list_files(workspace.reference)
    assert json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == records[5].fingerprint


def test_a_scene_of_nothing_but_cloud_is_not_aligned_and_says_why(
    root: Path, settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    write_scene(root, AFTER, clouded=SIDE)
    record = ingested(settings, workspace)[-1]
    reference = reference_for("here", AFTER, settings, workspace)
    assert reference is not None

    found = align_scene(record, reference, settings, workspace)

    assert found.registration.reason == "0 of 9 chips show enough pixels that are valid in both, 3 are needed"
    assert found.registration.correction == (0.0, 0.0)
    assert found.alignment.reason == "only 0 pixels are valid in both scene and reference, 500 are needed"


def test_a_small_place_is_aligned_but_not_registered(tmp_path: Path, workspace: Workspace) -> None:
    numbers = land()[:, :40, :40].astype(np.uint16)
    for day in ("2020-06-01", "2020-06-06"):
        write_raster(tmp_path / f"scenes/here/{day}.tif", dict(zip(BANDS, numbers, strict=True)))
    settings = watch_settings(tmp_path / "scenes")
    record = ingested(settings, workspace)[-1]
    reference = reference_for("here", record.day, settings, workspace)
    assert reference is not None

    found = align_scene(record, reference, settings, workspace)

    assert found.registration.reason is not None
    assert "too small to measure a shift" in found.registration.reason
    assert found.alignment.reason is None
    assert found.alignment.pixels == 1600


def test_a_reference_of_other_bands_is_refused(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    reference = reference_for("here", AFTER, settings, workspace)
    assert reference is not None
    other = settings.model_copy(update={"source": settings.source.model_copy(update={"bands": ("B02", "B03")})})

    with pytest.raises(ImageryError, match=r"has the bands B02, B03, B04, B08, source\.bands are B02, B03"):
        align_scene(records[5], reference, other, workspace)


def test_a_reference_that_vanished_is_an_error_in_words(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    reference = reference_for("here", AFTER, settings, workspace)
    assert reference is not None
    reference.path.unlink()

    with pytest.raises(ImageryError, match=r"the reference .*tif cannot be read"):
        align_scene(records[5], reference, settings, workspace)

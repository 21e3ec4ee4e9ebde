"""The reference of a place is made of its normal scenes, and a scene is brought to it: to its place and its light."""

from __future__ import annotations

import json
import logging
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord, list_files
from imagery.errors import ImageryError
from tasks.ingest import open_scene
from tasks.reference import SceneAlignment, Usual, align_scene, flagged_as_whole, reference_for, usual_of
from tasks.review.verdicts import Verdict, write_verdicts
from tests.places import FIRST, SIDE, ingested, land, write_scene
from tests.rasters import BANDS, watch_settings, whole, write_raster

AFTER = date(2020, 7, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scenes"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def settings(root: Path) -> Settings:
    return watch_settings(root, masks={"class_band": "SCL"}, reference={"scenes": 4, "seasonal": 0})


@pytest.fixture
def records(root: Path, settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """Six scenes, five days apart; the fourth is mostly cloud."""
    for number in range(6):
        write_scene(root, FIRST + timedelta(days=5 * number), clouded=80 if number == 3 else 5)
    return ingested(settings, workspace)


def write_scores(workspace: Workspace, record: SceneRecord, flagged: int, version: str = "v1", scored: int = 8) -> None:
    """The scores of a scene of nine tiles."""
    path = workspace.scores / version / "here" / f"{record.file_name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(9)
    table = {
        "tile_id": [f"here-r{number}-c0" for number in numbers],
        "score": np.where(numbers < scored, 1.0, np.nan),
        "flagged": numbers < flagged,
    }
    pd.DataFrame(table).to_parquet(path)


def days_of(reference) -> list[int]:
    """Days after the first scene of those it is made of."""
    return [(date.fromisoformat(member.scene_id.removeprefix("here/")) - FIRST).days for member in reference.members]


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


@pytest.fixture
def tonight(root: Path, settings: Settings, workspace: Workspace, records: list[SceneRecord]) -> SceneRecord:
    """A seventh scene, two pixels off."""
    write_scene(root, AFTER, 2, -1, gain=1.2)
    return ingested(settings, workspace)[-1]


def known_usual(record: SceneRecord, settings: Settings, workspace: Workspace) -> Usual:
    found = usual_of(record, settings, workspace)
    assert found is not None
    return found


def days_in(members) -> list[int]:
    return [(date.fromisoformat(member.scene_id.removeprefix("here/")) - FIRST).days for member in members]


def kept_expectation(workspace: Workspace, record: SceneRecord) -> Path:
    return workspace.reference / f"here/{record.day}_expected.json"


def test_a_scene_is_expected_from_the_scenes_of_its_reference_and_the_newest_bears_witness(
    settings: Settings, workspace: Workspace, tonight: SceneRecord
) -> None:
    usual = known_usual(tonight, settings, workspace)

    assert days_in(usual.expectation.regressors) == [5, 10, 20]
    assert usual.expectation.witness is not None
    assert days_in([usual.expectation.witness]) == [25]
    assert usual.expectation.reason is None
    correction = usual.alignment.registration.correction
    assert correction == (2.0, -1.0)
    with (
        usual.open_past(settings, workspace) as past,
        open_scene(tonight.scene, settings, workspace, correction) as scene,
    ):
        assert past is not None
        seen, expected = scene.read(whole(scene.grid)), past.read(whole(scene.grid))
    common = seen.valid & expected.valid
    assert common.mean() > 0.85
    assert np.abs(seen.values - expected.values)[:, common].mean() < 0.004
    assert expected.witness is not None
    assert expected.witness_expected is not None
    assert expected.witness_valid is not None
    off = np.abs(expected.witness - expected.witness_expected)[:, expected.witness_valid]
    assert off.mean() < 0.004


def test_an_expectation_is_kept_and_not_sought_again(
    settings: Settings, workspace: Workspace, tonight: SceneRecord
) -> None:
    first = known_usual(tonight, settings, workspace)
    path = kept_expectation(workspace, tonight)
    content = path.read_bytes()
    Path(tonight.files[0].path).unlink()

    again = known_usual(tonight, settings, workspace)

    assert again.expectation.to_record() == first.expectation.to_record()
    assert path.read_bytes() == content


@pytest.mark.parametrize("what", ["units", "scenes", "alignment", "damaged"])
def test_an_expectation_is_sought_again_when_what_it_is_made_of_has_changed(
    settings: Settings, workspace: Workspace, tonight: SceneRecord, what: str
) -> None:
    path = kept_expectation(workspace, tonight)
    known_usual(tonight, settings, workspace)
    before = path.read_bytes()
    changes = {"units": ("normalise", "log_offset", 0.02), "scenes": ("reference", "scenes", 3)}
    section, name, value = changes.get(what, ("alignment", "max_gain", 4.0))
    if what == "damaged":
        path.write_text('{"made_of": []}', encoding="utf-8")
    else:
        changed = getattr(settings, section).model_copy(update={name: value})
        settings = settings.model_copy(update={section: changed})

    known_usual(tonight, settings, workspace)

    assert (path.read_bytes() == before) is (what == "damaged")


def test_a_scene_that_goes_after_the_reference_was_built_is_left_out_of_what_is_expected(
    settings: Settings, workspace: Workspace, tonight: SceneRecord, records: list[SceneRecord],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    assert reference_for("here", AFTER, settings, workspace) is not None
    Path(records[2].files[0].path).unlink()

    usual = known_usual(tonight, settings, workspace)

    assert days_of(usual.reference) == [5, 10, 20, 25]
    assert days_in(usual.expectation.members) == [5, 20, 25]
    assert "here/2020-06-11 can no longer be read" in caplog.text


@pytest.mark.parametrize("gone", [2, 5])
def test_a_scene_that_goes_before_the_past_is_opened_is_left_out_and_the_others_are_fitted_again(
    settings: Settings, workspace: Workspace, tonight: SceneRecord, records: list[SceneRecord], gone: int
) -> None:
    usual = known_usual(tonight, settings, workspace)
    Path(records[gone].files[0].path).unlink()

    with usual.open_past(settings, workspace) as past:
        assert past is not None
        left = [day for day in (5, 10, 20, 25) if day != 5 * gone]
        assert days_in(past.expectation.members) == left
        assert past.read(whole(usual.reference.grid)).valid.mean() > 0.9


def test_when_all_scenes_of_the_past_are_gone_nothing_is_opened(
    settings: Settings, workspace: Workspace, tonight: SceneRecord, records: list[SceneRecord],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    usual = known_usual(tonight, settings, workspace)
    for record in records:
        Path(record.files[0].path).unlink()

    with usual.open_past(settings, workspace) as past:
        assert past is None
    assert "no scene of the reference" in caplog.text

    kept_expectation(workspace, tonight).unlink()
    assert usual_of(tonight, settings, workspace) is None


def test_what_is_not_to_be_trusted_is_not_opened(
    root: Path, settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    write_scene(root, AFTER, clouded=SIDE)
    usual = known_usual(ingested(settings, workspace)[-1], settings, workspace)

    assert usual.expectation.reason == "only 0 pixels are valid in both scene and reference, 500 are needed"
    with usual.open_past(settings, workspace) as past:
        assert past is None


# What people judged


WHEN = datetime(2024, 1, 1, tzinfo=UTC)
SITE, SITE_ROWS = "here-r00032-c00048", np.s_[32:48, 48:64]


def said(workspace: Workspace, record: SceneRecord, verdict: str, *tiles: str) -> None:
    write_verdicts([Verdict(record.scene_id, tile, verdict, WHEN) for tile in tiles], workspace)


def site_of(value: bool = True) -> np.ndarray:
    """(H, W) where the site lies."""
    site = np.zeros((SIDE, SIDE), bool)
    site[SITE_ROWS] = value
    return site


@pytest.mark.parametrize("verdict", ["anomaly", "cloud or shadow", "bad data"])
def test_a_tile_that_people_saw_something_in_adds_nothing_to_a_reference_and_the_rest_of_its_scene_does(
    settings: Settings, workspace: Workspace, records: list[SceneRecord], verdict: str
) -> None:
    plain = reference_for("here", AFTER, settings, workspace)
    assert plain is not None
    said(workspace, records[4], verdict, SITE)

    reference = reference_for("here", AFTER, settings, workspace)

    assert reference is not None
    assert days_of(reference) == [5, 10, 20, 25]
    assert reference.name != plain.name
    stack = []
    for number in (1, 2, 4, 5):
        with open_scene(records[number].scene, settings, workspace) as scene:
            pixels = scene.read(whole(scene.grid))
        counts = pixels.valid & ~(site_of() & (number == 4))
        stack.append(np.where(counts, pixels.values, np.float32(np.nan)))
    with reference.open() as reader:
        values, count = reader.read(whole(reference.grid))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the first rows are cloud on every date
        np.testing.assert_array_equal(values, np.nanmedian(np.stack(stack), axis=0))
    np.testing.assert_array_equal(count, np.isfinite(np.stack(stack)[:, 0]).sum(axis=0))
    assert set(np.unique(count[site_of()])) == {3}
    with plain.open() as reader:
        np.testing.assert_array_equal(reader.read(whole(plain.grid))[0][:, ~site_of()], values[:, ~site_of()])


def test_a_reference_is_found_again_when_a_verdict_was_withdrawn_and_false_alarms_change_none(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    def name() -> str:
        found = reference_for("here", AFTER, settings, workspace)
        assert found is not None
        return found.name

    plain = name()
    said(workspace, records[4], "anomaly", SITE)
    one = name()
    said(workspace, records[4], "anomaly", SITE, "here-r00000-c00000")
    two = name()
    assert len({plain, one, two}) == 3
    said(workspace, records[4], "cloud or shadow", SITE)
    assert name() == one
    for nothing in ("false alarm", None):
        said(workspace, records[4], nothing, SITE) if nothing else workspace.verdicts.unlink()
        assert name() == plain
    said(workspace, records[0], "anomaly", SITE)  # a scene that is no member
    assert name() == plain
    said(workspace, records[4], "anomaly", "here-r99999-c00000", "elsewhere-r00000-c00000", "..", "here")
    assert name() == plain, "no tile of the place"


def test_a_reference_without_some_tiles_comes_back_as_it_was_built(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    said(workspace, records[4], "anomaly", SITE)
    first = reference_for("here", AFTER, settings, workspace)

    assert first is not None
    assert [len(member.without) for member in first.members] == [0, 0, 1, 0]
    assert reference_for("here", AFTER, settings, workspace) == first
    kept = json.loads(first.path.with_suffix(".json").read_text(encoding="utf-8"))["members"]
    assert [set(member) for member in kept][:2] == [{"scene_id", "fingerprint"}] * 2
    assert kept[2]["without"] == [{"row_off": 32, "col_off": 48, "height": 16, "width": 16}]


def test_a_scene_of_which_people_left_too_little_is_not_chosen(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    tiles = [f"here-r{row:05d}-c{column:05d}" for row in range(0, 100, 16) for column in range(0, 100, 16)]
    said(workspace, records[5], "bad data", *tiles[:10])
    few = reference_for("here", AFTER, settings, workspace)
    said(workspace, records[5], "bad data", *tiles[:40])
    many = reference_for("here", AFTER, settings, workspace)

    assert few is not None
    assert many is not None
    assert (days_of(few), days_of(many)) == ([5, 10, 20, 25], [0, 5, 10, 20])


def test_flags_that_were_false_alarms_do_not_make_a_scene_odd(
    settings: Settings, workspace: Workspace, records: list[SceneRecord]
) -> None:
    write_scores(workspace, records[4], flagged=3)
    assert flagged_as_whole(records[4], settings, workspace)

    said(workspace, records[4], "false alarm", "here-r0-c0")

    assert not flagged_as_whole(records[4], settings, workspace)


def test_verdicts_that_cannot_be_read_are_said_and_a_night_is_compared_without_them(
    settings: Settings, workspace: Workspace, records: list[SceneRecord], caplog: pytest.LogCaptureFixture
) -> None:
    plain = reference_for("here", AFTER, settings, workspace)
    workspace.verdicts.write_bytes(b"no parquet")

    assert reference_for("here", AFTER, settings, workspace) == plain
    assert "verdicts.parquet cannot be read" in caplog.text


@pytest.fixture
def built_on(root: Path, settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """Seven clear scenes; on the last three there is a building site."""
    for number in range(7):
        write_scene(root, FIRST + timedelta(days=5 * number), event=site_of() if number >= 4 else None)
    return ingested(settings, workspace)


def test_a_confirmed_building_site_does_not_become_usual_and_the_rest_of_the_scene_still_predicts(
    settings: Settings, workspace: Workspace, built_on: list[SceneRecord]
) -> None:
    tonight, confirmed = built_on[6], built_on[4]  # confirmed is neither the first nor the witness

    def off() -> tuple[float, float]:
        """How far what is expected at the site and elsewhere lies from the ground as it was."""
        usual = known_usual(tonight, settings, workspace)
        assert usual.expectation.witness is not None
        assert usual.expectation.witness.scene_id == built_on[5].scene_id
        with usual.open_past(settings, workspace) as past, open_scene(built_on[3].scene, settings, workspace) as scene:
            assert past is not None
            expected, ground = past.read(whole(scene.grid)), scene.read(whole(scene.grid))
        assert expected.valid.mean() > 0.99
        away = np.abs(expected.values - ground.values)
        return float(away[:, site_of()].mean()), float(away[:, ~site_of()].mean())

    before, around_before = off()
    said(workspace, confirmed, "anomaly", SITE)
    after, around_after = off()

    assert after < before / 2
    assert around_after == pytest.approx(around_before, abs=0.002)
    kept = json.loads(kept_expectation(workspace, tonight).read_text(encoding="utf-8"))
    (without,) = [one["without"] for one in kept["expectation"]["regressors"] if "without" in one]
    assert without == [{"row_off": 32, "col_off": 48, "height": 16, "width": 16}]


def test_a_confirmed_event_is_still_seen_by_the_witness_or_what_lasts_would_be_lost_on_its_second_night(
    settings: Settings, workspace: Workspace, built_on: list[SceneRecord]
) -> None:
    said(workspace, built_on[5], "anomaly", SITE)

    usual = known_usual(built_on[6], settings, workspace)

    assert usual.expectation.witness is not None
    assert usual.expectation.witness.scene_id == built_on[5].scene_id
    with usual.open_past(settings, workspace) as past:
        assert past is not None
        seen = past.read(whole(usual.reference.grid))
    assert seen.witness_valid is not None
    assert seen.witness_valid.all()
    (member,) = [one for one in usual.reference.members if one.scene_id == built_on[5].scene_id]
    assert member.without, "it is no part of what is usual"


@pytest.mark.parametrize("verdict", ["cloud or shadow", "bad data"])
def test_under_what_people_judged_the_witness_says_nothing(
    settings: Settings, workspace: Workspace, built_on: list[SceneRecord], verdict: str
) -> None:
    said(workspace, built_on[5], verdict, SITE)

    usual = known_usual(built_on[6], settings, workspace)

    with usual.open_past(settings, workspace) as past:
        assert past is not None
        seen = past.read(whole(usual.reference.grid)).witness_valid
    assert seen is not None
    assert not seen[site_of()].any()
    assert seen[~site_of()].all()


def test_an_expectation_is_sought_again_when_people_judged_and_found_again_without_a_change(
    settings: Settings, workspace: Workspace, built_on: list[SceneRecord]
) -> None:
    path = kept_expectation(workspace, built_on[6])
    known_usual(built_on[6], settings, workspace)
    plain = path.read_bytes()
    said(workspace, built_on[4], "anomaly", SITE)
    known_usual(built_on[6], settings, workspace)
    changed = path.read_bytes()
    Path(built_on[6].files[0].path).rename(workspace.root / "away.tif")  # what is found again opens no scene
    known_usual(built_on[6], settings, workspace)

    assert changed != plain
    assert path.read_bytes() == changed


def test_what_was_opened_stays_as_it_was_fitted_when_verdicts_come_meanwhile(
    settings: Settings, workspace: Workspace, built_on: list[SceneRecord]
) -> None:
    usual = known_usual(built_on[6], settings, workspace)
    with usual.open_past(settings, workspace) as past:
        assert past is not None
        before = past.read(whole(usual.reference.grid)).values
    said(workspace, built_on[4], "anomaly", SITE)

    with usual.open_past(settings, workspace) as past:
        assert past is not None
        np.testing.assert_array_equal(past.read(whole(usual.reference.grid)).values, before)

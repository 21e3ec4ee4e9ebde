"""What people judged counts in no reference, and is sought again when they change their minds."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from tasks.ingest import open_scene
from tasks.reference import flagged_as_whole, reference_for
from tasks.review.verdicts import Verdict, write_verdicts
from tests.places import FIRST, SIDE, ingested, write_scene
from tests.rasters import whole
from tests.tasks.reference.scenes import AFTER, days_of, kept_expectation, known_usual, write_scores

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

"""What is expected of a scene comes from the scenes of its reference, and is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from tasks.ingest import open_scene
from tasks.reference import reference_for, usual_of
from tests.places import SIDE, ingested, write_scene
from tests.rasters import whole
from tests.tasks.reference.scenes import AFTER, days_in, days_of, kept_expectation, known_usual


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

"""What is expected of a scene follows from what did not change, and says when it is not to be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import AlignmentSettings
from imagery.alignment import Alignment, align_pixels
from imagery.composite import MemberUnreadable
from imagery.expected import Expectation
from imagery.expected.expectation import MOST_PIXELS, split_witness
from imagery.expected.features import baseline, features, mapped
from imagery.records import SceneRecord
from tests.catalogs import scene_record
from tests.imagery.expected.archive import BANDS, LOG, NOISE, expected_of, land, write_scene

SIDE = 50


def predictors(seed: int, count: int) -> np.ndarray:
    """(P, H, W) of some images of one land."""
    draw = np.random.default_rng(seed)
    ground = np.log(land(SIDE, SIDE, seed % 10))
    images = [ground * draw.uniform(0.8, 1.2) + 0.02 * draw.standard_normal(ground.shape) for _ in range(count)]
    return features(np.stack(images).astype(np.float32), np.ones((count, SIDE, SIDE), bool))[0]


def fitted(given: np.ndarray, scene: np.ndarray, count: int) -> Alignment:
    flat = given.reshape(len(given), -1), scene.reshape(len(scene), -1)
    return align_pixels(*flat, BANDS, AlignmentSettings(max_gain=10), baseline(count, len(BANDS)))


def true_map(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Each band mostly itself, with a little of all others and of what surrounds it."""
    draw = np.random.default_rng(seed)
    matrix = baseline(count, 2) * draw.uniform(0.7, 1.3, (2, 1))
    return matrix + draw.uniform(-0.1, 0.1, matrix.shape), draw.uniform(-0.3, 0.3, 2)


def turned(seed: int, share: float) -> np.ndarray:
    """(H, W) a block of rows."""
    rows = round(share * SIDE)
    first = np.random.default_rng(seed).integers(0, SIDE - rows + 1)
    there = np.zeros((SIDE, SIDE), bool)
    there[first : first + rows] = True
    return there


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), share=st.floats(0, 0.33))
def test_a_map_of_past_and_surroundings_is_recovered_although_a_third_of_the_pixels_turned(
    seed: int, count: int, share: float
) -> None:
    draw = np.random.default_rng([seed, 1])  # not the stream of the predictors, whose noise it would repeat
    given = predictors(seed, count)
    truth = mapped(*true_map(seed, count), given)
    noise, there = 0.01, turned(seed, share)
    scene = truth + noise * draw.standard_normal(truth.shape)
    scene[:, there] = draw.uniform(-1.5, 0.5, (2, 1)) + 0.05 * draw.standard_normal((2, there.sum()))

    found = fitted(given, scene, count)

    off = mapped(found.matrix, found.offset, given) - truth
    assert np.sqrt(np.square(off[:, ~there]).mean()) < 0.3 * noise
    assert found.matrix.shape == (2, (count + 2) * 2)
    assert found.inliers > 0.9 - share


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100), other=st.floats(0.01, 100))
def test_the_units_of_predictors_and_scene_do_not_matter(seed: int, factor: float, other: float) -> None:
    given = predictors(seed, 2)
    scene = mapped(*true_map(seed, 2), given) + 0.01 * np.random.default_rng([seed, 1]).standard_normal((2, SIDE, SIDE))

    found, again = fitted(given, scene, 2), fitted(factor * given, other * scene, 2)

    flat = given.reshape(len(given), -1)
    moved = again.matrix @ flat * factor + again.offset[:, None] - other * (found.matrix @ flat + found.offset[:, None])
    assert (np.abs(moved).max(axis=1) < 0.1 * other * found.residual).all()
    np.testing.assert_allclose(again.residual, other * found.residual, rtol=1e-2)


def test_dates_that_say_the_same_share_the_weight() -> None:
    once = predictors(3, 1)
    given = np.concatenate([once[:2], once[:2], once[2:]])
    scene = 1.2 * once[:2] + 0.01 * np.random.default_rng(0).standard_normal(once[:2].shape)

    found = fitted(given, scene, 2)

    np.testing.assert_allclose(found.matrix[:, :2], found.matrix[:, 2:4], atol=1e-6)
    np.testing.assert_allclose(np.diag(found.matrix[:, :2] + found.matrix[:, 2:4]), 1.2, atol=0.05)


@pytest.mark.parametrize(("count", "witness"), [(1, False), (2, False), (3, True), (7, True)])
def test_the_newest_scene_is_the_witness_when_two_are_left_without_it(count: int, witness: bool) -> None:
    members = [scene_record(scene_id=str(number)) for number in range(count)]

    regressors, found = split_witness(members)

    assert [*regressors, *([found] if found else [])] == members
    assert (found is not None) is witness


@pytest.fixture
def members(tmp_path: Path) -> list[SceneRecord]:
    return [write_scene(tmp_path, age, clouds=True) for age in (40, 30, 20, 10)]


def test_tonight_and_the_witness_are_expected_to_the_noise(tmp_path: Path, members: list[SceneRecord]) -> None:
    found = expected_of(write_scene(tmp_path, 0), members)

    assert [member.scene_id for member in found.regressors] == [record.scene_id for record in members[:3]]
    assert found.witness is not None
    assert found.witness.scene_id == members[3].scene_id
    assert found.members == (*found.regressors, found.witness)
    assert found.reason is None
    assert found.confirms
    assert found.witness_map is not None
    for fit in (found.scene, found.witness_map):
        # Of tonight's noise and that of three dates, in logarithms, at a reflectance of some 0.2
        assert (fit.residual < 2 * NOISE / 0.2).all()
        assert (fit.residual < fit.unaligned).all()
        assert fit.inliers > 0.8


def test_it_is_the_same_every_time_and_comes_back_from_json(tmp_path: Path, members: list[SceneRecord]) -> None:
    tonight = write_scene(tmp_path, 0)

    one, other = (json.dumps(expected_of(tonight, members).to_record(), allow_nan=False) for _ in range(2))

    assert one == other
    again = Expectation.from_record(json.loads(one))
    assert json.dumps(again.to_record(), allow_nan=False) == one
    assert again.transform == LOG
    assert again.members == expected_of(tonight, members).members


def test_one_that_cannot_be_measured_comes_back_from_json_too(tmp_path: Path, members: list[SceneRecord]) -> None:
    found = expected_of(write_scene(tmp_path, 0), members[:1], min_pixels=10_000)

    again = Expectation.from_record(json.loads(json.dumps(found.to_record(), allow_nan=False)))

    assert again.witness is None
    assert again.witness_map is None
    assert not again.confirms
    assert str(again.reason).startswith("only 37")
    assert str(again.reason).endswith("pixels are valid in both scene and reference, 10000 are needed")


def test_other_ground_is_not_to_be_trusted(tmp_path: Path, members: list[SceneRecord]) -> None:
    found = expected_of(write_scene(tmp_path, 0, seed=7), members)

    assert "little in common" in str(found.reason)
    assert found.confirms  # the witness is of the same ground as the others


def test_large_scenes_are_fitted_on_pixels_spread_over_them(tmp_path: Path) -> None:
    records = [write_scene(tmp_path, age, (300, 310)) for age in (10, 0)]

    found = expected_of(records[1], records[:1])

    assert 0.99 * MOST_PIXELS < found.scene.pixels <= MOST_PIXELS


def test_an_earlier_scene_that_is_gone_is_named(tmp_path: Path, members: list[SceneRecord]) -> None:
    Path(members[1].files[0].path).unlink()

    with pytest.raises(MemberUnreadable, match=members[1].scene_id) as error:
        expected_of(write_scene(tmp_path, 0), members)

    assert error.value.scene_id == members[1].scene_id

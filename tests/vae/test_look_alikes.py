"""Changes in the latent space that resemble others: what counts of them, and what is alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae.look_alikes import find_alike, latent_changes, signatures, spread_of

SHAPE = (3, 4, 4)
NOBODY = np.zeros((0, 3))


def ground(tiles: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tiles, *SHAPE)) * 5


def test_what_lies_in_a_tile_is_not_in_its_change() -> None:
    there = ground(20)
    past = np.stack([there] * 5)
    now = there.copy()
    now[3, :, 1, 2] += [2, 0, -1]

    found = latent_changes(now, past)

    expected = np.zeros_like(there)
    expected[3, :, 1, 2] = [2, 0, -1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_one_odd_scene_of_the_past_and_the_light_of_tonight_do_not_count() -> None:
    there = ground(20)
    past = np.stack([there, there, there + 9, there, there])

    np.testing.assert_allclose(latent_changes(there + 0.7, past), 0, atol=1e-12)


def test_nothing_is_said_of_a_tile_without_a_past_or_without_a_score() -> None:
    there = ground(4)
    past, now = np.stack([there] * 3), there.copy()
    past[:, 1], past[:2, 2], now[3] = np.nan, np.nan, np.nan

    found = latent_changes(now, past)

    assert np.isnan(found[[1, 3]]).all()
    assert np.isfinite(found[[0, 2]]).all()
    assert np.isnan(latent_changes(now, np.zeros((0, *now.shape)))).all()
    assert latent_changes(now[:0], past[:, :0]).shape == (0, *SHAPE)


def test_a_signature_does_not_depend_on_where_in_the_tile_something_lies() -> None:
    changes = np.zeros((3, *SHAPE))
    changes[0, :, 0, :2] = changes[1, :, 2:, 3] = np.array([3.0, 1.0, 0.0])[:, None]
    changes[2, :, 1, 1] = np.nan

    found = signatures(changes)

    np.testing.assert_allclose(found[0], found[1])
    np.testing.assert_allclose(found[0], np.array([3, 1, 0]) / 2)  # two of the four cells that count
    assert np.isfinite(signatures(ground(5))).all()


def test_the_spread_is_that_of_normal_changes() -> None:
    normal = np.random.default_rng(0).normal(size=(4000, 3)) * [1, 2, 0]
    normal[:400] = 1000
    normal[5] = np.nan

    found = spread_of(normal)

    assert found[:2] == pytest.approx([1, 2], rel=0.2)
    assert found[2] > 0
    assert (spread_of(NOBODY) == 1).all()


def test_a_change_is_like_the_nearest_false_alarm_within_the_limit() -> None:
    alarms = np.array([[9.0, 0, 0], [1.0, 0.4, 0], [1.0, -0.3, 0]])
    change = np.array([1.0, 0, 0])

    found = find_alike(change, alarms, NOBODY, 0.5)

    assert found is not None
    assert (found.index, found.distance) == (2, pytest.approx(0.3))
    assert find_alike(change, alarms, NOBODY, 0.29) is None
    assert find_alike(change, NOBODY, NOBODY, 0.5) is None


def test_a_change_is_not_like_a_false_alarm_when_an_anomaly_is_as_near() -> None:
    change, alarm = np.array([1.0, 0, 0]), np.array([[1.2, 0, 0]])

    assert find_alike(change, alarm, np.array([[0.8, 0, 0]]), 0.5) is None
    assert find_alike(change, alarm, np.array([[0.7, 0, 0], [np.nan, 0, 0]]), 0.5) is not None


def test_what_is_not_known_is_like_nothing() -> None:
    unknown = np.full((1, 3), np.nan)

    assert find_alike(unknown[0], np.ones((1, 3)), NOBODY, 1.0) is None
    assert find_alike(np.ones(3), unknown, NOBODY, 1.0) is None
    assert find_alike(np.ones(3), np.ones((1, 3)), unknown, 1.0) is not None
    assert find_alike(np.zeros(3), np.zeros((1, 3)), NOBODY, 1.0) is None


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.floats(0.1, 10))
def test_likeness_does_not_depend_on_the_unit_and_grows_with_the_limit(seed: int, limit: float, unit: float) -> None:
    draw = np.random.default_rng(seed)
    change, alarms, anomalies = draw.normal(size=3), draw.normal(size=(4, 3)), draw.normal(size=(2, 3))

    found = find_alike(change, alarms, anomalies, limit)
    scaled = find_alike(unit * change, unit * alarms, unit * anomalies, limit)

    if found is not None:
        assert found.distance <= limit
        assert find_alike(change, alarms, anomalies, min(1.0, limit + 0.1)) == found
        if limit - found.distance > 1e-9:
            assert scaled is not None
            assert scaled.index == found.index

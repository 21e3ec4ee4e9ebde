"""A reference is brought to a scene's radiometry by the pixels that did not change, and the reader is told how well."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import AlignmentSettings
from imagery.alignment import Alignment, align, align_pixels
from imagery.robust import evenly

SETTINGS = AlignmentSettings()
NOISE = 0.005  # reflectance
SIDE = 60


def names(count: int) -> tuple[str, ...]:
    return tuple(f"B{number:02d}" for number in range(1, count + 1))


def pair(seed: int, channels: int, changed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A reference of several surfaces, and a scene of it through a known map and noise. A block of rows became another
    surface, the same one all over.

    Returns:
        reference, scene, (C, H, W) each; what the map makes of the reference; (H, W) where the scene changed.
    """
    draw = np.random.default_rng(seed)
    surfaces = draw.uniform(0.02, 0.5, (6, channels))
    labels = draw.integers(0, 6, (6, 6)).repeat(10, 0).repeat(10, 1)
    reference = surfaces[labels].transpose(2, 0, 1) * (1 + 0.1 * draw.standard_normal((SIDE, SIDE)))
    reference += 0.01 * draw.standard_normal(reference.shape)
    matrix = np.diag(draw.uniform(0.6, 1.6, channels)) + draw.uniform(-0.1, 0.1, (channels, channels))
    expected = np.einsum("ij,jhw->ihw", matrix, reference) + draw.uniform(-0.05, 0.1, (channels, 1, 1))
    scene = expected.copy()
    rows, there = round(changed * SIDE), np.zeros((SIDE, SIDE), bool)
    first = draw.integers(0, SIDE - rows + 1)
    there[first : first + rows] = True
    scene[:, there] = draw.uniform(0.02, 0.6, (channels, 1)) * (1 + 0.1 * draw.standard_normal(there.sum()))
    scene += NOISE * draw.standard_normal(scene.shape)
    return reference.astype(np.float32), scene.astype(np.float32), expected, there


def aligned(reference: np.ndarray, scene: np.ndarray, valid: np.ndarray | None = None, **values: float) -> Alignment:
    everywhere = np.ones(scene.shape[1:], bool)
    chosen = AlignmentSettings(**values)  # type: ignore[arg-type]
    return align(reference, scene, everywhere, everywhere if valid is None else valid, names(len(scene)), chosen)


def error(mapped: np.ndarray, expected: np.ndarray, there: np.ndarray) -> float:
    """How far a mapped reference is from what the true map makes of it where nothing changed, in noises of a pixel."""
    return float(np.sqrt(np.square(mapped - expected)[:, ~there].mean()) / NOISE)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), channels=st.integers(1, 12), changed=st.floats(0, 0.3))
def test_a_known_map_is_recovered_to_a_fifth_of_the_noise_although_up_to_30_percent_changed_alike(
    seed: int, channels: int, changed: float
) -> None:
    reference, scene, expected, there = pair(seed, channels, changed)

    found = aligned(reference, scene, max_gain=10)

    assert error(replace(found, reason=None).apply(reference), expected, there) < 0.2
    assert found.pixels == SIDE**2
    assert found.inliers > 1 - changed - 0.1


def from_least_squares(reference: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """The same weights, but a start from least squares, with a scale that follows the fit."""
    x, y = (image.reshape(len(image), -1).astype(np.float64) for image in (reference, scene))
    design, weights = np.vstack([x, np.ones(x.shape[1])]), np.ones(x.shape[1])
    for _ in range(50):
        solution = np.linalg.solve((design * weights) @ design.T, (design * weights) @ y.T).T
        residual = y - solution @ design
        scale = 1.4826 * np.median(np.abs(residual), axis=1, keepdims=True)
        weights = 1 / np.square(1 + np.square(residual / scale).mean(axis=0) / 1.5**2)
    return (solution @ design).reshape(scene.shape)


def test_starting_from_least_squares_would_not_do() -> None:
    lost = 0
    for seed in range(40):
        reference, scene, expected, there = pair(seed, 10, 0.3)
        lost += error(from_least_squares(reference, scene), expected, there) > 2
        assert error(aligned(reference, scene).apply(reference), expected, there) < 0.2

    assert lost >= 5


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), channels=st.integers(1, 12))
def test_identical_images_give_the_identity(seed: int, channels: int) -> None:
    reference, *_ = pair(seed, channels, 0.0)

    found = aligned(reference, reference)

    np.testing.assert_allclose(found.matrix, np.eye(channels), atol=1e-9)
    np.testing.assert_allclose(found.offset, 0, atol=1e-9)
    np.testing.assert_allclose(found.gain, 1, atol=1e-9)
    np.testing.assert_allclose(found.residual, 0, atol=1e-9)
    assert (found.inliers, found.reason) == (1.0, None)


def test_images_that_are_the_same_but_for_what_changed_give_the_identity() -> None:
    reference, _, _, _ = pair(0, 4, 0.0)
    scene = reference.copy()
    scene[:, :18] = 0.4

    found = aligned(reference, scene)

    np.testing.assert_allclose(found.matrix, np.eye(4), atol=1e-6)
    assert found.inliers == pytest.approx(0.7)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.6), value=st.sampled_from([np.nan, np.inf, -1e30, 0, 7.5]))
def test_masked_pixels_never_change_the_result(seed: int, share: float, value: float) -> None:
    reference, scene, _, _ = pair(seed, 4, 0.2)
    draw = np.random.default_rng(seed)
    valid = [draw.random((SIDE, SIDE)) >= share / 2 for _ in range(2)]
    spoilt = [np.where(mask, image, np.float32(value)) for mask, image in zip(valid, (reference, scene), strict=True)]

    plain = align(reference, scene, *valid, names(4), SETTINGS)
    found = align(*spoilt, *valid, names(4), SETTINGS)

    assert found.to_record() == plain.to_record()


def test_a_number_that_is_missing_in_a_valid_pixel_is_left_out() -> None:
    reference, scene, _, _ = pair(3, 4, 0.2)
    valid = np.ones((SIDE, SIDE), bool)
    valid[5:9, 7:30] = False
    holed = scene.copy()
    holed[2, 5:9, 7:30] = np.nan

    assert aligned(reference, holed).to_record() == aligned(reference, scene, valid).to_record()


def test_missing_numbers_of_the_reference_stay_missing() -> None:
    reference, scene, _, _ = pair(3, 4, 0.2)
    found = aligned(reference, scene)
    holed = reference.copy()
    holed[:, 4, 5] = np.nan

    mapped = found.apply(holed)

    assert np.isnan(mapped[:, 4, 5]).all()
    assert np.isfinite(mapped).sum() == mapped.size - 4
    assert mapped.dtype == np.float32


def test_bands_that_say_the_same_keep_their_own_gains() -> None:
    draw = np.random.default_rng(0)
    brightness = draw.uniform(0.05, 0.4, (SIDE, SIDE))
    reference = np.stack([brightness, brightness, brightness]) + 1e-5 * draw.standard_normal((3, SIDE, SIDE))
    gains = np.array([1.3, 1.0, 0.7])
    scene = gains[:, None, None] * reference + NOISE * draw.standard_normal(reference.shape)

    found = aligned(reference.astype(np.float32), scene.astype(np.float32))

    np.testing.assert_allclose(found.gain, gains, atol=0.01)
    np.testing.assert_allclose(found.matrix, np.diag(gains), atol=0.05)


def test_a_band_without_contrast_is_only_shifted() -> None:
    reference, scene, _, _ = pair(0, 3, 0.0)
    reference[1], scene[1] = 0.2, 0.25

    found = aligned(reference, scene)

    assert found.gain[1] == 1
    np.testing.assert_allclose(found.apply(reference)[1], 0.25, atol=1e-3)


def test_no_result_before_enough_pixels() -> None:
    reference, scene, _, _ = pair(0, 4, 0.0)
    valid = np.zeros((SIDE, SIDE), bool)
    valid.flat[:499] = True

    few = aligned(reference, scene, valid)
    valid.flat[499] = True
    enough = aligned(reference, scene, valid)

    assert few.reason == "only 499 pixels are valid in both scene and reference, 500 are needed"
    assert few.apply(reference) is reference
    assert (enough.pixels, enough.reason) == (500, None)


def test_no_pixel_at_all_is_said_and_not_an_error() -> None:
    reference, scene, _, _ = pair(0, 4, 0.0)

    found = aligned(reference, scene, np.zeros((SIDE, SIDE), bool))

    assert found.reason is not None
    assert found.pixels == 0
    assert Alignment.from_record(json.loads(json.dumps(found.to_record()))).apply(scene) is scene


def test_images_of_other_ground_are_not_mapped_to_each_other() -> None:
    reference, _, _, _ = pair(0, 4, 0.0)
    scene = np.random.default_rng(5).uniform(0, 0.5, reference.shape).astype(np.float32)

    found = aligned(reference, scene)

    assert found.reason is not None
    assert "the reference explains 0% of what is seen in the scene, 15% are needed" in found.reason
    assert found.apply(reference) is reference


def test_a_scene_without_contrast_has_nothing_in_common_with_its_reference() -> None:
    reference, _, _, _ = pair(0, 4, 0.0)

    found = aligned(reference, np.full_like(reference, 0.3))

    assert found.reason is not None
    assert "explains 0%" in found.reason
    json.dumps(found.to_record(), allow_nan=False)


def test_the_share_of_the_scene_that_is_explained_is_told() -> None:
    reference, _, _, _ = pair(0, 2, 0.0)
    draw = np.random.default_rng(1).standard_normal(reference.shape)
    spread = 1.4826 * np.median(np.abs(reference - np.median(reference, axis=(1, 2), keepdims=True)), axis=(1, 2))
    scene = reference + np.array([0.1, 1.0])[:, None, None] * spread[:, None, None] * draw

    found = aligned(reference, scene.astype(np.float32))

    assert found.explained[0] > 0.97
    assert 0.2 < found.explained[1] < 0.7


@pytest.mark.parametrize(
    ("gain", "trusted"), [(2.9, True), (3.1, False), (0.1, True), (-1.0, True), (-2.9, True), (-3.1, False)]
)
def test_a_gain_beyond_the_limit_is_not_trusted(gain: float, trusted: bool) -> None:
    reference, _, _, _ = pair(0, 2, 0.0)

    found = aligned(reference, np.float32(gain) * reference + np.float32(0.5), max_gain=3.0)

    np.testing.assert_allclose(found.gain, gain, atol=1e-4)
    assert (found.reason is None) is trusted
    if not trusted:
        assert f"the gain of B01 {gain:.2g}, B02 {gain:.2g} is larger than 3 (alignment.max_gain)" in str(found.reason)


def test_a_scene_that_changed_in_several_ways_over_most_of_it_is_not_trusted() -> None:
    reference, scene, _, _ = pair(0, 4, 0.0)
    for band, rows in enumerate((slice(24, 33), slice(33, 42), slice(42, 51), slice(51, 60))):
        scene[:, rows] = np.random.default_rng(band).uniform(0, 1, (4, 9, SIDE)).astype(np.float32)

    found = aligned(reference, scene)

    assert found.reason is not None
    assert "40% of the pixels fit one map" in found.reason


def test_a_map_that_leaves_more_over_than_none_is_not_trusted() -> None:
    draw = np.random.default_rng(0)
    reference = draw.uniform(0.1, 0.4, (1, 100, 100)).astype(np.float32)
    scene = reference + np.float32(0.02) * draw.standard_normal(reference.shape).astype(np.float32)
    scene[:, :48] = 1.5 * reference[:, :48] + 0.3  # nearly half, and it fits so much better than the other half

    found = aligned(reference, scene)

    assert found.reason is not None
    assert "differs more from the scene (B01" in found.reason


def test_what_is_left_over_and_what_it_was_before_are_told() -> None:
    reference, _, _, _ = pair(0, 4, 0.0)
    draw = np.random.default_rng(1)
    noise = np.array([0.002, 0.004, 0.006, 0.008])
    scene = reference + 0.1 + noise[:, None, None] * draw.standard_normal(reference.shape)

    found = aligned(reference, scene.astype(np.float32))

    np.testing.assert_allclose(found.residual, noise, rtol=0.1)
    np.testing.assert_allclose(found.unaligned, 1.4826 * 0.1, rtol=0.05)


@settings(max_examples=200)
@given(count=st.integers(0, 10_000), most=st.integers(1, 2000))
def test_thinning_is_even(count: int, most: int) -> None:
    chosen = evenly(count, most)

    assert len(chosen) == min(count, most)
    assert ((chosen >= 0) & (chosen < max(count, 1))).all()
    steps = np.diff(chosen)
    if len(steps):
        assert chosen[0] == 0
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1


def test_more_pixels_than_are_fitted_are_thinned_and_the_same_every_time() -> None:
    reference, scene, expected, there = pair(0, 4, 0.3)

    found, again = (aligned(reference, scene, max_pixels=1000) for _ in range(2))

    assert found.pixels == 1000
    assert found.to_record() == again.to_record()
    assert error(found.apply(reference), expected, there) < 0.4


def test_pixels_that_were_picked_already_give_the_same_as_their_images() -> None:
    reference, scene, _, _ = pair(0, 4, 0.3)

    found = align_pixels(reference.reshape(4, -1), scene.reshape(4, -1), names(4), SETTINGS)

    assert found.to_record() == aligned(reference, scene).to_record()


def test_a_record_is_read_back_as_it_was() -> None:
    reference, scene, _, _ = pair(0, 4, 0.3)
    found = aligned(reference, scene)

    back = Alignment.from_record(json.loads(json.dumps(found.to_record())))

    assert back.to_record() == found.to_record()
    np.testing.assert_array_equal(back.apply(reference), found.apply(reference))

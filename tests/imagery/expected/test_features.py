"""Predictors are what they are said to be, pixel by pixel, whatever is masked and however an image is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from configs.schema import DARKEST, NormaliseSettings
from imagery.expected.features import HALO, Transform, baseline, features, mapped

physical = st.floats(-0.25, 1.5, width=32)


@given(arrays(np.float32, (2, 5), elements=physical), st.sampled_from([0.0, 0.02, 0.1]))
def test_back_from_logarithms_comes_what_went_in_but_nothing_darker_than_the_darkest(
    values: np.ndarray, offset: float
) -> None:
    transform = Transform(log=True, offset=offset)

    there = transform.forward(values)

    assert there.dtype == np.float32
    np.testing.assert_allclose(there, np.log(np.maximum(values, DARKEST) + offset), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(transform.inverse(there), np.maximum(values, DARKEST), rtol=1e-4, atol=1e-6)


def test_without_logarithms_values_stay_what_they_are() -> None:
    values = np.array([-0.1, 0.0, 2.0], np.float32)
    transform = Transform.of(NormaliseSettings(log=False))

    assert transform.forward(values).tolist() == transform.inverse(values).tolist() == values.tolist()
    assert Transform.of(NormaliseSettings()) == Transform(log=True, offset=0.1)


def by_hand(images: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one pixel after the other."""
    count, channels, height, width = images.shape
    middle = np.full((channels, height, width), np.nan)
    for row, column in zip(*np.nonzero(valid.any(axis=0)), strict=True):
        middle[:, row, column] = np.median(images[valid[:, row, column], :, row, column], axis=0)
    filled = np.where(valid[:, None], images, middle).reshape(count * channels, height, width)
    around = np.full((2 * channels, height, width), np.nan)
    for row, column in zip(*np.nonzero(valid.any(axis=0)), strict=True):
        window = np.s_[:, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        near = middle[window].reshape(channels, -1)
        around[:channels, row, column] = np.nanmean(near, axis=1)
        around[channels:, row, column] = np.nanstd(near, axis=1)
    return np.concatenate([filled, around]), valid.any(axis=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 4),
    channels=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    share=st.sampled_from([0.1, 0.6, 1.0]),
)
def test_they_are_bands_with_gaps_filled_by_the_median_and_mean_and_spread_of_what_surrounds(
    seed: int, count: int, channels: int, height: int, width: int, share: float
) -> None:
    draw = np.random.default_rng(seed)
    images = draw.normal(-1, 1, (count, channels, height, width)).astype(np.float32)
    valid = draw.random((count, height, width)) < share
    images[~np.broadcast_to(valid[:, None], images.shape)] = np.nan

    found, usable = features(images, valid)

    wanted, known = by_hand(images, valid)
    np.testing.assert_array_equal(usable, known)
    np.testing.assert_allclose(found[:, known], wanted[:, known], rtol=1e-5, atol=2e-4)  # of the root of rounding
    assert (found[:, ~known] == 0).all()
    assert found.dtype == np.float32


def test_the_baseline_of_a_band_is_its_mean_over_the_images() -> None:
    images = np.random.default_rng(0).random((3, 2, 4, 5), np.float32)

    found, _ = features(images, np.ones((3, 4, 5), bool))

    assert baseline(3, 2).shape == (2, len(found))
    np.testing.assert_allclose(np.tensordot(baseline(3, 2), found, 1), images.mean(axis=0), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), row=st.integers(0, 30), column=st.integers(0, 30), rows=st.integers(1, 9))
def test_a_cut_with_what_surrounds_it_gives_the_same_bytes_as_the_whole(
    seed: int, row: int, column: int, rows: int
) -> None:
    draw = np.random.default_rng(seed)
    images, valid = draw.normal(-1, 1, (3, 2, 40, 41)).astype(np.float32), draw.random((3, 40, 41)) < 0.5
    matrix, offset = draw.normal(0, 1, (2, 10)), draw.normal(0, 1, 2)
    top, left = max(row - HALO, 0), max(column - HALO, 0)
    outer = np.s_[..., top : row + rows + HALO, left : column + 7 + HALO]

    whole = mapped(matrix, offset, features(images, valid)[0])
    part = mapped(matrix, offset, features(np.ascontiguousarray(images[outer]), valid[outer])[0])

    inner = part[:, row - top : row - top + rows, column - left : column - left + 7]
    assert inner.tobytes() == whole[:, row : row + rows, column : column + 7].tobytes()


@given(seed=st.integers(0, 10**6), count=st.integers(1, 20), pixels=st.sampled_from([1, 5, 511, 512, 513, 1500]))
@settings(max_examples=30, deadline=None)
def test_mapped_is_a_matrix_product(seed: int, count: int, pixels: int) -> None:
    draw = np.random.default_rng(seed)
    matrix, offset = draw.normal(0, 1, (3, count)), draw.normal(0, 1, 3)
    predictors = draw.normal(0, 1, (count, 1, pixels)).astype(np.float32)

    found = mapped(matrix, offset, predictors)

    np.testing.assert_allclose(found[:, 0], matrix @ predictors[:, 0] + offset[:, None], rtol=1e-5, atol=1e-5)


def test_a_pixel_that_no_image_shows_says_nothing_of_its_neighbours() -> None:
    images = np.full((1, 1, 3, 3), 2.0, np.float32)
    valid = np.ones((1, 3, 3), bool)
    images[0, 0, 1, 1], valid[0, 1, 1] = np.nan, False

    found, usable = features(images, valid)

    assert usable.sum() == 8
    assert found[1][usable] == pytest.approx(2.0)  # mean
    assert found[2][usable] == pytest.approx(0.0)  # spread

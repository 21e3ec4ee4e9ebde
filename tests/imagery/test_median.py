"""The median over scenes is numpy's, of the valid pixels only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.median import masked_median


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@settings(max_examples=150)
@given(
    scenes=st.integers(1, 64),
    channels=st.integers(1, 3),
    pixels=st.sampled_from([1, 7, 255, 256, 257, 600]),
    share=st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]),
    ties=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_it_is_that_of_numpy_whatever_the_number_of_scenes(
    scenes: int, channels: int, pixels: int, share: float, ties: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    shape = (scenes, channels, pixels)
    stack = (draw.integers(-3, 3, shape) if ties else draw.normal(0, 1000, shape)).astype(np.float32)
    valid = draw.random((scenes, pixels)) < share

    median, count = masked_median(stack, valid)

    np.testing.assert_array_equal(median, np.nanmedian(np.where(valid[:, None], stack, np.nan), axis=0))
    np.testing.assert_array_equal(count, valid.sum(axis=0))
    assert median.dtype == np.float32


def test_of_an_even_number_it_is_the_mean_of_the_two_in_the_middle() -> None:
    stack = np.array([1.0, 40.0, 3.0, 2.0], np.float32).reshape(4, 1, 1)

    median, count = masked_median(stack, np.ones((4, 1), bool))

    assert (median.item(), count.item()) == (2.5, 4)


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 1e30])
def test_what_lies_under_a_mask_does_not_matter(hidden: float) -> None:
    stack = np.array([[[5.0, 1.0]], [[hidden, 2.0]], [[7.0, hidden]]], np.float32)
    valid = np.array([[True, True], [False, True], [True, False]])

    median, _ = masked_median(stack, valid)

    np.testing.assert_array_equal(median, [[6.0, 1.5]])

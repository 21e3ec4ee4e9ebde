"""How far a scene lies from its reference is told to a tenth of a pixel, or that it cannot be told."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from configs.schema import AlignmentSettings
from imagery.grid import Grid
from imagery.registration import ChipPair, Registration, chip_windows, register, sample_windows
from tests.rasters import UTM

FINE = 4  # pixels of the ground to one of an image: shifts are multiples of a quarter of a pixel, and exact
SIDE = 160


def ground(seed: int, bands: int = 2) -> np.ndarray:
    """Fields and fine texture on a finer grid than that of the images, with a wide border."""
    draw = np.random.default_rng(seed)
    size = FINE * (SIDE + 20)
    fields = [gaussian_filter(draw.standard_normal((size, size)), 12) > 0 for _ in range(bands)]
    texture = gaussian_filter(draw.standard_normal((size, size)), 3)
    return np.stack([0.1 + 0.1 * field + texture for field in fields])


def seen(land: np.ndarray, rows: float = 0, cols: float = 0) -> np.ndarray:
    """An image of the ground by a sensor that is that many pixels too far up and left: (C, H, W) float32.

    It must be moved down by `rows` and right by `cols` to lie where one that is not does.
    """
    top, left = (10 * FINE - round(FINE * shift) for shift in (-rows, -cols))
    part = land[:, top : top + FINE * SIDE, left : left + FINE * SIDE]
    image = part.reshape(len(land), SIDE, FINE, SIDE, FINE).mean(axis=(2, 4))
    return np.asarray(image, np.float32)


def chips(
    reference: np.ndarray,
    scene: np.ndarray,
    reference_valid: np.ndarray | None = None,
    scene_valid: np.ndarray | None = None,
) -> Iterator[ChipPair]:
    everywhere = np.ones(scene.shape[1:], bool)
    grid = Grid(UTM, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), scene.shape[2], scene.shape[1])
    valid = [everywhere if mask is None else mask for mask in (reference_valid, scene_valid)]
    for window in chip_windows(grid):
        rows, cols = window.toslices()
        yield ChipPair(reference[:, rows, cols], scene[:, rows, cols], *(mask[rows, cols] for mask in valid))


def registered(*images: np.ndarray | None, **values: float) -> Registration:
    return register(chips(*images), AlignmentSettings(**values))  # type: ignore[arg-type]


quarters = st.integers(-12, 12).map(lambda quarter: quarter / FINE)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), rows=quarters, cols=quarters)
def test_a_known_shift_is_found_to_a_tenth_of_a_pixel(seed: int, rows: float, cols: float) -> None:
    land = ground(seed)

    found = registered(seen(land), seen(land, rows, cols))

    assert found.reason is None
    assert (found.rows, found.cols) == pytest.approx((rows, cols), abs=0.1)
    assert found.agreement == 1
    assert found.spread < 0.1


@settings(max_examples=10)
@given(seed=st.integers(0, 999), gain=st.floats(0.3, 3), offset=st.floats(-0.1, 0.3), power=st.floats(0.5, 2))
def test_other_light_changes_nothing_of_it(seed: int, gain: float, offset: float, power: float) -> None:
    land = ground(seed)
    scene = gain * np.maximum(seen(land, 1.25, -0.5), 1e-3) ** power + offset
    scene += 0.002 * np.random.default_rng(seed).standard_normal(scene.shape)

    found = registered(seen(land), scene.astype(np.float32))

    assert found.reason is None
    assert (found.rows, found.cols) == pytest.approx((1.25, -0.5), abs=0.1)


def test_a_third_of_the_ground_may_have_changed_or_be_under_a_cloud_that_nobody_masked() -> None:
    land = ground(0)
    scene = seen(land, -2.0, 1.5)
    scene[:, :, :50] = seen(ground(1))[:, :, :50] + 0.5

    found = registered(seen(land), scene)

    assert found.reason is None
    assert (found.rows, found.cols) == pytest.approx((-2.0, 1.5), abs=0.1)


@settings(max_examples=15)
@given(seed=st.integers(0, 999), value=st.sampled_from([np.nan, np.inf, -1e30, 0.0, 3.0]))
def test_masked_pixels_never_change_the_result(seed: int, value: float) -> None:
    land = ground(seed)
    draw = np.random.default_rng(seed)
    valid = [gaussian_filter(draw.standard_normal((SIDE, SIDE)), 6) > -0.03 for _ in range(2)]
    images = seen(land), seen(land, 0.75, 0.25)
    spoilt = [np.where(mask, image, np.float32(value)) for mask, image in zip(valid, images, strict=True)]

    found = registered(*spoilt, *valid)

    assert found == registered(*images, *valid)
    if found.reason is None:
        assert (found.rows, found.cols) == pytest.approx((0.75, 0.25), abs=0.15)


def test_a_mask_that_lies_in_the_same_place_in_both_does_not_hold_the_shift_at_zero() -> None:
    land = ground(0)
    valid = gaussian_filter(np.random.default_rng(0).standard_normal((SIDE, SIDE)), 6) > -0.02
    holed = [np.where(valid, image, np.float32(9)) for image in (seen(land), seen(land, 2.0, -2.5))]

    found = registered(*holed, valid, valid)

    assert (found.rows, found.cols) == pytest.approx((2.0, -2.5), abs=0.15)


@pytest.mark.parametrize("kind", ["noise", "smooth noise", "other ground", "cloud without texture but noise"])
@pytest.mark.parametrize("seed", range(5))
def test_what_has_nothing_in_common_is_not_corrected(kind: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    land = seen(ground(seed))
    noise = draw.standard_normal(land.shape)
    scene = {
        "noise": noise,
        "smooth noise": gaussian_filter(noise, (0, 3, 3)),
        "other ground": seen(ground(seed + 100)),
        "cloud without texture but noise": 0.8 + np.linspace(0, 0.2, SIDE) + 0.01 * noise,
    }[kind]

    found = registered(land, scene.astype(np.float32))

    assert found.correction == (0.0, 0.0)
    assert found.reason is not None
    assert "the chips do not agree on a shift" in found.reason


def test_a_slope_over_the_whole_scene_does_not_pass_for_a_shift_of_zero() -> None:
    draw = np.random.default_rng(0)
    slope = np.linspace(0, 300, SIDE)
    images = [(slope + draw.standard_normal((2, SIDE, SIDE))).astype(np.float32) for _ in range(2)]

    assert registered(*images).reason is not None


def test_a_band_without_contrast_does_not_hide_one_that_has() -> None:
    land = ground(0)
    images = [image * np.array([[[1.0]], [[0.0]]], np.float32) for image in (seen(land), seen(land, 1, -1))]

    found = registered(*images)

    assert (found.rows, found.cols) == pytest.approx((1, -1), abs=0.1)


def test_a_number_that_is_missing_in_a_valid_pixel_counts_as_masked() -> None:
    land = ground(0)
    scene, valid = seen(land, 1, -1), np.ones((SIDE, SIDE), bool)
    valid[40:60, 30:70] = False
    holed = np.where(valid, scene, np.float32(np.nan))

    assert registered(seen(land), holed) == registered(seen(land), scene, None, valid)


def test_what_most_of_the_scene_does_not_show_is_not_measured() -> None:
    land = ground(0)
    clear = np.zeros((SIDE, SIDE), bool)
    clear[:70, :110] = True

    found = registered(seen(land), seen(land, 1, 1), None, clear)

    assert found.chips == 2
    assert found.reason == "2 of 9 chips show enough pixels that are valid in both, 3 are needed"
    assert found.correction == (0.0, 0.0)


def test_a_scene_without_any_contrast_is_not_measured() -> None:
    land = seen(ground(0))

    found = registered(land, np.full_like(land, 0.3))

    assert found.reason == "0 of 9 chips show enough pixels that are valid in both, 3 are needed"


def test_a_place_of_a_few_pixels_is_not_measured() -> None:
    land = seen(ground(0))[:, :63]

    found = registered(land, land)

    assert found.reason == "the location is smaller than 64 pixels: too small to measure a shift"


def test_a_shift_beyond_the_limit_is_told_and_not_corrected() -> None:
    land = ground(0)

    found = registered(seen(land), seen(land, 5, 0), max_shift=3)

    assert found.reason is not None
    assert "the scene lies 5.0 pixels off, more than the 3 that are corrected (alignment.max_shift)" in found.reason
    assert found.rows == pytest.approx(5, abs=0.1)
    assert found.correction == (0.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "limits", "corrected"),
    [(1.7, {}, 2.0), (1.7, {"max_shift": 0}, 0.0), (0.3, {}, 0.0), (-0.8, {}, -1.0), (-1.3, {}, -1.0)],
)
def test_whole_pixels_are_corrected_where_allowed(rows: float, limits: dict, corrected: float) -> None:
    land = ground(0)

    found = registered(seen(land), seen(land, rows, 0), **limits)

    assert found.reason is None
    assert found.rows == pytest.approx(rows, abs=0.1)
    assert found.correction == (corrected, 0.0)


@given(height=st.integers(1, 12_000), width=st.integers(1, 12_000))
def test_chips_lie_within_the_grid_and_reach_its_corners(height: int, width: int) -> None:
    windows = chip_windows(Grid(UTM, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), width, height))

    if min(height, width) < 64:
        assert windows == []
        return
    assert 9 <= len(windows) <= 64
    assert len({(window.row_off, window.col_off) for window in windows}) == len(windows)
    side = windows[0].height
    assert 32 <= side <= 256
    assert {(window.height, window.width) for window in windows} == {(side, side)}
    assert min(window.row_off for window in windows) == min(window.col_off for window in windows) == 0
    assert max(window.row_off for window in windows) == height - side
    assert max(window.col_off for window in windows) == width - side


@given(height=st.integers(40, 3000), width=st.integers(40, 3000))
def test_samples_cover_the_ground_of_the_chips_once_or_all_of_a_small_place(height: int, width: int) -> None:
    grid = Grid(UTM, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), width, height)
    covered, once = np.zeros((2, height, width), np.uint8)
    for window in chip_windows(grid):
        covered[window.toslices()] = 1
    if min(height, width) < 64:
        covered[:] = 1

    for window in sample_windows(grid):
        once[window.toslices()] += 1

    np.testing.assert_array_equal(once, covered)


def test_one_chip_is_in_memory_at_a_time() -> None:
    land = ground(0)
    given_out: list[weakref.ref] = []

    def watched() -> Iterator[ChipPair]:
        for pair in chips(seen(land), seen(land)):
            copied = ChipPair(pair.reference.copy(), pair.scene.copy(), pair.reference_valid, pair.scene_valid)
            given_out.append(weakref.ref(copied.scene))
            yield copied
            del pair, copied
            gc.collect()
            assert sum(one() is not None for one in given_out) <= 1

    assert register(watched(), AlignmentSettings()).chips == 9


def test_a_record_is_read_back_as_it_was() -> None:
    land = ground(0)
    for found in (
        registered(seen(land), seen(land, 0.5, 1)),
        registered(seen(land)[:, :40], seen(land)[:, :40]),
    ):
        back = Registration.from_record(json.loads(json.dumps(found.to_record())))

        assert back.to_record() == found.to_record()
        assert (back.correction, back.reason) == (found.correction, found.reason)

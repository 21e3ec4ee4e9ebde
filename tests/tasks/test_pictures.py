"""Pictures: what is masked is hatched, what is data is stretched, and the same array gives the same bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from tasks.pictures import (
    FLAG_COLOUR,
    HATCH,
    TileMark,
    default_rgb,
    enlarge,
    hatch,
    heat_image,
    heat_ramp,
    jpeg_data_uri,
    location_map,
    overlay,
    picture_side,
    png_data_uri,
    rgb_image,
    shrink,
    stretch_limits,
)

BANDS = ("B02", "B03", "B04", "B08")
RGB = ("B04", "B03", "B02")
LIMITS = dict.fromkeys(BANDS, (0.0, 0.5))


def decode(uri: str) -> np.ndarray:
    kind, text = uri.split(",", 1)
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def is_hatch(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., None, :] == HATCH).all(axis=-1).any(axis=-1)


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (BANDS, ("B04", "B03", "B02")),
        (("b02", "b03", "b04"), ("b04", "b03", "b02")),
        (("Blue", "GREEN", "red", "nir"), ("red", "GREEN", "Blue")),
        (("SR_B2", "SR_B3", "SR_B4", "SR_B5"), ("SR_B4", "SR_B3", "SR_B2")),
        (("VV", "VH", "angle", "dem"), ("VV", "VH", "angle")),
        (("VV", "VH"), ("VV", "VV", "VV")),
    ],
)
def test_shown_bands_are_chosen_by_name(bands, expected):
    assert default_rgb(bands) == expected


def test_no_band_cannot_be_shown():
    with pytest.raises(ValueError, match="no band"):
        default_rgb(())


def test_stretch_maps_limits_to_black_and_white():
    values = np.zeros((4, 1, 3), np.float32)
    values[2] = [0.0, 0.25, 0.9]
    values[1] = 0.5
    image = rgb_image(values, BANDS, RGB, LIMITS, np.ones((1, 3), bool))
    assert image[0].tolist() == [[0, 255, 0], [128, 255, 0], [255, 255, 0]]


def test_stretch_limits_ignore_masked_and_infinite_pixels():
    values = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(1, 100, 100)
    valid = np.ones((100, 100), bool)
    clean = stretch_limits(values, ("red",), valid)["red"]
    spoilt = values.copy()
    spoilt[0, :3] = 1e9
    valid[:3] = False
    spoilt[0, 3, :50] = np.nan
    spoilt[0, 3, 50:] = np.inf
    low, high = stretch_limits(spoilt, ("red",), valid)["red"]
    assert clean == pytest.approx((0.02, 0.98), abs=1e-3)
    assert (low, high) == pytest.approx((0.0592, 0.9808), abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0, np.nan])
def test_stretch_limits_of_a_flat_or_empty_band_are_in_order(value):
    values = np.full((1, 4, 4), value, np.float32)
    low, high = stretch_limits(values, ("red",), np.ones((4, 4), bool))["red"]
    assert low < high


def test_thinned_limits_are_close_to_all_pixels():
    values = np.random.default_rng(0).normal(size=(1, 300, 300)).astype(np.float32)
    valid = np.ones((300, 300), bool)
    everything = stretch_limits(values, ("red",), valid)["red"]
    thinned = stretch_limits(values, ("red",), valid, max_pixels=9_000)["red"]
    assert thinned == pytest.approx(everything, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_masked_pixels_never_look_like_data(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=12))
    floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
    values = data.draw(arrays(np.float32, (4, *shape), elements=floats))
    valid = data.draw(arrays(bool, shape))
    image = rgb_image(values, BANDS, RGB, LIMITS, valid)
    hidden = ~valid | ~np.isfinite(values[:3]).all(axis=0)
    np.testing.assert_array_equal(image[hidden], hatch(*shape)[hidden])

    heatmap = np.where(valid, values[0], np.nan)
    heat = heat_image(heatmap, 0.0, 1.0)
    np.testing.assert_array_equal(heat[np.isnan(heatmap)], hatch(*shape)[np.isnan(heatmap)])
    assert not is_hatch(heat[~np.isnan(heatmap)]).any()


def test_what_lies_under_the_mask_does_not_matter():
    rng = np.random.default_rng(1)
    values = rng.random((4, 20, 20), dtype=np.float32)
    valid = rng.random((20, 20)) > 0.5
    other = np.where(valid, values, 99)
    assert stretch_limits(values, BANDS, valid) == stretch_limits(other, BANDS, valid)
    np.testing.assert_array_equal(
        rgb_image(values, BANDS, RGB, LIMITS, valid), rgb_image(other, BANDS, RGB, LIMITS, valid)
    )


def test_heat_gets_brighter_with_the_number():
    brightness = heat_image(np.linspace(-1, 3, 64)[None], 0.0, 2.0)[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) >= -0.6).all()
    assert brightness[0] < 5
    assert brightness[-1] > 220


def test_a_heatmap_without_range_is_dark_instead_of_an_error():
    assert (heat_image(np.full((3, 3), 0.2), 0.2, 0.2) < 10).all()


def test_the_legend_runs_from_dark_to_bright():
    ramp = heat_ramp(5)
    assert len(ramp) == 5
    assert ramp[0] == "#000004"
    assert int(ramp[-1][1:], 16) > int(ramp[0][1:], 16)


def test_overlay_keeps_masked_pixels_and_the_ground_where_nothing_is_odd():
    image = np.full((2, 2, 3), (200, 100, 0), np.uint8)
    mixed = overlay(image, np.array([[np.nan, 0.0], [1.0, 0.5]]), 0.0, 1.0)
    grey = round(0.299 * 200 + 0.587 * 100)
    assert mixed[0, 0].tolist() == [200, 100, 0]
    assert mixed[0, 1].tolist() == [grey] * 3
    assert mixed[1, 0].astype(int).sum() > 3 * grey


def test_shrink_averages_valid_pixels_only():
    values = np.array([[1.0, 3.0, 9.0], [99.0, np.nan, 9.0], [5.0, 5.0, 99.0]])
    valid = np.array([[True, True, True], [False, True, True], [True, True, False]])
    small, usable = shrink(values, valid, 2)
    np.testing.assert_array_equal(small, [[2.0, 9.0], [5.0, np.nan]])
    np.testing.assert_array_equal(usable, [[True, True], [True, False]])


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=17), elements=st.floats(0, 1, width=32)),
       st.integers(1, 20))  # fmt: skip
def test_shrink_keeps_to_the_side_and_the_range(values, side):
    small, usable = shrink(values, np.ones(values.shape[1:], bool), side)
    assert max(small.shape[1:]) <= side or small.shape == values.shape
    assert small.shape[1:] == usable.shape
    assert usable.all()
    assert values.min() - 1e-6 <= small.min()
    assert small.max() <= values.max() + 1e-6


def test_location_map_outlines_flagged_and_hatches_unscored_tiles():
    ground = np.full((100, 200, 3), (10, 90, 40), np.uint8)
    tiles = [
        TileMark(0, 0, 64, 64, "flagged"),
        TileMark(0, 64, 64, 64, "normal"),
        TileMark(0, 128, 64, 64, "unscored"),
    ]
    picture = location_map(ground, (100, 200), tiles, side=400)
    assert picture.shape == (200, 400, 3)
    outline = (picture == FLAG_COLOUR).all(axis=-1)
    assert outline[:128, :128].any()
    assert not outline[:, 130:].any()
    assert (picture[20:108, 20:108] == (10, 90, 40)).all()
    assert (picture[:128, 130:254] == (10, 90, 40)).all()
    assert not (picture[:128, 258:382] == (10, 90, 40)).all(axis=-1).any()
    assert (ground == (10, 90, 40)).all()


def test_location_map_takes_a_quicklook_of_another_resolution():
    ground = np.zeros((50, 50, 3), np.uint8)
    picture = location_map(ground, (1000, 1000), [TileMark(500, 500, 500, 500, "flagged")], side=50)
    rows, columns = np.nonzero((picture == FLAG_COLOUR).all(axis=-1))
    assert picture.shape == (50, 50, 3)
    assert (rows.min(), columns.min()) == (26, 26)


@pytest.mark.parametrize("colours", [2, 16, 17, 256, 257, 4000])
def test_png_is_exact_and_repeatable(colours):
    rng = np.random.default_rng(colours)
    palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
    image = palette[rng.integers(0, colours, (64, 64))]
    uri = png_data_uri(image)
    np.testing.assert_array_equal(decode(uri), image)
    assert png_data_uri(image.copy()) == uri


def test_png_enlarges_without_smoothing():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(png_data_uri(image, scale=3))[1::3, 1::3], image)
    assert decode(png_data_uri(image, scale=3)).shape == (15, 12, 3)
    np.testing.assert_array_equal(enlarge(image, 1), image)


def test_a_heatmap_is_a_palette_picture_and_a_third_of_the_size():
    heatmap = np.random.default_rng(0).random((64, 64))
    heatmap[:10] = np.nan
    heat = png_data_uri(heat_image(heatmap, 0, 1))
    noise = png_data_uri(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert len(heat) < len(noise) / 2


def test_jpeg_is_close_and_repeatable():
    image = np.full((32, 32, 3), (120, 60, 30), np.uint8)
    assert jpeg_data_uri(image) == jpeg_data_uri(image)
    assert np.abs(decode(jpeg_data_uri(image)).astype(int) - image).max() < 4


def test_so_many_noisy_pictures_of_the_advised_side_fit_the_budget():
    side = picture_side(pictures=300, bytes_per_pixel=3, budget=9_000_000)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    assert 300 * len(png_data_uri(noise)) < 9_000_000 * 1.05
    assert picture_side(1, 3, 10**9) == 640


@pytest.mark.parametrize(
    ("rgb", "limits", "message"),
    [(("B04", "B03", "B99"), LIMITS, "B99.*report.rgb"), (RGB, {"B04": (0, 1)}, "B03.*limits")],
)
def test_a_band_that_cannot_be_shown_is_named(rgb, limits, message):
    with pytest.raises(ValueError, match=message):
        rgb_image(np.zeros((4, 2, 2), np.float32), BANDS, rgb, limits, np.ones((2, 2), bool))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit 4 bands"):
        stretch_limits(np.zeros((3, 2, 2), np.float32), BANDS, np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="must be alike"):
        overlay(np.zeros((2, 2, 3), np.uint8), np.zeros((3, 3)), 0, 1)
    with pytest.raises(ValueError, match="finite"):
        heat_image(np.zeros((2, 2)), 0.0, np.nan)

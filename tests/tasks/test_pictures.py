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
    HATCH,
    SMALLEST,
    default_false_colour,
    default_rgb,
    enlarge,
    fitted_data_uri,
    hatch,
    heat_image,
    heat_ramp,
    jpeg_data_uri,
    overlay,
    png_data_uri,
    rgb_image,
    shrink,
    shrink_by,
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


def test_strips_that_are_shrunk_alike_fit_together():
    values = np.random.default_rng(0).random((2, 22, 9)).astype(np.float32)
    valid = np.random.default_rng(1).random((22, 9)) > 0.3
    whole = shrink_by(4, values, valid)
    strips = [shrink_by(4, values[:, top : top + 8], valid[top : top + 8]) for top in (0, 8, 16)]
    for place in (0, 1):
        np.testing.assert_array_equal(np.concatenate([strip[place] for strip in strips], axis=-2), whole[place])


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


def smooth(side: int) -> np.ndarray:
    rows, columns = np.indices((side, side))
    waves = [np.sin(rows / 9 + phase) * np.cos(columns / 7 - phase) for phase in (0, 1, 2)]
    noise = np.random.default_rng(0).normal(0, 6, (side, side, 3))
    return (127 + 90 * np.stack(waves, axis=-1) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [32, 64, 256])
@pytest.mark.parametrize("most", [1_500, 10_000, 40_000])
@pytest.mark.parametrize("noisy", [True, False], ids=["noise", "ground"])
def test_a_picture_fits_its_share_of_the_page_and_is_always_the_same(side: int, most: int, noisy: bool):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image = noise if noisy else smooth(side)
    uri = fitted_data_uri(image, most)
    assert len(uri) <= most
    assert fitted_data_uri(image.copy(), most) == uri
    assert min(decode(uri).shape[:2]) >= SMALLEST


def test_a_picture_that_fits_as_it_is_keeps_every_pixel():
    image = smooth(64)
    np.testing.assert_array_equal(decode(fitted_data_uri(image, 40_000)), image)


def test_a_picture_is_made_coarser_before_it_is_made_smaller():
    image = smooth(64)
    coarse, small = decode(fitted_data_uri(image, 5_000)), decode(fitted_data_uri(image, 1_500))
    assert coarse.shape == image.shape
    assert np.abs(coarse.astype(int) - image).mean() < 8
    assert small.shape[0] < 64


def test_a_picture_of_nothing_can_be_made_no_smaller_than_it_is_seen():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert min(decode(fitted_data_uri(image, 10)).shape[:2]) == SMALLEST


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("B02", "B03", "B04", "B08"), ("B08", "B04", "B03")),
        (("B02", "B03", "B04", "B12", "B11"), ("B11", "B04", "B03")),
        (("blue", "green", "red", "nir", "swir16"), ("nir", "red", "green")),
        (("B02", "B03", "B04", "B05"), ("B05", "B04", "B03")),
        (("VV", "VH"), ("VH", "VV", "VV")),
        (("B02", "B03", "B04"), None),
        (("VV",), None),
    ],
)
def test_false_colour_shows_what_true_colour_does_not(bands, expected):
    assert default_false_colour(bands) == expected


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

"""Each kind changes the indices that the field knows it by, whatever the ground, the seed and the strength."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.bands import find_wavelengths
from imagery.inject import Injected, Light, inject
from imagery.spectra import KNOTS, ROOF, at
from tests.imagery.inject.grounds import BARE, TEN, index, tile

seeds = st.integers(0, 1000)
strengths = st.floats(0.1, 1.0)


def both(kind: str, seed: int, **arguments: Any) -> tuple[np.ndarray, Injected]:
    values, valid = tile(seed)
    return values, inject(values, valid, TEN, kind, seed, **arguments)


def rise(before: np.ndarray, found: Injected) -> np.ndarray:
    """(C, P) change of the pixels that were hit."""
    return (found.values - before)[:, found.mask]


@pytest.mark.parametrize(
    ("kind", "one", "other", "up"),
    [
        ("vegetation_loss", "nir", "red", False),  # NDVI
        ("vegetation_thinning", "nir", "red", False),
        ("burn", "nir", "swir22", False),  # NBR
        ("burn", "nir", "red", False),
        ("flood", "green", "nir", True),  # NDWI
        ("snow_remnant", "green", "swir16", True),  # NDSI
        ("bare_soil", "swir16", "nir", True),  # NDBI
    ],
)
@settings(max_examples=25)
@given(seed=seeds, strength=strengths)
def test_an_index_moves_the_way_it_is_known_to(
    kind: str, one: str, other: str, up: bool, seed: int, strength: float
) -> None:
    before, found = both(kind, seed, strength=strength)
    woods = found.mask & (index(before, "nir", "red") > 0.5)
    assert woods.any()

    moved = (index(found.values, one, other) - index(before, one, other))[woods]

    assert (moved > 0).all() if up else (moved < 0).all()


@settings(max_examples=25)
@given(seed=seeds, strength=strengths)
def test_lost_vegetation_takes_near_infrared_and_gives_red(seed: int, strength: float) -> None:
    before, found = both("vegetation_loss", seed, strength=strength)
    by_band = dict(zip(TEN, rise(before, found).mean(axis=1), strict=True))
    assert by_band["B08"] < 0 < by_band["B04"]


@settings(max_examples=25)
@given(seed=seeds, strength=strengths)
def test_haze_brightens_every_band_and_the_shorter_waves_more(seed: int, strength: float) -> None:
    before, found = both("haze", seed, strength=strength)
    by_band = rise(before, found)
    assert (by_band > 0).all()
    order = np.argsort([find_wavelengths(TEN)[band] for band in TEN])
    assert (np.diff(by_band.mean(axis=1)[order]) < 0).all()
    assert by_band.mean(axis=1)[0] > 5 * by_band.mean(axis=1)[-1]


def test_haze_is_smooth_and_keeps_the_texture() -> None:
    before, found = both("haze", 0, strength=1.0)
    added = np.where(found.mask, found.values[0] - before[0], np.nan)
    steps = np.abs(np.diff(added, axis=1))
    assert np.nanmax(steps) < 0.01
    assert np.nanmin(added) > 0.05


@settings(max_examples=25)
@given(seed=seeds, strength=strengths)
def test_a_slick_darkens_the_visible_and_shines_in_the_infrared(seed: int, strength: float) -> None:
    before, found = both("slick", seed, strength=strength)
    by_band = dict(zip(TEN, rise(before, found).mean(axis=1), strict=True))
    assert by_band["B02"] < 0 < by_band["B08"]
    assert (before[TEN.index("B08")][found.mask] < 0.1).all()  # on water only


@settings(max_examples=25)
@given(seed=seeds)
def test_roofs_are_brighter_than_what_they_stand_on(seed: int) -> None:
    before, found = both("bright_objects", seed)
    assert (rise(before, found)[:3] > 0).all()


def test_a_mixed_pixel_lies_between_what_it_was_and_what_came() -> None:
    values, valid = tile(0, lake=0.0, bare=0.0)
    weak, full = (
        inject(values, valid, TEN, "bare_soil", 0, strength=strength, light=Light.of(values, valid, TEN))
        for strength in (0.25, 1.0)
    )
    quarter = rise(values, weak)
    np.testing.assert_allclose(quarter, 0.25 * rise(values, full), atol=1e-5)


def test_the_relief_shows_in_what_lost_its_vegetation() -> None:
    values, valid = tile(0, lake=0.0)
    shade = np.where(np.arange(48) // 3 % 2, 1.15, 0.85).astype(np.float32)  # slopes in the sun and in the shade
    values *= shade

    found = inject(values, valid, TEN, "vegetation_loss", 0, strength=1.0)

    core = found.mask & (found.footprint.amount == 1)
    lit = found.values[6][core & (shade > 1)].mean() / found.values[6][core & (shade < 1)].mean()
    assert 1.1 < lit < 1.5


def test_bare_ground_of_the_scene_is_what_shows_where_vegetation_is_lost() -> None:
    values, valid = tile(0, lake=0.0)
    light = Light.of(values, valid, TEN)
    bare = np.interp([find_wavelengths(TEN)[band] for band in TEN], (490, 560, 665, 704, 740, 842, 1610, 2190), BARE)
    np.testing.assert_allclose(light.soil, bare, rtol=0.12)

    other = np.linspace(1.4, 0.8, len(TEN)).astype(np.float32)
    values[:, -5:] *= other[:, None, None]  # the same place on another soil
    np.testing.assert_allclose(Light.of(values, valid, TEN).soil / light.soil, other, rtol=0.12)


def test_a_river_full_of_silt_is_no_bare_ground() -> None:
    values, valid = tile(0, lake=0.3, bare=0.0)
    silt = np.interp([find_wavelengths(TEN)[band] for band in TEN], KNOTS, (0.10, 0.13, 0.14, 0.11, 0.012, 0.008))
    values[:, :14] = silt[:, None, None]

    soil = Light.of(values, valid, TEN).soil
    assert soil[8] > 0.2  # typical soil, for want of any that is bare here


def test_the_air_is_found_in_the_darkest_pixels() -> None:
    values, valid = tile(0)
    air = 0.08 * (490 / np.array([find_wavelengths(TEN)[band] for band in TEN])) ** 3.5

    clear = Light.of(values, valid, TEN).path
    under_air = Light.of(values + air[:, None, None].astype(np.float32), valid, TEN).path

    assert clear.max() < 0.02
    np.testing.assert_allclose(under_air - clear, air, atol=0.02)
    assert (np.diff(under_air) <= 0).all()


def test_what_is_injected_lies_under_the_air_of_the_scene() -> None:
    values, valid = tile(0)
    air = 0.06 * (490 / np.array([find_wavelengths(TEN)[band] for band in TEN], np.float32)) ** 3
    burns = [inject(image, valid, TEN, "burn", 0, strength=1.0) for image in (values, values + air[:, None, None])]
    core = burns[0].mask & burns[1].mask & (burns[0].footprint.amount == 1)
    lifted = (burns[1].values - burns[0].values)[:, core].mean(axis=1)
    np.testing.assert_allclose(lifted, air, atol=0.012)


def test_bands_of_water_vapour_see_nothing_of_the_ground() -> None:
    bands = ("B02", "B03", "B04", "B08", "B10")
    values, valid = tile(bands=bands)
    values[4, valid] = 0.002
    found = inject(values, valid, bands, "burn", 0)
    np.testing.assert_array_equal(found.values[4], values[4])


def test_a_spectrum_is_read_off_between_its_knots() -> None:
    np.testing.assert_array_equal(at(ROOF, KNOTS), np.float32(ROOF))
    assert at(ROOF, [443])[0] == np.float32(ROOF[0])
    assert ROOF[3] > at(ROOF, [1226])[0] > ROOF[4]


def test_stripes_are_columns_and_every_band_has_them() -> None:
    before, found = both("stripes", 0)
    struck = found.mask.any(axis=0)
    assert 0 < struck.sum() < 24
    assert (rise(before, found) > 0).all()
    np.testing.assert_allclose(np.ptp(rise(before, found), axis=1), 0, atol=1e-6)


def test_a_dropped_band_is_one_band_and_loses_what_was_asked() -> None:
    before, found = both("dropped_band", 0, strength=0.7)
    lost = (found.values != before)[:, found.mask].any(axis=1)
    assert lost.sum() == 1
    np.testing.assert_allclose(found.values[lost][:, found.mask], 0.3 * before[lost][:, found.mask], rtol=1e-5)


@settings(max_examples=30)
@given(seed=seeds, strength=strengths)
def test_misregistration_is_a_shift_by_whole_pixels(seed: int, strength: float) -> None:
    before, valid = tile(seed, lake=0.0)
    found = inject(before, valid, TEN, "misregistration", seed, strength=strength)

    inner = found.mask.copy()
    inner[:6], inner[-6:], inner[:, :6], inner[:, -6:] = False, False, False, False
    pixels = max(round(strength * 6), 1)
    agree = {
        (down, right): np.mean((found.values == np.roll(before, (down, right), (1, 2)))[:, inner].all(axis=0))
        for down in range(-6, 7)
        for right in range(-6, 7)
    }
    best = max(agree, key=lambda shift: agree[shift])
    assert agree[best] > 0.99
    assert np.hypot(*best) == pytest.approx(pixels, abs=0.75)

"""Bands are known by what each sensor calls them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from imagery.bands import CENTRES, NAMES, SYSTEMS, find_common, find_wavelengths


@pytest.mark.parametrize(
    ("bands", "found"),
    [
        (
            "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12",
            "blue=B02 green=B03 red=B04 nir=B08 swir16=B11 swir22=B12",
        ),
        ("B02 B03 B04 B8A B11", "blue=B02 green=B03 red=B04 nir=B8A swir16=B11"),
        (
            "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12",  # Sentinel-2 as Earth Engine names it
            "blue=B2 green=B3 red=B4 nir=B8A swir16=B11 swir22=B12",
        ),
        (
            "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11",  # Landsat, where B11 is thermal and B8 panchromatic
            "blue=B2 green=B3 red=B4 nir=B5 swir16=B6 swir22=B7",
        ),
        (
            "SR_B2 SR_B3 SR_B4 SR_B5 SR_B6 SR_B7 ST_B10",
            "blue=SR_B2 green=SR_B3 red=SR_B4 nir=SR_B5 swir16=SR_B6 swir22=SR_B7",
        ),
        ("red green blue nir08 swir16 swir22", "blue=blue green=green red=red nir=nir08 swir16=swir16 swir22=swir22"),
        ("B2 B3 B4 B8", "blue=B2 green=B3 red=B4"),  # near infrared, or Landsat's panchromatic: not guessed
        ("Red GREEN b04", "green=GREEN red=Red"),
        ("VV VH", ""),
        ("", ""),
    ],
)
def test_common_names_are_found_and_sensors_are_not_mixed(bands: str, found: str) -> None:
    expected = dict(pair.split("=") for pair in found.split())

    assert find_common(bands.split()) == expected
    assert find_common(reversed(bands.split())) == expected


@pytest.mark.parametrize(
    ("bands", "found"),
    [
        ("B02 B8A B12 angle", "B02=492 B8A=865 B12=2194"),
        ("b04 B08", "b04=665 B08=833"),
        ("B2 B3 B4 B5 B6 B7", "B2=482 B3=561 B4=655 B5=865 B6=1609 B7=2201"),  # Landsat: B5 is near infrared
        ("B2 B3 B4 B5 B8A B11", "B2=492 B3=560 B4=665 B5=704 B8A=865 B11=1612"),  # Sentinel-2: B5 is red edge
        ("B2 B3 B4 B8", "B2=492 B3=560 B4=665"),  # as for `find_common`
        ("SR_B4 ST_B10", "SR_B4=655"),
        ("red nir08 swir16", "red=665 nir08=865 swir16=1610"),
        ("VV", ""),
    ],
)
def test_wavelengths_are_those_of_the_sensor_that_the_names_are_of(bands: str, found: str) -> None:
    expected = {name: int(centre) for name, centre in (pair.split("=") for pair in found.split())}
    assert find_wavelengths(bands.split()) == expected


def test_every_band_with_a_common_name_has_a_wavelength() -> None:
    for system, centres in zip(SYSTEMS, CENTRES, strict=True):
        assert {name for names in system for name in names} <= set(centres)
        order = [[centres[name] for name in names] for names in system]
        assert len(order) == len(NAMES)
        assert all(max(one) < min(other) for one, other in pairwise(order))

"""Bands are known by what each sensor calls them."""

from __future__ import annotations

import pytest

from imagery.bands import find_common


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

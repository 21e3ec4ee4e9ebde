"""What bands are usually called, by sensor."""

from __future__ import annotations

from collections.abc import Iterable

# Sentinel-2, Landsat 8 and 9 (Collection 2), and the common names of STAC's eo extension.
COMMON_NAMES = {
    "blue": ("B02", "B2", "SR_B2", "blue"),
    "green": ("B03", "B3", "SR_B3", "green"),
    "red": ("B04", "B4", "SR_B4", "red"),
    "nir": ("B08", "B8A", "B5", "SR_B5", "nir", "nir08"),
    "swir16": ("B11", "B6", "SR_B6", "swir16"),
    "swir22": ("B12", "B7", "SR_B7", "swir22"),
}


def find_common(bands: Iterable[str]) -> dict[str, str]:
    """Which band is blue, green, red, near infrared and so on; those that no name tells are left out.

    Sentinel-2 writes B05 … B08 with a zero; without it they are Landsat's, which are other ones.

    Returns:
        Band names by common name.
    """
    by_name = {band.lower(): band for band in bands}
    found = {}
    for common, names in COMMON_NAMES.items():
        for name in names:
            if name.lower() in by_name:
                found[common] = by_name[name.lower()]
                break
    return found

"""What bands are usually called, by sensor."""

from __future__ import annotations

from collections.abc import Iterable

NAMES = ("blue", "green", "red", "nir", "swir16", "swir22")
# What a sensor calls them, in the order of `NAMES`. Sensors are never mixed: B5 is near infrared of Landsat's, and
# another band of Sentinel-2's.
SYSTEMS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("B02",), ("B03",), ("B04",), ("B08", "B8A"), ("B11",), ("B12",)),  # Sentinel-2
    (("B2",), ("B3",), ("B4",), ("B8A",), ("B11",), ("B12",)),  # Sentinel-2 without zeros; Landsat's B8 is another band
    (("B2",), ("B3",), ("B4",), ("B5",), ("B6",), ("B7",)),  # Landsat 8 and 9, Level 1
    (("SR_B2",), ("SR_B3",), ("SR_B4",), ("SR_B5",), ("SR_B6",), ("SR_B7",)),  # Landsat 8 and 9, Level 2
    (("blue",), ("green",), ("red",), ("nir", "nir08"), ("swir16",), ("swir22",)),  # STAC's common names
)


def find_common(bands: Iterable[str]) -> dict[str, str]:
    """Which band is blue, green, red, near infrared and so on; those that no name tells are left out.

    Args:
        bands: Their names; upper and lower case are the same.

    Returns:
        Band names by common name, of the sensor that knows most of them.

    Example:
        >>> find_common(["B04", "B08", "angle"])
        {'red': 'B04', 'nir': 'B08'}
    """
    ours = {band.lower(): band for band in bands}
    found = [
        {
            common: next(ours[name.lower()] for name in names if name.lower() in ours)
            for common, names in zip(NAMES, system, strict=True)
            if any(name.lower() in ours for name in names)
        }
        for system in SYSTEMS
    ]
    return max(found, key=len)  # the first of those that know as many

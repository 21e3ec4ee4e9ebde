"""What bands are usually called, and where in the spectrum they lie, by sensor."""

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

_SENTINEL2 = {
    "B01": 443, "B02": 492, "B03": 560, "B04": 665, "B05": 704, "B06": 740, "B07": 783, "B08": 833, "B8A": 865,
    "B09": 945, "B10": 1374, "B11": 1612, "B12": 2194,
}  # fmt: skip
_LANDSAT = {"B1": 443, "B2": 482, "B3": 561, "B4": 655, "B5": 865, "B6": 1609, "B7": 2201, "B9": 1373}
# Centres of the bands in nanometres, in the order of `SYSTEMS`: the mission's user guide for Sentinel-2, USGS for the
# Operational Land Imager, the STAC extension `eo` for common names. Left out are thermal bands, which see no sunlight,
# and B8 where sensors are told by number alone: it is panchromatic of Landsat's.
CENTRES: tuple[dict[str, int], ...] = (
    _SENTINEL2,
    {name.replace("B0", "B"): centre for name, centre in _SENTINEL2.items() if name != "B08"},
    _LANDSAT,
    {f"SR_{name}": centre for name, centre in _LANDSAT.items() if name != "B9"},
    {
        "coastal": 440, "blue": 490, "green": 560, "red": 665, "rededge": 720, "rededge071": 704, "rededge075": 740,
        "rededge078": 783, "nir": 833, "nir08": 865, "nir09": 945, "cirrus": 1375, "swir16": 1610, "swir22": 2200,
    },
)  # fmt: skip


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
    return max(_common(bands), key=len)  # the first of those that know as many


def find_wavelengths(bands: Iterable[str]) -> dict[str, int]:
    """Where in the spectrum bands lie, by the sensor that `find_common` takes them for.

    Args:
        bands: Their names; upper and lower case are the same.

    Returns:
        Centre wavelength in nanometres by band name; those that no name tells are left out.

    Example:
        >>> find_wavelengths(["B04", "B08", "angle"])
        {'B04': 665, 'B08': 833}
    """
    names = list(bands)
    found = _common(names)
    centres = {name.lower(): centre for name, centre in CENTRES[found.index(max(found, key=len))].items()}
    return {name: centres[name.lower()] for name in names if name.lower() in centres}


def _common(bands: Iterable[str]) -> list[dict[str, str]]:
    """Band names by common name, as each of `SYSTEMS` has it."""
    ours = {band.lower(): band for band in bands}
    return [
        {
            common: next(ours[name.lower()] for name in names if name.lower() in ours)
            for common, names in zip(NAMES, system, strict=True)
            if any(name.lower() in ours for name in names)
        }
        for system in SYSTEMS
    ]

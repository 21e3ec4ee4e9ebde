"""Whether rasters can be read here: the library, its formats, and its database of projections."""

from __future__ import annotations

import rasterio
from rasterio.warp import transform

from imagery.errors import ImageryError

BUCHAREST = (26.1, 44.4)  # degrees east, north
METRES = (428_330.0, 4_916_695.0)  # the same in UTM zone 35N
FORMATS = {"GTiff": "GeoTIFF", "COG": "cloud-optimised GeoTIFF", "JP2OpenJPEG": "JPEG 2000"}


def rasterio_words() -> str:
    """Versions, after a projection was tried and the formats were looked for.

    Raises:
        ImageryError: Coordinates come out wrong, or a format is missing.
        rasterio.errors.CRSError: There is no database of projections, or another version's.
    """
    (east,), (north,) = transform("EPSG:4326", "EPSG:32635", [BUCHAREST[0]], [BUCHAREST[1]])
    if abs(east - METRES[0]) > 1 or abs(north - METRES[1]) > 1:
        raise ImageryError(f"PROJ puts {BUCHAREST} at {east:.0f}, {north:.0f} of EPSG:32635, which is wrong")
    with rasterio.Env() as environment:
        missing = [words for name, words in FORMATS.items() if name not in environment.drivers()]
    if missing:
        raise ImageryError(f"GDAL {rasterio.__gdal_version__} does not know {', '.join(missing)}")
    return f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}; projections and formats are there"

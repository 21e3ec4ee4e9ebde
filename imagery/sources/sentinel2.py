"""Sentinel-2 products: SAFE folders and zips, levels 1C and 2A, of any age.

What the numbers mean is read from the metadata: reflectance = (DN + offset) / quantification, where offsets exist from
processing baseline 04.00 on, whatever the date of acquisition (Sentinel-2 Products Specification Document, S2-PDGS-TAS-
DI-PSD, sections on RADIO_ADD_OFFSET and BOA_ADD_OFFSET). Images are found by the names in the metadata, so that the
older naming of products needs nothing of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from xml.etree.ElementTree import Element

from shapely import MultiPolygon, Polygon

from configs.schema import Area, SourceSettings
from imagery.errors import ImageryError
from imagery.sources.areas import footprint_of
from imagery.sources.metadata_xml import parse_xml, text, texts
from imagery.sources.products import Family, Product, day_in, find_products, images_below
from imagery.sources.scene import Listing, SceneFile
from imagery.sources.storage import Storage, read_whole

# In the order of band_id in the metadata, with the pixel size in metres that the instrument has.
SPECTRAL = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
NATIVE = SPECTRAL | {"SCL": 20, "AOT": 10, "WVP": 10}
IMAGES = ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A")
REFLECTANCES = ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
OTHERS = {"AOT": "AOT_QUANTIFICATION_VALUE", "WVP": "WVP_QUANTIFICATION_VALUE"}
FIRST_WITH_OFFSETS = "04.00"
OWN_PROCESSING = "99"  # what users have processed themselves says 99.99, whatever the version
TILE = re.compile(r"(?:^|_)T(\d{2}[C-X][A-Z]{2})(?:_|$)")
BAND = re.compile(r"_(B\d\d|B8A|SCL|AOT|WVP)(?:_L2A_.*?)?(?:_(\d\d)m)?$")
STRIP = re.compile(r"_S(\d{8}T\d{6})_")
COMPACT = re.compile(r"S2[A-Z]_MSIL\w\w_(\d{8})T\d{6}_")


def find_sentinel2(source: SourceSettings, locations: Mapping[str, Area]) -> Listing:
    """List the Sentinel-2 products of a source, oldest first.

    Without `locations` a scene's location is its MGRS tile, such as 29UNU. A scene's time is the start of its data
    take, to the second. Each band is given at its native resolution where the product has it, else at its finest.

    Raises:
        ImageryError: The source cannot be listed, or its settings cannot be followed.
    """
    metadata = ("**/MTD_MSIL1C.xml", "**/MTD_MSIL2A.xml", "**/S2?_*_MTD_SAFL??_*.xml")
    return find_products(source, locations, Family("Sentinel-2", metadata, "**/*.zip", read_product, _day))


def read_product(storage: Storage, name: str) -> list[Product]:
    """What the metadata of a product says: one acquisition, or in the older format one for each tile.

    Raises:
        ImageryError: The metadata is damaged, or none of its images is there.
        OSError: The metadata cannot be read.
    """
    root = parse_xml(read_whole(storage, name))
    images = images_below(storage, name, "**/*.jp2")
    by_tile: dict[str, list[str]] = defaultdict(list)
    strips: dict[str, str] = {}
    for granule in (element for element in root.iter() if element.tag in ("Granule", "Granules")):
        for image in texts(granule, *IMAGES):
            tile = TILE.search(posixpath.basename(image))
            if tile and f"{posixpath.basename(image)}.jp2" in images:
                by_tile[tile[1]].append(images[f"{posixpath.basename(image)}.jp2"])
                strip = STRIP.search(granule.get("datastripIdentifier", ""))
                strips[tile[1]] = strip[1] if strip else ""
    if not by_tile:
        raise ImageryError("none of the images that its metadata names is there: complete the product")
    acquired = _time(text(root, "PRODUCT_START_TIME", "DATATAKE_SENSING_START"))
    level = text(root, "PROCESSING_LEVEL").removeprefix("Level-").rstrip("p")
    version = (text(root, "PROCESSING_BASELINE"), text(root, "GENERATION_TIME"))
    numbers = _numbers(root, version[0])
    return [
        Product(
            storage.address(name),
            f"level {level}",
            tile,
            acquired,
            f"{acquired.isoformat()} {strips[tile]}",
            version,
            _footprint(root),
            _files(storage, paths, numbers),
        )
        for tile, paths in sorted(by_tile.items())
    ]


def _files(storage: Storage, paths: list[str], numbers: dict[str, tuple[float, float]]) -> tuple[SceneFile, ...]:
    """The image of each band that comes closest to its native resolution."""
    best: dict[str, tuple[tuple[bool, int], str]] = {}
    for path in sorted(paths):
        found = BAND.search(posixpath.splitext(posixpath.basename(path))[0])
        if found is None or found[1] not in NATIVE or (found[1] in OTHERS and found[1] not in numbers):
            continue
        band, metres = found[1], int(found[2] or NATIVE[found[1]])
        if band in SPECTRAL and band not in numbers:
            raise ImageryError(f"its metadata tells offsets, but none for band {band}")
        order = (metres != NATIVE[band], metres)
        if band not in best or order < best[band][0]:
            best[band] = (order, path)
    files = []
    for band, (_, path) in sorted(best.items()):
        scale, offset = numbers.get(band, (None, None))
        files.append(SceneFile(band, storage.address(path), scale, offset, nodata=0, stamp=storage.stamp(path)))
    return tuple(files)


def _numbers(root: Element, baseline: str) -> dict[str, tuple[float, float]]:
    """Scale and offset of each band that has any: stored number × scale + offset = physical value."""
    quantification = _positive(text(root, *REFLECTANCES), "QUANTIFICATION_VALUE")
    offsets = {
        int(element.get("band_id", -1)): _number(element.text, element.tag)
        for element in root.iter()
        if element.tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")
    }
    if not offsets and FIRST_WITH_OFFSETS <= baseline < OWN_PROCESSING:
        raise ImageryError(f"its processing baseline {baseline} has offsets, but its metadata tells none")
    numbers = {
        band: (1 / quantification, offsets.get(index, 0.0) / quantification)
        for index, band in enumerate(SPECTRAL)
        if not offsets or index in offsets
    }
    for band, name in OTHERS.items():
        for found in texts(root, name, f"L2A_{name}"):
            numbers[band] = (1 / _positive(found, name), 0.0)
    return numbers


def _footprint(root: Element) -> Polygon | MultiPolygon | None:
    for found in texts(root, "EXT_POS_LIST"):
        values = [_number(value, "EXT_POS_LIST") for value in found.split()]
        return footprint_of(list(zip(values[1::2], values[::2], strict=False)))
    return None


def _time(told: str) -> datetime:
    try:
        return datetime.fromisoformat(told).replace(microsecond=0, tzinfo=UTC)
    except ValueError as error:
        raise ImageryError(f"its metadata gives {told!r} as the time of acquisition, which is none") from error


def _number(told: str | None, name: str) -> float:
    try:
        return float(told or "")
    except ValueError as error:
        raise ImageryError(f"its metadata gives {told!r} as {name}, which is no number") from error


def _positive(told: str, name: str) -> float:
    value = _number(told, name)
    if not 0 < value < float("inf"):
        raise ImageryError(f"its metadata gives {told} as {name}, which must be positive")
    return value


def _day(name: str) -> date | None:
    return day_in(name, COMPACT)

"""Landsat Collection 2 products: folders and tar files, level 1 and level 2.

What the numbers mean is read from the metadata file (MTL): for level 2 surface reflectance and surface temperature in
kelvin, for level 1 top-of-atmosphere reflectance, divided by the sine of the sun's elevation, and radiance in W/(m² sr
µm) of thermal bands (Landsat 8-9 Collection 2 Level 1 and Level 2 Data Format Control Books, LSDS-1822, LSDS-1328).
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime

from shapely import MultiPolygon, Polygon

from configs.schema import Area, SourceSettings
from imagery.errors import ImageryError
from imagery.sources.areas import footprint_of
from imagery.sources.products import Family, Product, day_in, find_products, images_below
from imagery.sources.scene import Listing, SceneFile
from imagery.sources.storage import Storage, read_whole

Groups = dict[str, dict[str, str]]
ENTRY = re.compile(r"\s*(?P<key>\w+)\s*=\s*(?P<value>.*?)\s*$")
COMPACT = re.compile(r"L[A-Z]\d\d_L\w{3}_\d{6}_(\d{8})_\d{8}_02_")
QUALITY = {
    "FILE_NAME_QUALITY_L1_PIXEL": "QA_PIXEL",
    "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION": "QA_RADSAT",
    "FILE_NAME_QUALITY_L2_AEROSOL": "SR_QA_AEROSOL",
    "FILE_NAME_QUALITY_L2_SURFACE_TEMPERATURE": "ST_QA",
}
CORNERS = ("UL", "UR", "LR", "LL")


def find_landsat(source: SourceSettings, locations: Mapping[str, Area]) -> Listing:
    """List the Landsat products of a source, oldest first.

    Without `locations` a scene's location is path and row, such as 198024. Bands are named as in the metadata: B2,
    ST_B10, QA_PIXEL.

    Raises:
        ImageryError: The source cannot be listed, or its settings cannot be followed.
    """
    family = Family("Landsat", ("**/*_MTL.txt", "**/*_MTL.json"), "**/*.tar", read_product, _day)
    return find_products(source, locations, family)


def read_product(storage: Storage, name: str) -> list[Product]:
    """What the metadata of a product says; nothing of one that is described in a text file as well.

    Raises:
        ImageryError: The metadata is damaged, of another collection, or none of its images is there.
        OSError: The metadata cannot be read.
    """
    beside = images_below(storage, name, "*")
    stem, ending = posixpath.splitext(posixpath.basename(name))
    if ending == ".json" and f"{stem}.txt" in beside:
        return []
    content = read_whole(storage, name)
    groups = parse_json(content) if ending == ".json" else parse_odl(content)
    contents, attributes = _group(groups, "PRODUCT_CONTENTS"), _group(groups, "IMAGE_ATTRIBUTES")
    if _number(contents, "COLLECTION_NUMBER") != 2:
        raise ImageryError(f"it is of Landsat collection {contents['COLLECTION_NUMBER']}: only collection 2 is read")
    level = _text(contents, "PROCESSING_LEVEL")[:2]
    sensor = "OLI" if "OLI" in _text(attributes, "SENSOR_ID") else _text(attributes, "SENSOR_ID").partition("_")[0]
    day, time = _text(attributes, "DATE_ACQUIRED"), _text(attributes, "SCENE_CENTER_TIME")
    processed = _text(_group(groups, f"LEVEL{level[1:]}_PROCESSING_RECORD"), "DATE_PRODUCT_GENERATED")
    return [
        Product(
            name=storage.address(name),
            # ETM+ and TM have other wavelengths under the same numbers than OLI.
            kind=f"level {level[1:]} of {'TM and ETM' if sensor in ('TM', 'ETM') else sensor}",
            place=f"{_number(attributes, 'WRS_PATH'):03.0f}{_number(attributes, 'WRS_ROW'):03.0f}",
            acquired=_time(day, time),
            acquisition=f"{day} {_text(attributes, 'SPACECRAFT_ID')}",
            version=(processed,),
            footprint=_footprint(_group(groups, "PROJECTION_ATTRIBUTES")),
            files=_files(storage, beside, groups, level),
        )
    ]


def parse_odl(content: bytes) -> Groups:
    """The entries of an MTL text file, by group: the same names come again in other groups, for other levels."""
    groups: Groups = {}
    inside: list[str] = []
    for line in content.decode("utf-8", "replace").splitlines():
        entry = ENTRY.fullmatch(line)
        if entry is None:
            continue
        key, value = entry["key"], entry["value"].strip('"')
        if key == "GROUP":
            inside.append(value)
        elif key == "END_GROUP":
            inside = inside[:-1]
        elif inside:
            groups.setdefault(inside[-1], {})[key] = value
    return groups


def parse_json(content: bytes) -> Groups:
    """The entries of an MTL JSON file, by group.

    Raises:
        ImageryError: It is damaged.
    """
    try:
        root = json.loads(content)["LANDSAT_METADATA_FILE"]
        return {group: {key: str(value) for key, value in entries.items()} for group, entries in root.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageryError(f"its metadata is no MTL file that can be read: {error}") from error


def _files(storage: Storage, beside: dict[str, str], groups: Groups, level: str) -> tuple[SceneFile, ...]:
    """The bands and quality bands that are there."""
    files = []
    for key, told in sorted(_group(groups, "PRODUCT_CONTENTS").items()):
        image = beside.get(told)
        if image is None or not told.lower().endswith((".tif", ".tiff")):
            continue
        band = key.removeprefix("FILE_NAME_BAND_")
        if band != key:
            scale, offset = _numbers(groups, level, band)
            name = band if band.startswith("ST_") else f"B{band}"
            files.append(SceneFile(name, storage.address(image), scale, offset, 0, stamp=storage.stamp(image)))
        elif key in QUALITY:
            files.append(SceneFile(QUALITY[key], storage.address(image), stamp=storage.stamp(image)))
    if not files:
        raise ImageryError("none of the images that its metadata names is there: complete the product")
    return tuple(files)


def _numbers(groups: Groups, level: str, band: str) -> tuple[float, float]:
    """Scale and offset of a band: stored number × scale + offset = physical value."""
    if level == "L2":
        kind = "TEMPERATURE" if band.startswith("ST_") else "REFLECTANCE"
        group = _group(groups, f"LEVEL2_SURFACE_{kind}_PARAMETERS")
        return _number(group, f"{kind}_MULT_BAND_{band}"), _number(group, f"{kind}_ADD_BAND_{band}")
    group = _group(groups, "LEVEL1_RADIOMETRIC_RESCALING")
    if f"REFLECTANCE_MULT_BAND_{band}" not in group:
        return _number(group, f"RADIANCE_MULT_BAND_{band}"), _number(group, f"RADIANCE_ADD_BAND_{band}")
    elevation = _number(_group(groups, "IMAGE_ATTRIBUTES"), "SUN_ELEVATION")
    if not 0 < elevation <= 90:
        raise ImageryError(f"the sun stood at {elevation:g}° when it was taken, so it has no reflectance")
    sine = math.sin(math.radians(elevation))
    scale, offset = (_number(group, f"REFLECTANCE_{what}_BAND_{band}") for what in ("MULT", "ADD"))
    return scale / sine, offset / sine


def _footprint(projection: dict[str, str]) -> Polygon | MultiPolygon:
    return footprint_of(
        [
            (_number(projection, f"CORNER_{at}_LON_PRODUCT"), _number(projection, f"CORNER_{at}_LAT_PRODUCT"))
            for at in CORNERS
        ]
    )


def _time(day: str, time: str) -> datetime:
    try:
        return datetime.fromisoformat(f"{day}T{time.partition('.')[0].removesuffix('Z')}").replace(tzinfo=UTC)
    except ValueError as error:
        raise ImageryError(f"its metadata gives {day} {time} as the time of acquisition, which is none") from error


def _group(groups: Groups, name: str) -> dict[str, str]:
    if name not in groups:
        raise ImageryError(f"its metadata has no group {name}")
    return groups[name]


def _text(group: dict[str, str], name: str) -> str:
    if name not in group:
        raise ImageryError(f"its metadata has no {name}")
    return group[name]


def _number(group: dict[str, str], name: str) -> float:
    try:
        value = float(_text(group, name))
    except ValueError as error:
        if isinstance(error, ImageryError):
            raise
        raise ImageryError(f"its metadata gives {group[name]!r} as {name}, which is no number") from error
    if not math.isfinite(value):
        raise ImageryError(f"its metadata gives {group[name]!r} as {name}, which is no number")
    return value


def _day(name: str) -> date | None:
    return day_in(name, COMPACT)

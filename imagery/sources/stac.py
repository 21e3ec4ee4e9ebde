"""Scenes from STAC items: which asset holds which band, and what its numbers mean.

Scale and offset are those of the raster extension (`raster:bands`, or `raster:scale` and `raster:offset` in STAC 1.1).
Of Sentinel-2, the pixels of some catalogs have their offset applied already, and the metadata gives it nevertheless:
`earthsearch:boa_offset_applied` tells, and before processing baseline 04.00 there was none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shapely import MultiPolygon, Polygon

from configs.schema import Area, SourceSettings
from imagery.errors import ImageryError
from imagery.sources.areas import footprint_of_geojson
from imagery.sources.products import Product, product_scenes
from imagery.sources.scene import Listing, SceneFile
from imagery.sources.sentinel2 import FIRST_WITH_OFFSETS, OWN_PROCESSING, STRIP
from imagery.sources.stac_catalogs import Catalogs, Item, Skipped
from imagery.sources.storage import RASTERS

Asset = dict[str, Any]


def find_stac(source: SourceSettings, locations: Mapping[str, Area]) -> Listing:
    """List the items of a STAC API or catalog as scenes, oldest first: one for each location that an item touches.

    Raises:
        ImageryError: The catalog cannot be read, its items need a location that nothing tells, or the settings give
            numbers that the items give as well.
    """
    if not locations and source.location is None:
        raise ImageryError("items of a STAC catalog name no location: set locations, or source.location for all")
    catalogs = Catalogs(source)
    skipped: Skipped = []
    products = []
    for item, base in catalogs.items(locations, skipped):
        try:
            if _is_wanted(item, source):
                products.append(_product(item, base, source, catalogs))
        except ImageryError as error:
            name = item.get("id") if isinstance(item, dict) else None
            skipped.append((str(name or base).partition("?")[0], str(error)))
    _refuse_double(products, source)
    return product_scenes(products, source, locations, skipped)


def _is_wanted(item: Item, source: SourceSettings) -> bool:
    """Whether an item is of a collection, of a time and of a clearness that was asked for."""
    cloud = _properties(item).get("eo:cloud_cover")
    if source.stac.collections and item.get("collection") not in source.stac.collections:
        return False
    if source.since and _acquired(item).date() < source.since:
        return False
    return not isinstance(cloud, int | float) or cloud <= source.stac.max_cloud


def _product(item: Item, base: str, source: SourceSettings, catalogs: Catalogs) -> Product:
    properties = _properties(item)
    acquired = _acquired(item)
    baseline = _baseline(properties)
    place = properties.get("grid:code") or properties.get("s2:mgrs_tile")
    strip = STRIP.search(str(properties.get("s2:datastrip_id", "")))
    known = baseline and place and strip
    own = f"{item.get('collection')} {item.get('id')}"
    return Product(
        name=str(item.get("id")),
        kind="",
        place=source.location or "",
        acquired=acquired,
        acquisition=f"{item.get('collection')} {acquired.isoformat()} {place} {strip[1]}" if known and strip else own,
        version=(str(baseline), str(properties.get("s2:generation_time", ""))),
        footprint=_footprint(item),
        files=_files(item, base, source, catalogs),
    )


def _files(item: Item, base: str, source: SourceSettings, catalogs: Catalogs) -> tuple[SceneFile, ...]:
    """The band of each name in the settings, and every other asset under its own key."""
    assets = item.get("assets")
    if not isinstance(assets, dict):
        raise ImageryError("it has no assets")
    usable = {key: asset for key, asset in assets.items() if isinstance(asset, dict) and _is_raster(asset)}
    files = []
    for band in dict.fromkeys([*source.bands, *source.names]):
        found = _find(source.names.get(band, band), usable)
        if found is not None:
            files.append(_file(band, *found, item, base, source, catalogs))
    taken = {*source.bands, *source.names, *source.names.values()}
    for key in sorted(set(usable) - taken):
        if len(_bands(usable[key])) == 1:
            try:
                files.append(_file(key, key, 0, usable, item, base, source, catalogs))
            except ImageryError:
                continue  # nobody has asked for it
    return tuple(files)


def _find(name: str, assets: dict[str, Asset]) -> tuple[str, int, dict[str, Asset]] | None:
    """(key, index of the band, assets) of what is called so: an asset, else a band's name, else its common name."""
    if name in assets and len(_bands(assets[name])) == 1:
        return name, 0, assets
    for field in (("name",), ("eo:common_name", "common_name")):
        matches = [
            (key, index)
            for key, asset in sorted(assets.items())
            for index, band in enumerate(_bands(asset))
            if name in (band.get(one) for one in field)
        ]
        alone = [match for match in matches if len(_bands(assets[match[0]])) == 1] or matches
        if len(alone) > 1:
            told = ", ".join(key for key, _ in alone)
            raise ImageryError(f"several assets have a band {name}: {told}. Name the asset in source.names")
        if alone:
            return *alone[0], assets
    return None


def _file(
    band: str,
    key: str,
    index: int,
    assets: dict[str, Asset],
    item: Item,
    base: str,
    source: SourceSettings,
    catalogs: Catalogs,
) -> SceneFile:
    asset, told = assets[key], _bands(assets[key])[index]
    path = catalogs.raster(str(asset["href"]), base)
    scale, offset = _numbers(told, _properties(item), band, source)
    remote = path.startswith(("/vsicurl/", "/vsis3/"))
    stamp = _stamp(asset, _properties(item)) if remote else None
    return SceneFile(band, path, scale, offset, _nodata(told), index + 1, stamp)


def _numbers(
    told: dict[str, Any], properties: dict[str, Any], band: str, source: SourceSettings
) -> tuple[float | None, float | None]:
    """Scale and offset that an item tells of a band; None where it tells nothing."""
    scale = _number(told.get("raster:scale", told.get("scale")), "scale")
    offset = _number(told.get("raster:offset", told.get("offset")), "offset")
    baseline = _baseline(properties)
    if properties.get("earthsearch:boa_offset_applied") is True or (baseline and baseline < FIRST_WITH_OFFSETS):
        offset = None if scale is None else 0.0
    elif offset is None and source.offset is None and baseline and baseline < OWN_PROCESSING and band in source.bands:
        raise ImageryError(
            f"its processing baseline {baseline} has offsets, and nothing tells that of band {band}: set source.scale "
            "and source.offset if all items have the same"
        )
    if scale is None and offset is None:
        return None, None
    return (1.0 if scale is None else scale), (0.0 if offset is None else offset)


def _refuse_double(products: list[Product], source: SourceSettings) -> None:
    """Settings that would replace what the items tell are a mistake, and most likely an offset applied twice."""
    if source.scale is None and source.offset is None:
        return
    for product in products:
        for file in product.files:
            if file.band in source.bands and (file.scale, file.offset) not in ((None, None), (1.0, 0.0)):
                raise ImageryError(
                    f"{product.name} says itself what the numbers of {file.band} mean (scale {file.scale:g}, offset "
                    f"{file.offset:g}), and source.scale or source.offset is set as well: leave both null"
                )


def _bands(asset: Asset) -> list[dict[str, Any]]:
    """What an asset says of each of its bands, in any version of STAC; one without a word when it says nothing."""
    shared = {name: asset[name] for name in ("raster:scale", "raster:offset", "nodata") if name in asset}
    lists = [asset.get(name) for name in ("eo:bands", "raster:bands", "bands")]
    told = [entries for entries in lists if isinstance(entries, list)]
    count = max([1, *map(len, told)])
    return [
        shared | {name: value for entries in told if index < len(entries) for name, value in _plain(entries[index])}
        for index in range(count)
    ]


def _plain(entry: Any) -> list[tuple[str, Any]]:
    return list(entry.items()) if isinstance(entry, dict) else []


def _is_raster(asset: Asset) -> bool:
    href = asset.get("href")
    return isinstance(href, str) and href.partition("?")[0].lower().endswith(RASTERS)


def _nodata(told: dict[str, Any]) -> float | None:
    """A stored number; what is written as nan is known without it."""
    value = told.get("nodata")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ImageryError(f"it gives {value!r} as {name}, which is no number")
    return float(value)


def _stamp(asset: Asset, properties: dict[str, Any]) -> str:
    """What changes with the file: a checksum, the time of the last change, or what the item says of it."""
    for told in (asset.get("file:checksum"), asset.get("updated"), properties.get("updated")):
        if told:
            return str(told)
    shown = asset | {"href": str(asset["href"]).partition("?")[0]}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def _properties(item: Item) -> dict[str, Any]:
    properties = item.get("properties") if isinstance(item, dict) else None
    if not isinstance(properties, dict):
        raise ImageryError("it is no STAC item: it has no properties")
    return properties


def _acquired(item: Item) -> datetime:
    """To the second, UTC."""
    properties = _properties(item)
    told = properties.get("datetime") or properties.get("start_datetime")
    try:
        moment = datetime.fromisoformat(str(told))
    except ValueError as error:
        raise ImageryError(f"it gives {told!r} as its time, which is none") from error
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.replace(microsecond=0)


def _baseline(properties: dict[str, Any]) -> str | None:
    told = properties.get("s2:processing_baseline")
    return None if told is None else str(told)


def _footprint(item: Item) -> Polygon | MultiPolygon | None:
    if item.get("geometry") is not None:
        return footprint_of_geojson(item["geometry"])
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) not in (4, 6) or not all(isinstance(one, int | float) for one in box):
        return None
    west, south, east, north = (*box[:2], *box[len(box) // 2 : len(box) // 2 + 2])
    ring = [(west, south), (east, south), (east, north), (west, north)]
    return footprint_of_geojson({"type": "Polygon", "coordinates": [ring]})

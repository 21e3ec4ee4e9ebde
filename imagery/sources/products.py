"""Products as agencies deliver them: found by their metadata, one for each acquisition, given to their locations."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime

from shapely import MultiPolygon, Polygon

from configs.schema import Area, SourceSettings
from imagery.errors import ImageryError
from imagery.sources.archives import Archive
from imagery.sources.areas import touched
from imagery.sources.scene import Listing, Scene, SceneFile, renamed
from imagery.sources.storage import Storage, glob_literal, open_storage

AT_ONCE = 8  # metadata files read side by side: elsewhere each takes a round trip


@dataclass(frozen=True)
class Product:
    """What a product's metadata says.

    Attributes:
        name: Where its metadata is, for messages.
        kind: What its numbers are, e.g. "L2A": only scenes of one kind can be compared.
        place: What the agency calls the place.
        acquired: Time of acquisition, UTC.
        acquisition: What tells it from other acquisitions of the place; the same for the same one processed again.
        version: What is greater for what was processed later, and can be shown.
        footprint: Longitudes and latitudes; None when they are not told.
        files: Its rasters.
    """

    name: str
    kind: str
    place: str
    acquired: datetime
    acquisition: str
    version: tuple[str, ...]
    footprint: Polygon | MultiPolygon | None
    files: tuple[SceneFile, ...]


@dataclass(frozen=True)
class Family:
    """How the products of an agency are found.

    Attributes:
        agency: For messages.
        metadata: Glob patterns of the metadata of a product.
        archives: Glob pattern of products in archives.
        read: Reads the products that a file of metadata describes. Raises `ImageryError` for what is damaged.
        day: The day of acquisition, where a name tells it: spares reading the metadata of what is too old.
    """

    agency: str
    metadata: tuple[str, ...]
    archives: str
    read: Callable[[Storage, str], list[Product]]
    day: Callable[[str], date | None]


def day_in(name: str, expression: re.Pattern[str]) -> date | None:
    """The day of acquisition in the name of a product, by the first group of an expression; None without one."""
    found = expression.search(name)
    try:
        return datetime.strptime(found[1], "%Y%m%d").date() if found else None
    except ValueError:
        return None


def find_products(source: SourceSettings, locations: Mapping[str, Area], family: Family) -> Listing:
    """List the products of a source as scenes, oldest first.

    Without `locations` a scene's location is the place that the product names. With them it is each location that the
    product touches.

    Raises:
        ImageryError: The source cannot be listed, holds products that cannot be compared, or the settings give numbers
            that the products give as well.
    """
    if source.scale is not None or source.offset is not None:
        raise ImageryError(
            f"{family.agency} products say themselves what their numbers mean, and source.scale or source.offset would "
            "apply it again: leave both null"
        )
    storage = open_storage(source)
    products, skipped = [], []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [name for name in _candidates(storage, family) if not _too_old(name, source, family)]
        for found, failed in pool.map(lambda name: _read(storage, name, family), names):
            products += [replace(product, files=renamed(product.files, source.names)) for product in found]
            skipped += failed
    kinds = {product.kind: product.name for product in products}
    if len(kinds) > 1:
        told = "; ".join(f"{kind}: {name}" for kind, name in sorted(kinds.items()))
        raise ImageryError(f"the source holds products that cannot be compared ({told}): keep each kind apart")
    return product_scenes(products, source, locations, skipped)


def product_scenes(
    products: Sequence[Product],
    source: SourceSettings,
    locations: Mapping[str, Area],
    skipped: Sequence[tuple[str, str]] = (),
) -> Listing:
    """The scenes of products, oldest first: the latest processing of each acquisition, at its location or locations.

    Args:
        products: What was found.
        source: Name of the location when nothing else tells it.
        locations: Where to look; without any, a product's own place is the location.
        skipped: What could not be read, with the reason.
    """
    chosen, replaced = _newest(products)
    scenes, unplaced = _scenes(chosen, source, locations)
    return Listing(tuple(scenes), tuple(sorted([*skipped, *replaced, *unplaced])))


def images_below(storage: Storage, metadata: str, pattern: str) -> dict[str, str]:
    """The files beside or below a file of metadata, by their last name."""
    folder = posixpath.dirname(metadata)
    start = glob_literal(folder) + "/" if folder else ""
    return {posixpath.basename(name): name for name in storage.files(start + pattern)}


def _candidates(storage: Storage, family: Family) -> Iterator[str]:
    for pattern in (*family.metadata, family.archives):
        yield from storage.files(pattern)


def _too_old(name: str, source: SourceSettings, family: Family) -> bool:
    day = family.day(name) if source.since else None
    return day is not None and source.since is not None and day < source.since


def _read(storage: Storage, name: str, family: Family) -> tuple[list[Product], list[tuple[str, str]]]:
    """The products of one file of metadata or one archive, or why there are none."""
    products, skipped = [], []
    try:
        ending = posixpath.splitext(family.archives)[1]
        archived = name.lower().endswith(ending)
        inside: Storage = Archive(storage, name) if archived else storage
        found = [one for pattern in family.metadata for one in inside.files(pattern)] if archived else [name]
        for metadata in found:
            try:
                products += family.read(inside, metadata)
            except (ImageryError, OSError) as error:
                skipped.append((inside.address(metadata), str(error)))
    except (ImageryError, OSError) as error:
        skipped.append((storage.address(name), str(error)))
    return products, skipped


def _newest(products: Sequence[Product]) -> tuple[list[Product], list[tuple[str, str]]]:
    """Of the products of one acquisition the one that was processed last, and why not the others."""
    by_acquisition: dict[tuple[str, str], list[Product]] = defaultdict(list)
    for product in products:
        by_acquisition[product.place, product.acquisition].append(product)
    chosen, skipped = [], []
    for same in by_acquisition.values():
        *older, newest = sorted(same, key=lambda product: (product.version, product.name))
        chosen.append(newest)
        for product in older:
            version = ", ".join(newest.version)
            skipped.append(
                (product.name, f"the same acquisition is there as processed later ({version}): {newest.name}")
            )
    return chosen, skipped


def _scenes(
    products: list[Product], source: SourceSettings, locations: Mapping[str, Area]
) -> tuple[list[Scene], list[tuple[str, str]]]:
    together: dict[tuple[datetime, str], list[Product]] = defaultdict(list)
    skipped = []
    for product in sorted(products, key=lambda product: (product.place, product.acquisition, product.name)):
        place = product.place or source.location
        if not locations and place:
            together[product.acquired, place].append(product)
        elif not locations:
            skipped.append((product.name, "its metadata names no place: set source.location, or locations"))
        elif product.footprint is None:
            skipped.append((product.name, "its metadata tells no footprint, so its location is unknown"))
        else:
            for location in touched(locations, product.footprint):
                together[product.acquired, location].append(product)
    scenes = [
        Scene(location, acquired, product.files, number)
        for (acquired, location), found in sorted(together.items())
        for number, product in enumerate(found, start=1)
    ]
    return scenes, skipped

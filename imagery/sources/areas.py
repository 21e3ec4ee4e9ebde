"""Which locations a footprint touches, and where they are on Earth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from pyproj.exceptions import CRSError
from shapely import MultiPolygon, Polygon

from configs.schema import Area
from imagery.errors import ImageryError
from imagery.footprints import on_earth

LONGITUDES = "EPSG:4326"
ABOUT = 0.001  # degrees: no footprint is told better


def touched(locations: Mapping[str, Area], footprint: Polygon | MultiPolygon) -> list[str]:
    """The names of the locations that a footprint covers some ground of, in order.

    Args:
        locations: Where they are.
        footprint: Longitudes and latitudes; what crosses the 180th meridian is cut there.

    Raises:
        ImageryError: A location's coordinate reference system is unknown.
    """
    return [name for name, area in sorted(locations.items()) if footprint.intersection(outline(name, area)).area > 0]


@lru_cache(maxsize=1024)
def outline(name: str, area: Area) -> Polygon | MultiPolygon:
    """A location in longitudes and latitudes, cut at the 180th meridian.

    Raises:
        ImageryError: Its coordinate reference system is unknown, or it has no place on Earth.
    """
    try:
        found = on_earth(shapely.box(*area.bounds), area.crs, area.resolution)
    except CRSError as error:
        raise ImageryError(
            f"locations.{name}.crs is {area.crs!r}, which is unknown: give a code like EPSG:32631"
        ) from (error)
    if found.is_empty:
        raise ImageryError(f"locations.{name}.bounds {area.bounds} are nowhere on Earth in {area.crs}")
    return found


def boxes(name: str, area: Area) -> list[tuple[float, float, float, float]]:
    """West, south, east, north of a location, degrees: one box, or two where the 180th meridian cuts it."""
    found = outline(name, area)
    halves = [shapely.box(-180, -90, 0, 90), shapely.box(0, -90, 180, 90)] if _is_cut(found) else [found]
    return [tuple(found.intersection(half).bounds) for half in halves]


def footprint_of(corners: Sequence[tuple[float, float]], unwrap: bool = True) -> Polygon | MultiPolygon:
    """The area within (longitude, latitude) corners, cut where it crosses the 180th meridian.

    Args:
        corners: In order, degrees.
        unwrap: Take the short way round the Earth from each corner to the next.

    Raises:
        ImageryError: Fewer than three corners, or what is no number.
    """
    points = np.array(corners, float)
    if points.ndim != 2 or len(points) < 3 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ImageryError(f"its footprint has no three corners: {list(corners)[:3]}")
    if unwrap:
        points[1:, 0] = points[0, 0] + np.cumsum((np.diff(points[:, 0]) + 180) % 360 - 180)
    area = shapely.make_valid(Polygon(points), method="structure")
    found = on_earth(area, LONGITUDES, ABOUT) if area.geom_type in ("Polygon", "MultiPolygon") else Polygon()
    if found.is_empty:
        raise ImageryError(f"its footprint has no area: {list(corners)[:5]}")
    return found


def footprint_of_geojson(geometry: Any) -> Polygon | MultiPolygon:
    """The area of a GeoJSON polygon or of several, without their holes.

    One that crosses the 180th meridian should be cut there (RFC 7946, section 3.1.9); one that is not is cut here.

    Raises:
        ImageryError: It is no such thing.
    """
    try:
        shells = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}[geometry["type"]]
        rings = [[(float(point[0]), float(point[1])) for point in shell[0]] for shell in shells]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ImageryError(f"its geometry is no polygon: {error!r}") from error
    return shapely.union_all([footprint_of(ring, unwrap=_width(ring) < 360) for ring in rings])


def _width(ring: list[tuple[float, float]]) -> float:
    """Degrees between the westernmost and the easternmost corner: 360 is the whole Earth, and no crossing."""
    longitudes = [lon for lon, _ in ring]
    return max(longitudes, default=0) - min(longitudes, default=0)


def _is_cut(found: Polygon | MultiPolygon) -> bool:
    west, _, east, _ = found.bounds
    return west <= -180 and east >= 180 and found.geom_type == "MultiPolygon"

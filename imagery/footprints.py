"""Outlines on Earth: from a projected or geographic CRS to longitude and latitude, across 180° and over the poles.

Outlines are in EPSG:4326, with longitudes between -180 and 180 and counter-clockwise shells; what crosses the 180th
meridian is cut there (RFC 7946, section 3.1.9), and what holds a pole reaches up to latitude 90 along its meridians.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely import MultiPolygon, Polygon
from shapely.affinity import translate

CURVED = 0.1  # pixels: an edge whose middle lies farther than this from a straight line gets more points
PIECES = 64  # into which the edges of such an outline are cut
METRES_PER_DEGREE = 111_320  # of a meridian
SAME = 1e-9  # degrees, 0.1 mm: what was cut at a pole is joined where it is this close


def outlines(boxes: NDArray[np.float64], crs: str, pixel: float) -> NDArray[np.object_]:
    """The outlines of many rectangles.

    Args:
        boxes: (N, 4) left, bottom, right, top in units of the CRS.
        crs: Their coordinate reference system.
        pixel: Size of a pixel in units of the CRS, which says how far an edge may lie off.

    Returns:
        (N,) polygons and multi-polygons; empty ones where nothing of the rectangle has a place on Earth.
    """
    left, bottom, right, top = boxes.T
    # Counter-clockwise from the upper left corner, with the middle of each edge after its start.
    x = np.stack([left, left, left, (left + right) / 2, right, right, right, (left + right) / 2], axis=1)
    y = np.stack([top, (bottom + top) / 2, bottom, bottom, bottom, (bottom + top) / 2, top, top], axis=1)
    lon, lat = _to_degrees(crs).transform(x, y)
    edges = np.stack([top - bottom, right - left, top - bottom, right - left], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # beyond the edge of the world
        steps = (np.diff(lon, axis=1, prepend=lon[:, -1:]) + 180) % 360 - 180
        lon = lon[:, :1] + np.cumsum(steps, axis=1) - steps[:, :1]
        lon -= 360 * np.round((lon.max(axis=1) + lon.min(axis=1)) / 720)[:, None]
        # Around a pole, or around the world, a ring does not come back to where it began: one edge is bent by 360°.
        bend = (_bend(lon, lat) * edges).max(axis=1) / pixel
        straight, slightly_bent = bend <= CURVED, (bend > CURVED) & (bend <= 4 * CURVED)
    ring, found = np.stack([lon, lat], axis=2), np.empty(len(boxes), object)
    found[straight] = shapely.polygons(ring[straight, ::2])
    found[slightly_bent] = shapely.polygons(ring[slightly_bent])  # twice the points, a quarter of the bend
    beyond = (np.abs(lon) > 180).any(axis=1) | (np.abs(lat) > 90).any(axis=1)
    for index in np.flatnonzero((straight | slightly_bent) & beyond):
        found[index] = _joined(_cut_at_180(found[index]))
    for index in np.flatnonzero(~straight & ~slightly_bent):
        found[index] = on_earth(shapely.box(*boxes[index]), crs, pixel)
    return found


def on_earth(area: Polygon | MultiPolygon, crs: str, pixel: float) -> Polygon | MultiPolygon:
    """The outline of any area: edges follow the CRS's straight lines, holes stay holes.

    Args:
        area: In units of the CRS.
        crs: Its coordinate reference system.
        pixel: See `outlines`.
    """
    if not _is_geographic(crs):
        left, bottom, right, top = area.bounds
        area = shapely.segmentize(area, max(right - left, top - bottom) / PIECES)
    pieces = [_unwrapped(piece, crs) for piece in _cut_at_poles(area, crs)]
    whole = _joined([part for piece in pieces for part in _cut_at_180(piece)])
    return shapely.simplify(whole, CURVED / 2 * pixel * _degrees(crs))


def _bend(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) how far the middle of each edge lies off a straight line, as a share of its length; corners (N, 8)."""
    x, y = lon * np.cos(np.radians(lat.mean(axis=1, keepdims=True))), lat
    to_x, to_y = (np.roll(ends[:, ::2], -1, axis=1) for ends in (x, y))
    off = np.hypot(x[:, 1::2] - (x[:, ::2] + to_x) / 2, y[:, 1::2] - (y[:, ::2] + to_y) / 2)
    share: NDArray[np.float64] = off / np.hypot(to_x - x[:, ::2], to_y - y[:, ::2])
    return share


def _cut_at_poles(area: Polygon | MultiPolygon, crs: str) -> Iterator[Polygon]:
    """The polygons of an area; where one holds a pole it is cut there, so that each piece has the pole at a corner."""
    pieces = [area]
    for x, y in _poles(crs):
        far = 2 * max(abs(bound - centre) for bound, centre in zip(area.bounds, (x, y, x, y), strict=True)) + 1
        quarters = [shapely.box(x, y, x + i * far, y + j * far) for i in (-1, 1) for j in (-1, 1)]
        touched = [piece.intersects(shapely.Point(x, y)) for piece in pieces]
        pieces = [
            part
            for piece, holds in zip(pieces, touched, strict=True)
            for part in ([piece.intersection(quarter) for quarter in quarters] if holds else [piece])
        ]
    for piece in pieces:
        yield from _polygons(piece)


def _unwrapped(polygon: Polygon, crs: str) -> Polygon | MultiPolygon:
    """In degrees, with longitudes that go on beyond 180 instead of jumping."""
    shell, *holes = (_ring(np.array(ring.coords)[:-1], crs) for ring in (polygon.exterior, *polygon.interiors))
    for hole in holes:
        for turn in (-360, 0, 360):
            shell = shell.difference(translate(hole, turn))
    return shell


def _ring(points: NDArray[np.float64], crs: str) -> Polygon:
    lon, lat = _to_degrees(crs).transform(points[:, 0], points[:, 1])
    known = np.isfinite(lon) & np.isfinite(lat)
    lon, lat, points = lon[known], lat[known], points[known]
    if len(lon) < 3:
        return Polygon()
    if _is_geographic(crs):
        lon = lon + 360 * np.round((points[:, 0] * _degrees(crs) - lon) / 360)
    else:
        lon, lat = _with_two_corners_at_a_pole(lon, lat)
        lon = lon[0] + np.concatenate([[0], np.cumsum((np.diff(lon) + 180) % 360 - 180)])
    return shapely.make_valid(Polygon(np.stack([lon, lat], axis=1)), method="structure")


def _with_two_corners_at_a_pole(
    lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A pole has no longitude: a corner there becomes two, on the meridians of its neighbours."""
    at_pole = np.abs(lat) > 90 - 1e-7
    before, after = np.roll(lon, 1), np.roll(lon, -1)
    lon = np.repeat(np.where(at_pole, before, lon), 1 + at_pole)
    second = np.flatnonzero(at_pole) + np.arange(1, at_pole.sum() + 1)
    lon[second] = after[at_pole]
    return lon, np.repeat(np.where(at_pole, np.copysign(90, lat), lat), 1 + at_pole)


def _cut_at_180(area: Polygon | MultiPolygon) -> list[Polygon]:
    parts = []
    for turn in (-360, 0, 360):
        inside = translate(area, turn).intersection(shapely.box(-180, -90, 180, 90))
        parts += [part for part in _polygons(inside) if part.area > 1e-9 * area.area]
    return parts


def _joined(parts: list[Polygon]) -> Polygon | MultiPolygon:
    """One area of all parts, without seams; empty without any."""
    whole = list(shapely.orient_polygons(_polygons(shapely.union_all(parts, grid_size=SAME))))
    return whole[0] if len(whole) == 1 else MultiPolygon(whole)


def _polygons(shape: Any) -> list[Polygon]:
    """What has an area, of any shape."""
    return [part for part in shapely.get_parts(shape, return_index=False) if part.geom_type == "Polygon" and part.area]


@lru_cache(maxsize=64)
def _to_degrees(crs: str) -> Transformer:
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


@lru_cache(maxsize=64)
def _poles(crs: str) -> tuple[tuple[float, float], ...]:
    """Where the poles are points of a CRS; none in one of longitudes and latitudes, where they are lines."""
    if _is_geographic(crs):
        return ()
    places = (_to_degrees(crs).transform(0, lat, direction="INVERSE") for lat in (90, -90))
    return tuple((x, y) for x, y in places if math.isfinite(x) and math.isfinite(y))


@lru_cache(maxsize=64)
def _is_geographic(crs: str) -> bool:
    return CRS.from_user_input(crs).is_geographic


@lru_cache(maxsize=64)
def _degrees(crs: str) -> float:
    """How many degrees a unit of a CRS is; of a length, along a meridian."""
    unit = CRS.from_user_input(crs).axis_info[0].unit_conversion_factor  # to radians or metres
    return math.degrees(unit) if _is_geographic(crs) else unit / METRES_PER_DEGREE

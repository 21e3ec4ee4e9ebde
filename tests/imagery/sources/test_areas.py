"""Which locations a footprint touches, anywhere on Earth."""

from __future__ import annotations

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Area
from imagery.errors import ImageryError
from imagery.sources.areas import boxes, footprint_of, footprint_of_geojson, touched

longitudes, latitudes = st.floats(-180, 180), st.floats(-80, 80)


def place(west: float, south: float, size: float = 0.5) -> Area:
    """A square in degrees, whose pixels are a tenth of it."""
    return Area(crs="EPSG:4326", bounds=(west, south, west + size, south + size), resolution=size / 10)


def ring(west: float, south: float, size: float) -> list[tuple[float, float]]:
    corners = [(west, south), (west + size, south), (west + size, south + size), (west, south + size)]
    return [((lon + 180) % 360 - 180, lat) for lon, lat in corners]


@given(longitudes, latitudes, st.floats(0.5, 20))
def test_a_footprint_touches_a_location_within_it_wherever_it_lies(lon: float, lat: float, size: float) -> None:
    west = (lon + size / 4 + 180) % 360 - 180
    inside = place(west, lat + size / 4, size / 4)

    assert touched({"inside": inside}, footprint_of(ring(lon, lat, size))) == ["inside"]


@given(longitudes, latitudes, st.floats(0.5, 20))
def test_a_footprint_touches_nothing_on_the_other_side_of_the_earth(lon: float, lat: float, size: float) -> None:
    west = (lon + 180 + 180) % 360 - 180
    if west + 0.5 > 180:
        west = 179.5

    assert touched({"far": place(west, lat)}, footprint_of(ring(lon, lat, size))) == []


@given(longitudes, latitudes)
def test_a_ring_is_the_same_area_in_either_direction_and_from_any_corner(lon: float, lat: float) -> None:
    corners = ring(lon, lat, 3)

    areas = [footprint_of(corners), footprint_of(corners[::-1]), footprint_of(corners[2:] + corners[:2])]

    assert all(area.area == pytest.approx(9) for area in areas)
    assert all(area.symmetric_difference(areas[0]).area < 1e-6 for area in areas)


def test_a_location_at_its_edge_is_not_touched() -> None:
    footprint = footprint_of(ring(10, 40, 1))

    assert touched({"beside": place(11, 40), "corner": place(10.9, 40.9)}, footprint) == ["corner"]


def test_a_location_across_the_180th_meridian_is_searched_in_two_boxes() -> None:
    fiji = Area(crs="EPSG:32701", bounds=(100_000, 8_000_000, 200_000, 8_100_000), resolution=100)

    west, east = sorted(boxes("fiji", fiji))

    assert west[0] == -180
    assert east[2] == 180
    assert 179 < east[0] < 180
    assert -180 < west[2] < -179


def test_a_location_that_holds_a_pole_is_searched_all_around() -> None:
    pole = Area(crs="EPSG:3413", bounds=(-100_000, -100_000, 100_000, 100_000), resolution=1000)

    found = shapely.union_all([shapely.box(*box) for box in boxes("pole", pole)]).bounds

    assert found == pytest.approx((-180, 88.7, 180, 90), abs=0.1)


def test_the_whole_earth_is_not_taken_for_a_crossing_of_the_180th_meridian() -> None:
    world = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]}

    assert touched({"here": place(20, 46)}, footprint_of_geojson(world)) == ["here"]


def test_a_polygon_that_is_cut_at_the_180th_meridian_is_one_area() -> None:
    parts = [
        [[[179, 0], [180, 0], [180, 1], [179, 1], [179, 0]]],
        [[[-180, 0], [-179, 0], [-179, 1], [-180, 1], [-180, 0]]],
    ]

    assert footprint_of_geojson({"type": "MultiPolygon", "coordinates": parts}).area == pytest.approx(2)


@pytest.mark.parametrize(
    "geometry",
    [None, {}, [], {"type": "Point", "coordinates": [0, 0]}, {"type": "Polygon", "coordinates": []}]
    + [
        {"type": "Polygon", "coordinates": [points]}
        for points in (
            [[0, 0], [1, 1]], [[0, 0], [1, 0], [2, 0]], [["a", 0], [1, 0], [2, 1]], [[0], [1], [2]],
            [[float("nan"), 0], [1, 0], [1, 1]],
        )
    ],
)  # fmt: skip
def test_a_geometry_without_an_area_is_refused(geometry: object) -> None:
    with pytest.raises(ImageryError):
        footprint_of_geojson(geometry)

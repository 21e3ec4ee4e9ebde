"""Footprints lie where the ground is, across the 180th meridian, over the poles and on coarse grids."""

from __future__ import annotations

import json
import time

import antimeridian
import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Proj, Transformer
from shapely import MultiPolygon, Point, Polygon

from imagery.footprints import on_earth
from imagery.grid import Grid, Tile
from tests.rasters import NORTH, UTM, WEST

# Grids across 180°, over a pole, or on both sides of a world's edge: CRS, pixel, and where their centre may lie.
PLACES = {
    "zone 60": ("EPSG:32660", 60.0, (179.95, 180.05), (-80, 80)),
    "zone 1, south": ("EPSG:32701", 60.0, (-180.05, -179.95), (-79, -1)),
    "north pole": ("EPSG:3413", 100.0, (-180, 180), (89.95, 90)),
    "south pole": ("EPSG:3031", 100.0, (-180, 180), (-90, -89.95)),
    "equal-area north": ("EPSG:6931", 1000.0, (-180, 180), (89.5, 90)),
    "degrees past 180": ("EPSG:4326", 0.01, (179, 181), (-60, 60)),
    "degrees past -180": ("EPSG:4326", 0.01, (-181, -179), (-60, 60)),
    "world mercator": ("EPSG:3857", 100.0, (179.95, 180), (-60, 60)),
}


def grid_at(place: str, across: float, along: float, width: int, height: int) -> Grid:
    """A grid of a place, its centre so far (0 to 1) along the ranges of longitude and latitude."""
    crs, pixel, lon, lat = PLACES[place]
    centre = lon[0] + across * (lon[1] - lon[0]), lat[0] + along * (lat[1] - lat[0])
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*centre)
    return Grid(crs, (pixel, 0, x - pixel * width / 2, 0, -pixel, y + pixel * height / 2), width, height)


def square_metres(shape: Polygon | MultiPolygon) -> float:
    """The area on the ellipsoid, by a cylindrical equal-area map, in which meridians and parallels stay straight."""
    to_metres = Transformer.from_crs("EPSG:4326", "+proj=cea +ellps=WGS84", always_xy=True)
    return shapely.transform(shapely.segmentize(shape, 0.5), to_metres.transform, interleaved=False).area


def expected_square_metres(grid: Grid, tile: Tile, lon: float, lat: float) -> float:
    """The area of a small tile around a point, by the scale of its CRS there."""
    size = grid.resolution
    if grid.crs == "EPSG:4326":
        return square_metres(
            shapely.box(0, lat - size * tile.height / 2, size * tile.width, lat + size * tile.height / 2)
        )
    return tile.height * tile.width * size**2 / Proj(grid.crs).get_factors(lon, lat).areal_scale


@settings(max_examples=100, deadline=None)
@example(place="north pole", across=0.3, along=1.0, width=1, height=1, inside=(0.4, 0.6))
@given(
    place=st.sampled_from(sorted(PLACES)),
    across=st.floats(0, 1),
    along=st.floats(0, 1),
    width=st.integers(1, 130),
    height=st.integers(1, 130),
    inside=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
)
def test_a_footprint_holds_the_ground_of_its_tile_and_no_other(
    place: str, across: float, along: float, width: int, height: int, inside: tuple[float, float]
) -> None:
    grid = grid_at(place, across, along, width, height)
    tiles = grid.tiles(64)

    footprints = grid.footprints(tiles)

    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    for index, (tile, footprint) in enumerate(zip(tiles, footprints, strict=True)):
        assert footprint.is_valid
        assert shapely.box(-180, -90, 180, 90).covers(footprint)
        assert all(part.exterior.is_ccw for part in shapely.get_parts(footprint))
        for share in (inside, (0.5, 0.5)):
            lon, lat = to_degrees.transform(*ground(grid, tile, *share))
            holding = footprints.covers(Point((lon + 180) % 360 - 180, lat))
            assert holding[index]
            assert abs(lat) > 89.9999 or holding.sum() == 1
        if abs(lat) < 89.99:
            expected = expected_square_metres(grid, tile, lon, lat)
            edge = 0.2 / min(tile.height, tile.width)  # a tenth of a pixel on both sides
            assert square_metres(footprint) == pytest.approx(expected, rel=0.01 + edge)


def ground(grid: Grid, tile: Tile, across: float, down: float) -> tuple[float, float]:
    """Coordinates of a point of a tile, by shares of its width and height."""
    return grid.affine @ (tile.col_off + across * tile.width, tile.row_off + down * tile.height)


@pytest.mark.parametrize(("epsg", "pole"), [(3413, 90), (3031, -90)])
@pytest.mark.parametrize("corner", [(-64, 64), (-32, 64), (-64, 32), (-32, 32), (-0.25, 0.25), (-63.5, 0.5)], ids=str)
def test_a_pole_within_a_tile_on_its_edge_or_at_its_corner_belongs_to_it(
    epsg: int, pole: int, corner: tuple[float, float]
) -> None:
    grid = Grid(f"EPSG:{epsg}", (1000, 0, corner[0] * 1000, 0, -1000, corner[1] * 1000), 128, 128)

    footprints = grid.footprints(grid.tiles(64))

    for lon in np.arange(-179.5, 180, 7.3):
        assert footprints.intersects(Point(lon, pole * (1 - 1e-7))).any()
    areas = [square_metres(footprint) for footprint in footprints]
    assert sum(areas) == pytest.approx(square_metres(footprints.union_all()), rel=1e-4)  # hardly one over another
    scale = Proj(grid.crs).get_factors(0, pole * 0.9999).areal_scale
    assert sum(areas) == pytest.approx(128e3**2 / scale, rel=0.02)


@pytest.mark.parametrize(
    ("width", "left"), [(1440, -180), (1440, 0), (1440, -0.125), (360, -180), (360, 0), (360, -10)], ids=str
)
def test_the_tiles_of_a_global_grid_cover_the_world_once(width: int, left: float) -> None:
    size = 360 / width
    top = 90 + (size / 2 if left == -0.125 else 0)  # climate models have pixels centred on the pole
    grid = Grid("EPSG:4326", (size, 0, left, 0, -size, top), width, width // 2 + (left == -0.125))

    footprints = grid.footprints(grid.tiles(512))

    assert footprints.is_valid.all()
    assert sum(footprint.area for footprint in footprints) == pytest.approx(360 * 180)
    assert footprints.union_all().bounds == (-180, -90, 180, 90)


def test_a_continent_in_degrees_of_another_datum_lies_where_it_does_in_those_of_wgs84() -> None:
    """PROJ brings longitudes to within 180° as it changes the datum, and leaves them as they are where it need not."""
    tokyo, wgs84 = (Grid(f"EPSG:{code}", (1, 0, 10, 0, -1, 60), 300, 50) for code in (4301, 4326))

    (one,), (other,) = (grid.footprints(grid.tiles(512)) for grid in (tokyo, wgs84))
    area = on_earth(shapely.box(*tokyo.bounds), tokyo.crs, 1)

    assert one.symmetric_difference(other).area < 1e-3 * other.area
    assert area.symmetric_difference(other).area < 1e-3 * other.area


@pytest.mark.parametrize("place", ["zone 60", "zone 1, south"])
@pytest.mark.parametrize("along", [0.1, 0.5, 0.8, 1])
def test_a_tile_across_the_180th_meridian_is_cut_as_a_library_does_it(place: str, along: float) -> None:
    grid = grid_at(place, 0.5, along, 64, 64)
    (tile,) = grid.tiles(64)
    ring = Polygon([ground(grid, tile, *corner) for corner in [(0, 0), (0, 1), (1, 1), (1, 0)]])
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    in_degrees = shapely.transform(shapely.segmentize(ring, 240), to_degrees.transform, interleaved=False)
    told = antimeridian.fix_polygon(in_degrees, great_circle=False, fix_winding=True)

    (footprint,) = grid.footprints([tile])

    assert len(shapely.get_parts(footprint)) == len(shapely.get_parts(told)) == 2
    assert footprint.symmetric_difference(told).area < 2e-3 * told.area  # a tenth of a pixel


def test_an_edge_that_would_be_seen_to_be_curved_gets_more_points() -> None:
    fine = Grid("EPSG:3035", (10, 0, 4_321_000, 0, -10, 5_000_000), 64, 64)
    coarse = Grid("EPSG:3035", (25_000, 0, 3_000_000, 0, -25_000, 5_000_000), 64, 64)

    (plain,), (curved,) = (grid.footprints(grid.tiles(64)) for grid in (fine, coarse))

    assert len(plain.exterior.coords) == 5
    to_degrees = Transformer.from_crs(coarse.crs, "EPSG:4326", always_xy=True)
    for share in np.linspace(0, 1, 50):
        on_edge = Point(to_degrees.transform(3_000_000 + share * 1_600_000, 5_000_000))
        assert curved.exterior.distance(on_edge) < 0.05  # degrees, where a pixel is 0.22


def test_an_area_keeps_its_holes_and_both_its_sides_across_the_180th_meridian() -> None:
    west, east = -17_000, 23_000  # of where zone 60 ends at this latitude
    ring = shapely.box(695_000 + west, 5_960_000, 695_000 + east, 6_000_000)
    hole = shapely.box(697_000, 5_970_000, 697_500, 5_990_000)

    whole, holed = on_earth(ring, "EPSG:32660", 100), on_earth(ring - hole, "EPSG:32660", 100)

    assert holed.geom_type == whole.geom_type == "MultiPolygon"
    assert whole.bounds[0] == -180
    assert whole.bounds[2] == 180
    assert square_metres(holed) / square_metres(whole) == pytest.approx(1 - 0.5 * 20 / 40**2, rel=1e-3)


def test_pixels_beyond_the_edge_of_the_world_have_no_footprint() -> None:
    """A full disc as geostationary satellites see it: its corners are space."""
    grid = Grid("+proj=geos +h=35785831 +lon_0=0 +sweep=y", (30_000, 0, -5.5e6, 0, -30_000, 5.5e6), 366, 366)

    footprints = grid.footprints(grid.tiles(12))

    assert footprints.is_valid.all()
    assert footprints.iloc[0].is_empty
    assert footprints.geom_type.isin(["Polygon", "MultiPolygon"]).all()
    middle = grid.tiles(12).index(Tile(180, 180, 12, 12))
    assert footprints.iloc[middle].intersects(Point(0.5, -0.5))


def test_footprints_are_the_same_from_tiles_and_from_their_table() -> None:
    grid = Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 100, 70)

    assert grid.footprints(grid.tiles(32)).equals(grid.footprints(grid.tile_table(32)))
    assert len(grid.footprints([])) == 0


@pytest.mark.parametrize(
    ("crs", "pixel", "left", "top"),
    [
        (UTM, 10, WEST, NORTH),
        ("EPSG:3413", 10, -54_900, 54_900),
        ("EPSG:32660", 10, 680_000, 6_000_000),
        ("EPSG:4326", 1e-4, 181, 50),
    ],
    ids=["plain", "around a pole", "across 180°", "beyond 180°"],
)
def test_tens_of_thousands_of_tiles_take_moments(crs: str, pixel: float, left: float, top: float) -> None:
    grid = Grid(crs, (pixel, 0, left, 0, -pixel, top), 10980, 10980)

    began = time.process_time()  # of this process alone: the machine may be busy
    table = grid.tile_table(64)
    footprints = grid.footprints(table)

    assert len(footprints) == 29584
    assert time.process_time() - began < 5


def test_a_footprint_survives_the_way_through_geojson() -> None:
    grid = grid_at("north pole", 0.3, 0.5, 130, 130)

    for footprint in grid.footprints(grid.tiles(64)):
        again = shapely.from_geojson(json.dumps(shapely.geometry.mapping(footprint)))
        assert again.equals(footprint)

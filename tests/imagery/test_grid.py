"""Tiles cover a grid exactly once, keep their names, and lie where they should on Earth."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin, xy

from configs.schema import Area
from imagery.errors import SceneMismatch
from imagery.grid import Grid, Tile, grid_of, tile_ids
from tests.rasters import NORTH, UTM, WEST

SIZES = st.integers(1, 200)
TILES = st.integers(1, 64).map(lambda n: 4 * n)
TILINGS = TILES.flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))  # size, stride
WINDOW = ("row_off", "col_off", "height", "width")


def utm_grid(width: int = 40, height: int = 24, resolution: float = 10.0) -> Grid:
    return Grid(UTM, (resolution, 0, WEST, 0, -resolution, NORTH), width, height)


@given(width=SIZES, height=SIZES, size=TILES)
def test_every_pixel_lies_in_exactly_one_tile(width: int, height: int, size: int) -> None:
    times_covered = np.zeros((height, width), int)

    for tile in utm_grid(width, height).tiles(size):
        assert tile.height >= 1
        assert tile.width >= 1
        times_covered[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width] += 1
        assert tile.height <= size
        assert tile.width <= size

    assert (times_covered == 1).all()


@given(width=SIZES, height=SIZES, tiling=TILINGS)
def test_overlapping_tiles_cover_the_grid_and_none_lies_within_another(
    width: int, height: int, tiling: tuple[int, int]
) -> None:
    size, stride = tiling
    covered = np.zeros((height, width), bool)
    ends: set[tuple[int, int]] = set()

    tiles = utm_grid(width, height).tiles(size, stride)

    for tile in tiles:
        bottom, right = tile.row_off + tile.height, tile.col_off + tile.width
        assert (tile.row_off % stride, tile.col_off % stride) == (0, 0)
        assert bottom == min(height, tile.row_off + size)
        assert right == min(width, tile.col_off + size)
        covered[tile.row_off : bottom, tile.col_off : right] = True
        ends.add((bottom, right))
    assert covered.all()
    assert len(ends) == len(tiles)  # two tiles with the same end would lie one within the other


@given(width=SIZES, height=SIZES, tiling=TILINGS, more=st.integers(0, 40))
def test_names_are_unique_and_depend_on_the_ground_alone(
    width: int, height: int, tiling: tuple[int, int], more: int
) -> None:
    tiles = utm_grid(width, height).tiles(*tiling)
    names = [tile.tile_id("here") for tile in tiles]

    assert len(set(names)) == len(names)
    larger = {(tile.row_off, tile.col_off): tile for tile in utm_grid(width + more, height + more).tiles(*tiling)}
    for tile, name in zip(tiles, names, strict=True):
        assert larger[tile.row_off, tile.col_off].tile_id("here") == name


@given(width=SIZES, height=SIZES, tiling=TILINGS)
def test_strips_and_the_table_hold_the_same_tiles_in_the_same_order(
    width: int, height: int, tiling: tuple[int, int]
) -> None:
    grid = utm_grid(width, height)
    tiles, strips, table = grid.tiles(*tiling), list(grid.strips(*tiling)), grid.tile_table(*tiling)

    assert [tile for strip in strips for tile in strip] == tiles
    assert [Tile(*row) for row in zip(*(table[name].tolist() for name in WINDOW), strict=True)] == tiles
    ids = tile_ids("here", table["row_off"], table["col_off"])
    assert ids == [tile.tile_id("here") for tile in tiles]
    for strip in strips:
        window = grid.strip_window(strip)
        assert (window.row_off, window.height, window.width) == (strip[0].row_off, strip[0].height, width)


@pytest.mark.parametrize("stride", [17, -4])
def test_a_stride_that_leaves_gaps_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=rf"16 pixels every {stride} pixels"):
        utm_grid().tiles(16, stride)


def test_a_name_is_spelled_as_the_catalog_promises() -> None:
    assert utm_grid().tiles(16)[4].tile_id("a b") == "a b-r00016-c00016"


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 100),
    height=st.integers(1, 100),
    epsg=st.sampled_from([32634, 32721, 3035, 4326, 3857]),
    resolution=st.sampled_from([10.0, 30.0]),
)
def test_footprints_are_where_pyproj_says_the_corners_are(
    width: int, height: int, epsg: int, resolution: float
) -> None:
    west, north, step = {
        32634: (500_000, 5_200_000, resolution),
        32721: (400_000, 7_000_000, resolution),  # south of the equator
        3035: (4_321_000, 3_210_000, resolution),
        4326: (12.5, 41.9, resolution * 1e-5),
        3857: (260_000, 6_250_000, resolution),
    }[epsg]
    grid = Grid(f"EPSG:{epsg}", (step, 0, west, 0, -step, north), width, height)
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)

    footprints = grid.footprints(grid.tiles(32))

    assert footprints.crs == "EPSG:4326"
    for tile, outline in zip(grid.tiles(32), footprints, strict=True):
        rows, columns = (tile.row_off, tile.row_off + tile.height), (tile.col_off, tile.col_off + tile.width)
        corners = {
            to_degrees.transform(*xy(grid.affine, row, column, offset="ul")) for row in rows for column in columns
        }
        outlined = set(outline.exterior.coords)
        assert len(outlined) == 4
        for corner in corners:
            assert min(np.hypot(corner[0] - lon, corner[1] - lat) for lon, lat in outlined) < 1e-9


def test_neighbouring_footprints_touch_and_do_not_overlap() -> None:
    grid = utm_grid()
    footprints = grid.footprints(grid.tiles(16))

    together = footprints.union_all()

    assert sum(footprint.area for footprint in footprints) == pytest.approx(together.area, rel=1e-9)
    # UTM's straight edges are slightly curved in degrees, so the outline of the whole has corners those of tiles lack.
    assert together.symmetric_difference(grid.footprints([grid.tiles(64)[0]])[0]).area / together.area < 1e-4


def test_bounds_and_resolution_are_in_units_of_the_crs() -> None:
    grid = utm_grid(40, 24, 20.0)

    assert grid.bounds == (WEST, NORTH - 480, WEST + 800, NORTH)
    assert grid.resolution == 20.0


@given(
    width=SIZES,
    height=SIZES,
    transform=st.tuples(
        st.floats(0.1, 100),
        st.just(0.0),
        st.floats(-1e7, 1e7),
        st.just(0.0),
        st.floats(-100, -0.1),
        st.floats(-1e7, 1e7),
    ),
)
def test_a_grid_survives_the_way_through_json(width: int, height: int, transform: tuple) -> None:
    grid = Grid(UTM, transform, width, height)

    assert Grid.from_record(json.loads(json.dumps(asdict(grid)))) == grid


def test_the_grid_of_a_raster_is_its_own_unless_another_resolution_is_asked_for() -> None:
    transform = from_origin(WEST, NORTH, 10, 10)

    own = grid_of(CRS.from_string(UTM), transform, 41, 24, None, "a.tif")
    coarse = grid_of(CRS.from_string(UTM), transform, 41, 24, 20.0, "a.tif")

    assert own == Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 41, 24)
    assert (coarse.resolution, coarse.height, coarse.bounds[0], coarse.bounds[3]) == (20.0, 12, WEST, NORTH)
    assert abs(coarse.width * 20 - 410) <= 10


@pytest.mark.parametrize(
    "definition",
    [
        "+proj=laea +lat_0=10 +lon_0=20 +ellps=bessel +units=m +no_defs",
        # Nearly what IGNF calls ETRS89LAEA and EPSG 3035, and neither of them: the datum is unknown.
        "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m +no_defs",
        "+proj=utm +zone=34 +ellps=GRS80 +units=m +no_defs",
        "EPSG:3035",
        "EPSG:4326",
        "ESRI:54009",
    ],
)
def test_the_crs_of_a_grid_is_that_of_its_raster_with_a_code_or_without(definition: str) -> None:
    crs = CRS.from_string(definition)

    grid = grid_of(crs, from_origin(0, 0, 10, 10), 8, 8, None, "a.tif")

    assert CRS.from_string(Grid.from_record(json.loads(json.dumps(asdict(grid)))).crs) == crs


def test_footprints_of_a_grid_without_a_code_lie_where_they_should() -> None:
    crs = CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +ellps=WGS84 +units=m +no_defs")
    grid = grid_of(crs, from_origin(0, 0, 10, 10), 8, 8, None, "a.tif")

    (footprint,) = grid.footprints(grid.tiles(8))

    assert (footprint.bounds[0], footprint.bounds[3]) == pytest.approx((20, 10))


@pytest.mark.parametrize(
    ("crs", "transform", "told"),
    [
        (None, from_origin(WEST, NORTH, 10, 10), ["no coordinate reference system", "gdal_edit.py -a_srs"]),
        (UTM, Affine(8.7, 5, WEST, 5, -8.7, NORTH), ["rotated", "set `locations.<name>`", "gdalwarp"]),
        (UTM, Affine(-10, 0, WEST, 0, -10, NORTH), ["mirrored", "set `locations.<name>`", "gdalwarp"]),
        (UTM, Affine.identity(), ["no geotransform", "gdal_edit.py"]),
    ],
    ids=["no crs", "rotated", "mirrored", "no geotransform"],
)
def test_a_raster_that_cannot_define_a_grid_is_refused_with_what_to_do(
    crs: str | None, transform: Affine, told: list[str]
) -> None:
    with pytest.raises(SceneMismatch) as caught:
        grid_of(CRS.from_string(crs) if crs else None, transform, 10, 10, None, "scene.tif")

    for words in ["scene.tif", *told]:
        assert words in str(caught.value)


@pytest.mark.parametrize("resolution", [None, 20.0])
def test_a_raster_stored_from_south_to_north_gives_the_north_up_grid_of_the_same_pixels(
    resolution: float | None,
) -> None:
    crs, south = CRS.from_string(UTM), NORTH - 24 * 10

    south_up = grid_of(crs, Affine(10, 0, WEST, 0, 10, south), 40, 24, resolution, "a.tif")

    assert south_up == grid_of(crs, from_origin(WEST, NORTH, 10, 10), 40, 24, resolution, "a.tif")


@settings(max_examples=50)
@given(width=SIZES, height=SIZES, resolution=st.sampled_from([0.1, 1 / 3, 10.0, 60.0]))
def test_the_grid_of_an_area_has_its_bounds(width: int, height: int, resolution: float) -> None:
    bounds = (WEST, NORTH - height * resolution, WEST + width * resolution, NORTH)

    grid = Grid.of_area(Area(crs=UTM, bounds=bounds, resolution=resolution))

    assert (grid.crs, grid.width, grid.height, grid.resolution) == (UTM, width, height, resolution)
    assert grid.bounds == pytest.approx(bounds)


@pytest.mark.parametrize("crs", ["EPSG:99999", "Gauss", "", 'LOCAL_CS["a building",UNIT["metre",1]]'])
def test_an_area_in_a_crs_that_nobody_knows_is_refused(crs: str) -> None:
    with pytest.raises(SceneMismatch, match=re.escape(repr(crs))):
        Grid.of_area(Area(crs=crs, bounds=(0, 0, 100, 100), resolution=10))

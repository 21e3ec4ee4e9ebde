"""A scene whose pixels are those of its location's grid is moved by whole pixels; any other is warped, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter, shift
from skimage.registration import phase_cross_correlation

from configs.schema import GridSettings
from imagery.errors import SceneMismatch
from imagery.grid import Grid
from imagery.masks import Cause
from imagery.reading import Pixels
from tests.rasters import NORTH, UTM, WEST, ground, open_scene, read_scene, scene_of, source_settings, write_raster

HEIGHT, WIDTH = 24, 30
GRID = Grid(UTM, (10, 0, WEST, 0, -10, NORTH), WIDTH, HEIGHT)
REFUSE = GridSettings(on_mismatch="refuse")
ONE = source_settings(("B02",))


def read_onto(path: Path, grid: Grid = GRID, settings: GridSettings | None = None, **keywords: Any) -> Pixels:
    return read_scene(path, ONE, None, settings, grid, **keywords)


def moved(numbers: np.ndarray, rows: int, columns: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Numbers whose first pixel lies at (rows, columns), as seen from a grid: NaN where there are none."""
    seen = np.full((height + 200, width + 200), np.nan)
    seen[100 + rows : 100 + rows + numbers.shape[0], 100 + columns : 100 + columns + numbers.shape[1]] = numbers
    return seen[100 : 100 + height, 100 : 100 + width]


def south_up(numbers: np.ndarray) -> dict[str, Any]:
    """The same ground stored from south to north."""
    bottom = NORTH - 10 * numbers.shape[0]
    return {"bands": {"B02": numbers[::-1]}, "transform": Affine(10, 0, WEST, 0, 10, bottom)}


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(5, 60), st.integers(5, 60)),
    offset=st.tuples(st.integers(-70, 40), st.integers(-70, 40)),
    flipped=st.booleans(),
    on_mismatch=st.sampled_from(["warp", "refuse"]),
    layout=st.sampled_from([{}, {"block": 16, "compress": "deflate"}, {"interleave": "pixel", "nodata": "declared"}]),
    corners=st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, 24), st.integers(1, 30)),
)
def test_a_scene_that_lies_off_by_whole_pixels_is_read_exactly_and_is_missing_where_it_does_not_reach(
    tmp_path_factory: pytest.TempPathFactory, size, offset, flipped, on_mismatch, layout, corners
) -> None:
    numbers = ground(*size, bands=("B02",))["B02"]
    north, west = NORTH - 10 * offset[0], WEST + 10 * offset[1]
    transform = Affine(10, 0, west, 0, 10, north - 10 * size[0]) if flipped else Affine(10, 0, west, 0, -10, north)
    path = write_raster(
        tmp_path_factory.mktemp("offset") / "a.tif",
        {"B02": numbers[::-1] if flipped else numbers},
        transform=transform,
        **layout,
    )
    expected = moved(numbers, *offset)
    grid_settings = GridSettings(on_mismatch=on_mismatch)

    if np.isnan(expected).all():
        with pytest.raises(SceneMismatch, match="covers nothing of here"):
            read_onto(path, settings=grid_settings)
        return
    row, column, height, width = corners
    window = Window(column, row, min(width, WIDTH - column), min(height, HEIGHT - row))
    with open_scene(path, ONE, None, grid_settings, GRID) as reader:
        part = reader.read(window)

    expected = expected[row : row + height, column : column + width]
    np.testing.assert_array_equal(part.values[0], expected)
    np.testing.assert_array_equal(part.causes, np.where(np.isnan(expected), Cause.NODATA, Cause.VALID))


@settings(max_examples=40, deadline=None)
@given(
    off=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    tolerance=st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.5]),
)
def test_a_scene_within_the_tolerance_keeps_its_numbers_and_any_other_is_warped(
    tmp_path_factory: pytest.TempPathFactory, off: tuple[float, float], tolerance: float
) -> None:
    furthest = max(map(abs, off))
    assume(abs(furthest - tolerance) > 1e-3)
    numbers = ground(HEIGHT, WIDTH, ("B02",))["B02"]
    path = write_raster(
        tmp_path_factory.mktemp("off") / "a.tif", {"B02": numbers}, west=WEST + 10 * off[1], north=NORTH - 10 * off[0]
    )

    values = read_onto(path, settings=GridSettings(tolerance=tolerance)).values[0]

    if furthest <= tolerance:
        np.testing.assert_array_equal(values, numbers)
        assert read_onto(path, settings=GridSettings(tolerance=tolerance, on_mismatch="refuse")).valid.all()
    else:
        # A hundredth of a pixel moves some of these numbers, which differ by thousands from one to the next.
        assert (values[2:-2, 2:-2] != numbers[2:-2, 2:-2]).any()
        with pytest.raises(SceneMismatch, match=r"its pixels lie up to 0\.\d\d pixels off"):
            read_onto(path, settings=GridSettings(tolerance=tolerance, on_mismatch="refuse"))


def test_the_tolerance_holds_for_the_last_pixel_too_when_the_pixel_size_is_slightly_different(tmp_path: Path) -> None:
    numbers = ground(16, 1000, ("B02",))
    wide = Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 1000, 16)
    close = write_raster(tmp_path / "close.tif", numbers, transform=Affine(10.0004, 0, WEST, 0, -10, NORTH))
    far = write_raster(tmp_path / "far.tif", numbers, transform=Affine(10.0006, 0, WEST, 0, -10, NORTH))

    np.testing.assert_array_equal(read_onto(close, wide, REFUSE).values[0], numbers["B02"])
    with pytest.raises(SceneMismatch, match=r"its pixels lie up to 0\.06 pixels off"):
        read_onto(far, wide, REFUSE)


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-3), ("uint16", 0.501), ("int32", 0.501)])
def test_a_scene_between_pixels_is_interpolated(tmp_path: Path, dtype: str, rounding: float) -> None:
    numbers = ground(HEIGHT, WIDTH, ("B02",))["B02"]
    path = write_raster(tmp_path / "a.tif", {"B02": numbers}, dtype=dtype, west=WEST + 2.5, north=NORTH - 4)

    values = read_onto(path).values[0]

    # A pixel of the grid lies 0.25 to the left of the scene's, and 0.4 above.
    n = numbers.astype(float)
    above = 0.25 * n[:-1, :-1] + 0.75 * n[:-1, 1:]
    below = 0.25 * n[1:, :-1] + 0.75 * n[1:, 1:]
    np.testing.assert_allclose(values[1:, 1:], 0.4 * above + 0.6 * below, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"west": WEST + 4}, r"its pixels lie up to 0\.40 pixels off"),
        ({"crs": "EPSG:32633"}, "it is in EPSG:32633"),
        ({"resolution": 30.0}, r"its pixels measure 30, and its corners are 2\d\.\d pixels off"),
        ({"transform": Affine(9.4, 3.4, WEST, 3.4, -9.4, NORTH)}, "it is rotated or mirrored"),
        ({"transform": Affine(-10, 0, WEST + 300, 0, -10, NORTH)}, "it is rotated or mirrored"),
    ],
    ids=["between pixels", "crs", "resolution", "rotated", "mirrored"],
)
def test_what_would_have_to_be_warped_is_refused_in_words_when_that_is_wanted(
    tmp_path: Path, place: dict, told: str
) -> None:
    path = write_raster(tmp_path / "other.tif", ground(32, 32, ("B02",)), **place)
    grid = GRID
    if "crs" in place:  # the place where these coordinates are in the other zone
        x, y = Transformer.from_crs(place["crs"], UTM, always_xy=True).transform(WEST, NORTH)
        grid = Grid(UTM, (10, 0, x, 0, -10, y), WIDTH, HEIGHT)

    with pytest.raises(SceneMismatch, match=rf"other\.tif is not on the grid of here \(30 x 24 px of 10 .*{told}") as e:
        read_onto(path, grid, REFUSE)

    assert "grid.on_mismatch=warp" in str(e.value)
    assert read_onto(path, grid).valid.any()


@pytest.mark.parametrize("on_mismatch", ["refuse", "warp"])
@pytest.mark.parametrize("place", [{"west": WEST + 10_000}, {"north": NORTH - 10_000}, {"crs": "EPSG:32721"}])
def test_a_scene_of_other_ground_is_always_refused(tmp_path: Path, place: dict, on_mismatch: Any) -> None:
    path = write_raster(tmp_path / "other.tif", ground(32, 32, ("B02",)), **place)

    with pytest.raises(SceneMismatch, match=r"other\.tif covers nothing of here"):
        read_onto(path, settings=GridSettings(on_mismatch=on_mismatch))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("on_mismatch", ["refuse", "warp"])
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"crs": None}, "no coordinate reference system"),
        ({"transform": Affine.identity()}, "no geotransform"),
        ({"transform": Affine(10, 0, np.nan, 0, -10, NORTH)}, "no geotransform"),
        ({"crs": 'LOCAL_CS["survey",UNIT["metre",1]]'}, "cannot be brought onto the grid"),
    ],
)
def test_a_scene_without_a_place_is_refused_although_its_location_has_one(
    tmp_path: Path, place: dict, told: str, on_mismatch: Any
) -> None:
    path = write_raster(tmp_path / "other.tif", ground(32, 32, ("B02",)), **place)

    with pytest.raises(SceneMismatch, match=told):
        read_onto(path, settings=GridSettings(on_mismatch=on_mismatch))


def test_a_scene_stored_from_south_to_north_gives_the_north_up_grid_of_the_same_pixels(tmp_path: Path) -> None:
    numbers = ground(HEIGHT, WIDTH, ("B02",))["B02"]
    path = write_raster(tmp_path / "a.tif", **south_up(numbers))

    with open_scene(path, ONE) as reader:
        assert reader.grid == GRID
    np.testing.assert_array_equal(read_scene(path, ONE).values[0], numbers)
    np.testing.assert_array_equal(read_onto(path, settings=REFUSE).values[0], numbers)


def test_a_rotated_scene_defines_no_grid_but_is_warped_onto_one(tmp_path: Path) -> None:
    turned = Affine.translation(WEST - 100, NORTH + 200) @ Affine.rotation(30) @ Affine.scale(10, -10)
    columns, rows = np.meshgrid(np.arange(90) + 0.5, np.arange(90) + 0.5)
    x, y = turned @ (columns, rows)
    path = write_raster(
        tmp_path / "a.tif", {"B02": (5000 + (x - WEST) + 2 * (NORTH - y)).astype(np.float32)}, transform=turned
    )

    with pytest.raises(SceneMismatch, match=r"rotated or mirrored.*set `locations"):
        read_scene(path, ONE)
    pixels = read_onto(path)

    across, down = np.meshgrid(np.arange(WIDTH) * 10 + 5, np.arange(HEIGHT) * 10 + 5)
    assert pixels.valid.mean() > 0.5
    inside = pixels.valid & np.isfinite(shift(pixels.values[0], 1, cval=np.nan, order=0))
    np.testing.assert_allclose(pixels.values[0][inside], (5000 + across + 2 * down)[inside], atol=15)
    np.testing.assert_allclose(np.median((pixels.values[0] - 5000 - across - 2 * down)[inside]), 0, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(by=st.tuples(st.integers(-8, 8), st.integers(-8, 8)), offset=st.tuples(st.integers(-5, 5), st.integers(-5, 5)))
def test_a_shift_by_whole_pixels_moves_a_scene_down_and_to_the_right(
    tmp_path_factory: pytest.TempPathFactory, by: tuple[int, int], offset: tuple[int, int]
) -> None:
    numbers = ground(HEIGHT, WIDTH, ("B02",))["B02"]
    path = write_raster(
        tmp_path_factory.mktemp("shift") / "a.tif",
        {"B02": numbers},
        west=WEST + 10 * offset[1],
        north=NORTH - 10 * offset[0],
    )

    values = read_onto(path, settings=REFUSE, shift=by).values[0]

    np.testing.assert_array_equal(values, moved(numbers, by[0] + offset[0], by[1] + offset[1]))


@pytest.mark.parametrize("off", [(3, -2), (-1.4, 2.3)])
def test_the_shift_that_registration_finds_puts_a_scene_onto_its_reference(tmp_path: Path, off: Any) -> None:
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(96, 96)), 3, mode="wrap") * 20_000 + 5000
    there = shift(smooth, off, order=5, mode="grid-wrap")  # the same ground, further down and to the right
    grid = Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 96, 96)
    path = write_raster(tmp_path / "a.tif", {"B02": there}, dtype="float32")
    inner = np.s_[8:-8, 8:-8]

    found = phase_cross_correlation(smooth, there, upsample_factor=50, normalization=None)[0]
    before, after = (read_onto(path, grid, REFUSE, shift=by).values[0] for by in ((0.0, 0.0), tuple(found)))

    np.testing.assert_allclose(found, [-off[0], -off[1]], atol=0.05)
    assert np.abs(after - smooth)[inner].mean() < 0.05 * np.abs(before - smooth)[inner].mean()


def test_a_shift_moves_bands_of_every_resolution_and_classes_alike(tmp_path: Path) -> None:
    numbers = ground(HEIGHT, WIDTH, ("B02",))["B02"]
    coarse = np.add.outer(np.arange(12.0), np.arange(15.0)).astype(np.float32)
    scene = scene_of(
        {
            "B02": write_raster(tmp_path / "B02.tif", {"B02": numbers}),
            "B05": write_raster(tmp_path / "B05.tif", {"B05": coarse}, resolution=20),
        }
    )
    both = source_settings(("B02", "B05"))

    plain, down = (read_scene(scene, both, grid=REFUSE, location_grid=GRID, shift=by).values for by in ((0, 0), (4, 6)))

    np.testing.assert_array_equal(down[:, 4:, 6:], plain[:, :-4, :-6])
    assert np.isnan(down[:, :4]).all()


def test_a_shift_is_in_pixels_of_the_grid_whatever_the_crs_of_the_scene(tmp_path: Path) -> None:
    west, north = Transformer.from_crs(UTM, 4326, always_xy=True).transform(WEST - 200, NORTH + 200)
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(120, 120)), 3) * 20_000 + 5000
    path = write_raster(
        tmp_path / "a.tif", {"B02": smooth}, dtype="float32", crs="EPSG:4326", west=west, north=north, resolution=1e-4
    )

    plain, there = (read_onto(path, shift=by).values[0] for by in ((0, 0), (4, -6)))

    np.testing.assert_allclose(there[4:, :-6], plain[:-4, 6:], atol=1)
    assert np.abs(there - plain).mean() > 100


def degrees(west: float, north: float, side: int = 40, step: float = 1e-3) -> Grid:
    return Grid("EPSG:4326", (step, 0, west, 0, -step, north), side, side)


@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_a_scene_in_degrees_is_the_same_a_turn_round_the_earth_further(tmp_path: Path, turns: int) -> None:
    numbers = ground(40, 40, ("B02",))
    path = write_raster(
        tmp_path / "a.tif", numbers, crs="EPSG:4326", resolution=1e-3, west=179.98 + 360 * turns, north=60
    )

    np.testing.assert_array_equal(read_onto(path, degrees(179.98, 60), REFUSE).values[0], numbers["B02"])


@pytest.mark.parametrize("west", [179.98, -180.02])
@pytest.mark.parametrize("zone", ["EPSG:32601", "EPSG:32660"])
def test_a_scene_across_the_180th_meridian_is_warped_both_ways(tmp_path: Path, west: float, zone: str) -> None:
    """A plane of 1 a metre to the south is still one: all of it has data, and numbers rise with latitude."""
    grid = degrees(west, 60)
    to_zone = Transformer.from_crs(4326, zone, always_xy=True)
    middle = to_zone.transform(west + 0.02, 59.98)
    x0, y0 = middle[0] - 4000, middle[1] + 4000
    x, y = x0 + 20 * (np.arange(400) + 0.5), y0 - 20 * (np.arange(400) + 0.5)
    _, lat = Transformer.from_crs(zone, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    there = {"B02": ((60 - lat) * 1e5).astype(np.float32)}
    projected = write_raster(tmp_path / "zone.tif", there, crs=zone, resolution=20, west=x0, north=y0)

    pixels = read_onto(projected, grid)

    expected = (60 - (60 - 1e-3 * (np.arange(40) + 0.5))) * 1e5
    assert pixels.valid.all()
    np.testing.assert_allclose(pixels.values[0], expected[:, None] * np.ones(40), atol=1)

    in_degrees = write_raster(
        tmp_path / "degrees.tif", {"B02": pixels.values[0]}, crs="EPSG:4326", resolution=1e-3, west=west, north=60
    )
    part = Grid(zone, (20, 0, middle[0] - 400, 0, -20, middle[1] + 400), 40, 40)
    again = read_onto(in_degrees, part)

    assert again.valid.all()
    np.testing.assert_allclose(again.values[0], there["B02"][180:220, 180:220], atol=1)


def test_a_raster_of_the_whole_earth_has_no_seam_where_its_ends_meet(tmp_path: Path) -> None:
    south = 0.05 * (np.arange(3600) + 0.5)
    path = write_raster(
        tmp_path / "a.tif",
        {"B02": (south * 1000)[:, None] * np.ones(7200)},
        dtype="float32",
        crs="EPSG:4326",
        transform=Affine(0.05, 0, -180, 0, -0.05, 90),
        compress="zstd",
    )
    grid = Grid("EPSG:32601", (500, 0, 100_000, 0, -500, 6_600_000), 600, 100)
    x, y = grid.affine @ np.meshgrid(np.arange(600) + 0.5, np.arange(100) + 0.5)
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)

    pixels = read_onto(path, grid)

    assert lon.min() < -179.9
    assert lon.max() > 179.9
    assert pixels.valid.all()
    np.testing.assert_allclose(pixels.values[0], (90 - lat) * 1000, atol=1)


def test_a_scene_around_a_pole_is_warped_from_degrees(tmp_path: Path) -> None:
    """The lines of a raster of the whole circle of longitudes meet at the pole."""
    lat = 90 - 0.01 * (np.arange(100) + 0.5)
    path = write_raster(
        tmp_path / "a.tif",
        {"B02": ((90 - lat) * 1e4)[:, None] * np.ones(3600)},
        dtype="float32",
        crs="EPSG:4326",
        transform=Affine(0.1, 0, -180, 0, -0.01, 90),
    )
    grid = Grid("EPSG:3995", (1000, 0, -20_000, 0, -1000, 20_000), 40, 40)

    pixels = read_onto(path, grid)

    metres = np.hypot(*np.meshgrid(np.arange(-19.5, 20) * 1000, np.arange(-19.5, 20) * 1000))
    _, expected = Transformer.from_crs(3995, 4326, always_xy=True).transform(metres, np.zeros_like(metres))
    assert pixels.valid.mean() > 0.98
    np.testing.assert_allclose(pixels.values[0][pixels.valid], ((90 - expected) * 1e4)[pixels.valid], atol=40)

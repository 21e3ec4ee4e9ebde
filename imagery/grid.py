"""The fixed pixel grid of a location, and the tiles that cover it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.windows import Window

from configs.schema import Area
from imagery.errors import SceneMismatch
from imagery.footprints import outlines

TileTable = dict[str, NDArray[np.int64]]  # row_off, col_off, height, width

OFFSETS = re.compile(r"-r(?P<row>\d{5,9})-c(?P<column>\d{5,9})", re.ASCII)  # what follows the location in a `tile_id`
TRUE_TO_SCALE = 0.05  # relative error of lengths up to which a projection is taken at its word


@dataclass(frozen=True)
class Tile:
    """A window of a location's grid, in pixels. Same `tile_id`, same ground, every night."""

    row_off: int
    col_off: int
    height: int
    width: int

    @property
    def window(self) -> Window:
        """The pixels it covers."""
        return Window(self.col_off, self.row_off, self.width, self.height)

    def tile_id(self, location: str) -> str:
        """`<location>-r<row>-c<column>`, in pixels of the location's grid."""
        return tile_ids(location, [self.row_off], [self.col_off])[0]


def tile_ids(location: str, rows: ArrayLike, columns: ArrayLike) -> list[str]:
    """The `tile_id` of many tiles, by their `row_off` and `col_off`."""
    offsets = zip(np.asarray(rows).tolist(), np.asarray(columns).tolist(), strict=True)
    return [f"{location}-r{row:05d}-c{column:05d}" for row, column in offsets]


@dataclass(frozen=True)
class Grid:
    """A north-up pixel grid.

    Attributes:
        crs: Coordinate reference system, as an authority code or WKT.
        transform: Affine transform of pixel (column, row) to coordinates: (a, b, c, d, e, f).
        width: Columns.
        height: Rows.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int

    @property
    def affine(self) -> Affine:
        """The transform as rasterio wants it."""
        return Affine(*self.transform)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in units of the CRS."""
        left, top = self.affine @ (0, 0)
        right, bottom = self.affine @ (self.width, self.height)
        return left, bottom, right, top

    @property
    def resolution(self) -> float:
        """Pixel width in units of the CRS."""
        return self.transform[0]

    @property
    def pixel_metres(self) -> tuple[float, float]:
        """(height, width) in metres of a pixel in the middle of the grid.

        Measured on the ground; of a projection that is true to scale there, to 5 %, by its own units.

        Raises:
            SceneMismatch: The middle of the grid is no place on Earth.
        """
        crs, (a, _, c, _, e, f) = CRS.from_string(self.crs), self.transform
        x, y = c + a * self.width / 2, f + e * self.height / 2
        to_degrees = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform([x, x, x - a / 2, x + a / 2], [y - e / 2, y + e / 2, y, y])
        if not np.isfinite([*lon, *lat]).all():
            raise SceneMismatch(f"the middle of the grid, {x:.10g}, {y:.10g} in {self.crs}, is no place on Earth")
        _, _, metres = Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
        if crs.is_projected:
            told = np.array([-e, a]) * float(crs.linear_units_factor[1])
            if (abs(metres / told - 1) <= TRUE_TO_SCALE).all():
                metres = told
        return float(metres[0]), float(metres[1])

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Grid:
        """From the dictionary `dataclasses.asdict` makes, read back from JSON."""
        a, b, c, d, e, f = record["transform"]
        return cls(record["crs"], (a, b, c, d, e, f), record["width"], record["height"])

    @classmethod
    def of_area(cls, area: Area) -> Grid:
        """The grid that settings give a location.

        Raises:
            SceneMismatch: A coordinate reference system that is unknown, or has no place on Earth.
        """
        try:
            code = _code(CRS.from_user_input(area.crs))
        except CRSError as error:
            raise SceneMismatch(f"{area.crs!r} is no coordinate reference system: {error}") from None
        if not _on_earth(code):
            raise SceneMismatch(f"the coordinate reference system {area.crs!r} has no place on Earth")
        left, bottom, right, top = area.bounds
        size = area.resolution
        return cls(code, (size, 0.0, left, 0.0, -size, top), round((right - left) / size), round((top - bottom) / size))

    def tiles(self, size: int, stride: int | None = None) -> list[Tile]:
        """Tiles of `size` pixels that cover the grid, row by row, one each `stride` pixels; see `tile_table`."""
        return [Tile(*window) for window in _windows(self.tile_table(size, stride)).tolist()]

    def tile_table(self, size: int, stride: int | None = None) -> TileTable:
        """The windows of all tiles, in the order of `tiles`.

        Tiles begin at multiples of the stride and are clipped at the far edges. No tile lies within another one: where
        tiles overlap, the last one of a row is the first that reaches the edge.

        Args:
            size: Side of a tile, pixels.
            stride: From one tile to the next, pixels; None is `size`: each pixel lies in one tile.

        Returns:
            `row_off`, `col_off`, `height`, `width` as (N,) integers.

        Raises:
            ValueError: A stride that leaves gaps.
        """
        tops, lefts = _starts(self.height, size, stride), _starts(self.width, size, stride)
        rows, columns = np.repeat(tops, len(lefts)), np.tile(lefts, len(tops))
        heights, widths = np.minimum(size, self.height - rows), np.minimum(size, self.width - columns)
        return {"row_off": rows, "col_off": columns, "height": heights, "width": widths}

    def named_tile(self, tile_id: str, location: str, size: int) -> Tile | None:
        """The tile of so many pixels that a `tile_id` names; None when it names none of this grid and location."""
        found = OFFSETS.fullmatch(tile_id.removeprefix(location)) if tile_id.startswith(location) else None
        if found is None:
            return None
        row, column = int(found["row"]), int(found["column"])
        if row >= self.height or column >= self.width:
            return None
        return Tile(row, column, min(size, self.height - row), min(size, self.width - column))

    def strips(self, size: int, stride: int | None = None) -> Iterator[list[Tile]]:
        """Rows of tiles, top to bottom: what is read at once. Strips overlap as tiles do."""
        columns = len(_starts(self.width, size, stride))
        tiles = self.tiles(size, stride)
        for first in range(0, len(tiles), columns):
            yield tiles[first : first + columns]

    def strip_window(self, strip: list[Tile]) -> Window:
        """The window of a row of tiles, over the whole width."""
        return Window(0, strip[0].row_off, self.width, strip[0].height)

    def footprints(self, tiles: list[Tile] | TileTable) -> gpd.GeoSeries:
        """Outlines of tiles in EPSG:4326 (longitude, latitude), in the order given; see `imagery.footprints`."""
        boxes = self.boxes(_windows(tiles))
        return gpd.GeoSeries(outlines(boxes, self.crs, min(self.transform[0], -self.transform[4])), crs="EPSG:4326")

    def boxes(self, windows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 4) left, bottom, right, top in units of the CRS of windows (N, 4): row_off, col_off, height, width."""
        row, column, height, width = windows.T
        a, _, c, _, e, f = self.transform
        return np.stack([c + a * column, f + e * (row + height), c + a * (column + width), f + e * row], axis=1)


def _windows(tiles: list[Tile] | TileTable) -> NDArray[np.int64]:
    """(N, 4): row_off, col_off, height, width."""
    if isinstance(tiles, dict):
        return np.stack([tiles[name] for name in ("row_off", "col_off", "height", "width")], axis=1)
    return np.array([(tile.row_off, tile.col_off, tile.height, tile.width) for tile in tiles], int).reshape(-1, 4)


def _starts(length: int, size: int, stride: int | None) -> NDArray[np.int64]:
    """Where tiles begin along one side of the grid."""
    step = stride or size
    if not 0 < step <= size:
        raise ValueError(f"tiles of {size} pixels every {step} pixels leave gaps: use a stride of 1 to {size}")
    return np.arange(0, max(1, length - size + step), step)


def grid_of(crs: CRS | None, transform: Affine, width: int, height: int, resolution: float | None, name: str) -> Grid:
    """The grid of a raster, at its own or another resolution.

    Args:
        crs: The raster's CRS.
        transform: The raster's geotransform.
        width: Columns of the raster.
        height: Rows of the raster.
        resolution: Pixel size wanted, in units of the CRS; None keeps the raster's own.
        name: The file, for messages.

    Raises:
        SceneMismatch: No CRS, or a geotransform that is absent, rotated or mirrored. One that is south-up gives the
            north-up grid of the same pixels.
    """
    if crs is None:
        raise SceneMismatch(f"{name} has no coordinate reference system: add it with `gdal_edit.py -a_srs EPSG:… FILE`")
    if transform.is_identity:
        raise SceneMismatch(f"{name} has no geotransform: give it a place first with `gdal_edit.py` or `gdalwarp`")
    if transform.b or transform.d or transform.a <= 0 or transform.e == 0:
        raise SceneMismatch(
            f"{name} is rotated or mirrored (geotransform {tuple(transform)[:6]}), so it cannot define the grid of its "
            "location: set `locations.<name>`, onto which it is then warped, or warp it first with `gdalwarp`"
        )
    if transform.e > 0:  # stored from south to north
        transform = Affine(transform.a, 0, transform.c, 0, -transform.e, transform.f + height * transform.e)
    if resolution is not None:
        columns, rows = width * transform.a / resolution, height * -transform.e / resolution
        width, height = max(1, round(columns)), max(1, round(rows))
        transform = Affine(resolution, 0, transform.c, 0, -resolution, transform.f)
    code = _code(crs)
    if not _on_earth(code):
        raise SceneMismatch(f"{name} has a coordinate reference system that has no place on Earth: {crs.to_wkt()[:80]}")
    a, b, c, d, e, f = tuple(transform)[:6]
    return Grid(code, (a, b, c, d, e, f), width, height)


def _code(crs: CRS) -> str:
    """An EPSG code where there is one that says exactly the same, else WKT."""
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg is not None and CRS.from_epsg(epsg) == crs else crs.to_wkt()


@lru_cache(maxsize=64)
def _on_earth(code: str) -> bool:
    try:
        Transformer.from_crs(code, "EPSG:4326")
    except ProjError:
        return False
    return True

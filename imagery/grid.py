"""The fixed pixel grid of a location, and the tiles that cover it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import geopandas as gpd
import numpy as np
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely import Polygon, polygons

from imagery.errors import SceneMismatch


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
        return f"{location}-r{self.row_off:05d}-c{self.col_off:05d}"


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

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Grid:
        """From the dictionary `dataclasses.asdict` makes, read back from JSON."""
        a, b, c, d, e, f = record["transform"]
        return cls(record["crs"], (a, b, c, d, e, f), record["width"], record["height"])

    def tiles(self, size: int) -> list[Tile]:
        """Tiles of `size` pixels that cover the grid once, row by row; those at the far edges may be smaller."""
        return [tile for strip in self.strips(size) for tile in strip]

    def strips(self, size: int) -> Iterator[list[Tile]]:
        """Rows of tiles, top to bottom: what is read at once."""
        for row in range(0, self.height, size):
            height = min(size, self.height - row)
            yield [Tile(row, col, height, min(size, self.width - col)) for col in range(0, self.width, size)]

    def strip_window(self, strip: list[Tile]) -> Window:
        """The window of a row of tiles, over the whole width."""
        return Window(0, strip[0].row_off, self.width, strip[0].height)

    def footprints(self, tiles: list[Tile]) -> gpd.GeoSeries:
        """Outlines of tiles in EPSG:4326 (longitude, latitude), in the order given."""
        corners = np.array([_corners(tile) for tile in tiles], dtype=float).reshape(-1, 4, 2)
        a, _, c, _, e, f = self.transform
        corners = corners * (a, e) + (c, f)
        outlines: list[Polygon] = list(polygons(corners))
        return gpd.GeoSeries(outlines, crs=self.crs).to_crs("EPSG:4326")


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
        SceneMismatch: No CRS, or a geotransform that is absent, rotated or south-up.
    """
    if crs is None:
        raise SceneMismatch(f"{name} has no coordinate reference system: add it with `gdal_edit.py -a_srs EPSG:… FILE`")
    if transform.is_identity or transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise SceneMismatch(
            f"{name} is not a north-up raster (geotransform {tuple(transform)[:6]}): warp it first with `gdalwarp`"
        )
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


def _corners(tile: Tile) -> list[tuple[int, int]]:
    left, top = tile.col_off, tile.row_off
    right, bottom = left + tile.width, top + tile.height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]

"""Truth that somebody else made, on the grid of a location: a raster of numbers, or polygons.

Numbers above 0 are events; 0 is none; what a raster does not hold is unknown. Files are opened as scenes are: by a
named driver, with the same guards, on their location's grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.features import rasterize
from rasterio.windows import Window

from configs.schema import GridSettings, MaskSettings, SourceSettings
from configs.workspace import as_utc
from imagery.errors import ImageryError
from imagery.grid import Grid
from imagery.opening import open_bands
from imagery.placed import PlacedBand
from imagery.placement import place_bands
from imagery.sources.scene import Scene, SceneFile

# Gives (H, W) numbers of a window of the grid, and (H, W) where they are known.
Reader = Callable[[Window], tuple[NDArray[np.int64], NDArray[np.bool_]]]

POLYGON_FILES = (".geojson", ".json", ".gpkg", ".parquet", ".geoparquet")
RASTER_FILES = (".tif", ".tiff", ".jp2", ".j2k")
DEGREES = "EPSG:4326"
TIMES = ("date", "start", "end")
GEOPACKAGE = (b"GPKG", b"GP10", b"GP11")  # a GeoPackage's application id, at byte 68 of an SQLite file


class TruthError(ImageryError):
    """Truth that cannot be read, or that says nothing of what was scored."""


@contextmanager
def open_mask(path: Path, grid: Grid, location: str, settings: GridSettings) -> Iterator[Reader]:
    """Open a raster of truth on the grid of a location; other pixels are taken by nearest neighbour, as classes are.

    Args:
        path: GeoTIFF or JPEG 2000 with one band: 0 is no event, any greater number is one.
        grid: The grid of its location.
        location: Its name, for messages.
        settings: How far pixels may lie off the grid, and whether others are warped.

    Yields:
        What reads a window of the grid.

    Raises:
        ImageryError: It cannot be read, covers nothing of the location, or says that 0 means "no data".
    """
    with _open(path, grid, location, settings) as band:
        if band.band.dataset.count - (band.band.alpha is not None) != 1:
            raise TruthError(f"{path} has {band.band.dataset.count} bands: a mask of events has one")
        if band.band.dataset.nodatavals[0] == 0:
            raise TruthError(
                f'{path} declares 0 as nodata, so nothing in it says "no event": if 0 does, remove the declaration '
                "with `gdal_edit.py -unsetnodata FILE`, else use another number for it"
            )

        def read(window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
            stored, there = band.read(window)
            known = np.ones(stored.shape, dtype=bool) if there is None else there
            numbers = np.where(known, stored, 0)
            if (numbers < 0).any() or (numbers != np.floor(numbers)).any():
                raise TruthError(
                    f"{path} holds {numbers[(numbers < 0) | (numbers != np.floor(numbers))][0]:g}: a mask of events "
                    "holds whole numbers, 0 for none"
                )
            return numbers.astype(np.int64), known

        yield read


@contextmanager
def open_heatmap(path: Path, grid: Grid, location: str) -> Iterator[Callable[[Window], NDArray[np.float32]]]:
    """Open the heatmap of a scored scene.

    Args:
        path: The GeoTIFF.
        grid: The grid of its location.
        location: Its name, for messages.

    Yields:
        What gives (H, W) float32 of a window of the grid, NaN for no score.

    Raises:
        ImageryError: It cannot be read, or lies on another grid than the location's.
    """
    with _open(path, grid, location, GridSettings(on_mismatch="refuse")) as band:

        def read(window: Window) -> NDArray[np.float32]:
            stored, there = band.read(window)
            return stored if there is None else np.where(there, stored, np.float32(np.nan))

        yield read


def read_polygons(path: Path) -> gpd.GeoDataFrame:
    """Read the outlines of events.

    Args:
        path: GeoJSON (RFC 7946), GeoPackage with one layer, or GeoParquet. Columns that count, all optional:
            `location`; `date` (that day alone), or `start` and `end` (first and last day); `kind`.

    Returns:
        Polygons in their own CRS, with the columns `location`, `kind` (text, "" where it is not said), `start` and
        `end` (date, NaT where it is open).

    Raises:
        TruthError: No such file, no polygon in it, no CRS, or a date that is none.
    """
    if not path.is_file():
        raise TruthError(f"there is no {path}")
    shapes = _read_vector(path)
    if not len(shapes):
        raise TruthError(f"{path} holds no polygon")
    if shapes.crs is None:
        raise TruthError(f"{path} has no coordinate reference system: give it one, e.g. with `ogr2ogr -a_srs EPSG:…`")
    other = ~shapes.geometry.geom_type.isin(["Polygon", "MultiPolygon"]) | shapes.geometry.is_empty
    if other.any():
        number = int(np.flatnonzero(other)[0])
        found = "nothing" if shapes.geometry.iloc[number] is None else shapes.geometry.iloc[number].geom_type
        raise TruthError(f"feature {number + 1} of {path} is {found}: events are outlined by polygons; buffer it first")
    return _with_times(shapes, path)


def polygon_reader(shapes: gpd.GeoDataFrame, grid: Grid) -> Reader | None:
    """What reads polygons as a raster: number n + 1 where the middle of a pixel lies in the n-th of them.

    Args:
        shapes: Polygons, in any CRS.
        grid: The grid of the location.

    Returns:
        None when no polygon touches the grid. All pixels are known.

    Raises:
        TruthError: The polygons cannot be brought to the grid's CRS.
    """
    projected = shapes.geometry.to_crs(grid.crs).to_numpy()
    bounds = shapely.bounds(projected)
    if not np.isfinite(bounds).all():
        raise TruthError(
            f"polygon {int(np.flatnonzero(~np.isfinite(bounds).all(axis=1))[0]) + 1} has corners that are no place in "
            f"{grid.crs[:80]}: check the coordinate reference system it is given in"
        )
    if not shapely.intersects(projected, shapely.box(*grid.bounds)).any():
        return None

    def read(window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        shape = (int(window.height), int(window.width))
        left, bottom, right, top = grid.boxes(np.array([[window.row_off, window.col_off, *shape]]))[0]
        near = (bounds[:, 0] < right) & (bounds[:, 2] > left) & (bounds[:, 1] < top) & (bounds[:, 3] > bottom)
        burned = [(projected[number], int(number) + 1) for number in np.flatnonzero(near)]
        transform = grid.affine @ grid.affine.translation(window.col_off, window.row_off)
        known = np.ones(shape, dtype=bool)
        if not burned:
            return np.zeros(shape, dtype=np.int64), known
        return rasterize(burned, shape, fill=0, transform=transform, dtype="int32").astype(np.int64), known

    return read


@contextmanager
def _open(path: Path, grid: Grid, location: str, settings: GridSettings) -> Iterator[PlacedBand]:
    """The first band of a raster on a grid, read as classes: never interpolated."""
    if not path.is_file():
        raise TruthError(f"there is no {path}")
    name = path.name
    with ExitStack() as stack:
        scene = Scene(location, as_utc(pd.Timestamp(0).date()), (SceneFile(name, str(path)),))
        bands = open_bands(scene, SourceSettings(location=location, bands=(name,), scale=1.0), [name], stack)
        yield place_bands(bands, grid, settings, MaskSettings(class_band=name), location)[name]


def _read_vector(path: Path) -> gpd.GeoDataFrame:
    """By its ending, without GDAL's guess at what the file is: that could be a format that points elsewhere."""
    ending = path.suffix.lower()
    try:
        if ending in (".parquet", ".geoparquet"):
            return gpd.read_parquet(path)
        if ending in (".geojson", ".json"):
            return _read_geojson(path)
        if ending == ".gpkg":
            return _read_geopackage(path)
    except (ValueError, KeyError, TypeError, CRSError, DataSourceError) as error:
        if isinstance(error, ImageryError):
            raise
        raise TruthError(f"{path} cannot be read as polygons: {error}") from None
    raise TruthError(f"{path} is none of {', '.join(POLYGON_FILES)}: write the polygons as one of these")


def _read_geojson(path: Path) -> gpd.GeoDataFrame:
    """Longitude and latitude, or what the old member `crs` (GeoJSON 2008) says."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("features"), list):
        raise TruthError(f"{path} is no GeoJSON FeatureCollection")
    crs = CRS.from_user_input(content["crs"]["properties"]["name"]) if content.get("crs") else DEGREES
    return gpd.GeoDataFrame.from_features(content["features"], crs=crs) if content["features"] else gpd.GeoDataFrame()


def _read_geopackage(path: Path) -> gpd.GeoDataFrame:
    with path.open("rb") as file:
        head = file.read(72)
    if not head.startswith(b"SQLite format 3\0") or head[68:72] not in GEOPACKAGE:
        raise TruthError(f"{path} is no GeoPackage")
    layers = gpd.list_layers(path)
    if len(layers) != 1:
        raise TruthError(f"{path} has {len(layers)} layers ({', '.join(layers['name'])}): the events belong in one")
    return gpd.read_file(path)


def _with_times(shapes: gpd.GeoDataFrame, path: Path) -> gpd.GeoDataFrame:
    """The columns that count, with one meaning."""
    columns = {name: shapes[name] for name in shapes.columns if name in TIMES}
    if "date" in columns and len(columns) > 1:
        raise TruthError(
            f"{path} has the column date and {', '.join(columns.keys() - {'date'})}: which of them counts?"
        )
    days = {name: as_days(values, name, path) for name, values in columns.items()}
    never = pd.Series(pd.NaT, index=shapes.index, dtype="datetime64[us]")
    start, end = days.get("start", days.get("date", never)), days.get("end", days.get("date", never))
    if (start > end).any():
        number = int(np.flatnonzero(start > end)[0])
        raise TruthError(f"feature {number + 1} of {path} ends on {end.iloc[number].date()}, before it starts")
    texts = {name: as_texts(shapes, name) for name in ("location", "kind")}
    frame = pd.DataFrame({**texts, "start": start, "end": end})
    return gpd.GeoDataFrame(frame, geometry=shapes.geometry, crs=shapes.crs)


def as_texts(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column as text, "" where it is empty or not there."""
    if name not in frame:
        return pd.Series("", index=frame.index, dtype="str")
    return frame[name].astype("str").where(frame[name].notna(), "")


def as_days(values: pd.Series, name: str, path: Path) -> pd.Series:
    """A column as UTC dates at midnight (without zone), NaT where it is empty.

    Raises:
        TruthError: A value that is no date.
    """
    empty = values.isna() | (values.astype("str").str.strip() == "")
    text = values.map(str, na_action="ignore").where(~empty)
    found = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
    wrong = found.isna() & ~empty
    if wrong.any():
        raise TruthError(f"{path} has {values[wrong].iloc[0]!r} in column {name}: dates are written YYYY-MM-DD")
    return found.dt.tz_localize(None).dt.normalize().astype("datetime64[us]")

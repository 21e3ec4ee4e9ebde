"""Small rasters, made when a test needs them: what varies is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from configs import Settings
from configs.schema import GridSettings, MaskSettings, SourceSettings
from imagery.grid import Grid
from imagery.reading import Pixels, SceneReader
from imagery.sources import Scene, SceneFile

UTM = "EPSG:32634"
WEST, NORTH = 500_000.0, 5_200_000.0
BANDS = ("B02", "B03", "B04", "B08")
DAY = datetime(2020, 6, 1, tzinfo=UTC)

Nodata = Literal["none", "declared", "zero", "nan", "alpha", "mask"]


def ground(height: int = 32, width: int = 32, bands: Sequence[str] = BANDS, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Stored numbers of some ground, by band: (H, W) uint16 between 500 and 4000, never 0."""
    draw = np.random.default_rng(seed)
    return {band: draw.integers(500, 4000, (height, width), dtype=np.uint16) for band in bands}


def write_raster(
    path: Path,
    bands: Mapping[str, NDArray[Any]],
    *,
    dtype: str | None = None,
    crs: str | None = UTM,
    west: float = WEST,
    north: float = NORTH,
    resolution: float = 10.0,
    transform: Affine | None = None,
    missing: NDArray[np.bool_] | None = None,
    nodata: Nodata = "none",
    nodata_value: float = 0,
    described: bool = True,
    classes: NDArray[Any] | None = None,
    driver: str = "GTiff",
    interleave: Literal["band", "pixel"] | None = None,
    compress: str | None = None,
    block: int | None = None,
    scale: float | None = None,
    offset: float | None = None,
    **creation: Any,
) -> Path:
    """Write a small raster.

    Args:
        path: The file; missing folders are made.
        bands: (H, W) stored numbers by band name, in the order they get in the file.
        dtype: Type of the numbers; by default that of the first band.
        crs: Coordinate reference system; None leaves it out.
        west, north: Upper left corner in units of the CRS.
        resolution: Pixel size in units of the CRS.
        transform: A geotransform of another kind, in place of the last three.
        missing: (H, W) bool, True where there is no data.
        nodata: How the file says so: not at all, by a declared value, by zeros that it does not declare, by NaN, by an
            alpha band, or by an internal mask.
        nodata_value: The declared value.
        described: Whether the bands have descriptions.
        classes: (H, W) scene classification, added as a last band SCL.
        driver: GTiff or JP2OpenJPEG.
        interleave: Band after band, or pixel after pixel; None leaves it to GDAL, and so on.
        compress: How blocks are compressed, e.g. "zstd".
        block: Side of square blocks, pixels: a multiple of 16. Without it, blocks are some rows.
        scale, offset: What the file declares of its numbers.
        creation: Other creation options, e.g. `blockysize=4`, `quality=100`.
    """
    stored = {name: np.array(values, dtype=dtype) for name, values in bands.items()}
    if missing is not None and nodata in ("declared", "zero", "nan"):
        fill = {"declared": nodata_value, "zero": 0, "nan": np.nan}[nodata]
        for values in stored.values():
            values[missing] = fill
    if classes is not None:
        stored["SCL"] = classes.astype(next(iter(stored.values())).dtype)
    layout = {"interleave": interleave, "compress": compress}
    creation |= {name: value for name, value in layout.items() if value is not None}
    if block is not None:
        creation |= {"tiled": True, "blockxsize": block, "blockysize": block}
    first = next(iter(stored.values()))
    count = len(stored) + (nodata == "alpha")
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": driver,
        "dtype": first.dtype,
        "count": count,
        "height": first.shape[0],
        "width": first.shape[1],
        "crs": crs,
        "transform": transform or Affine(resolution, 0, west, 0, -resolution, north),
        "nodata": nodata_value if nodata == "declared" else None,
    }
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile, **creation) as dataset,
    ):
        if nodata == "alpha":  # before the first pixel: later, GDAL forgets it in files that are stored band by band
            dataset.colorinterp = (*[ColorInterp.undefined] * (count - 1), ColorInterp.alpha)
        for index, (name, values) in enumerate(stored.items(), start=1):
            dataset.write(values, index)
            if described:
                dataset.set_band_description(index, name)
        if scale is not None or offset is not None:
            dataset.scales = [1.0 if scale is None else scale] * count
            dataset.offsets = [0.0 if offset is None else offset] * count
        if nodata == "alpha":
            opaque = np.iinfo(first.dtype).max
            dataset.write(np.where(_some(missing, first), 0, opaque).astype(first.dtype), count)
        if nodata == "mask":
            dataset.write_mask(~_some(missing, first))
    return path


def write_sparse(
    path: Path,
    width: int,
    height: int,
    *,
    dtype: str = "uint16",
    resolution: float = 10.0,
    count: int = 1,
    **creation: Any,
) -> Path:
    """A GeoTIFF that declares any size and stores not one pixel: a few kilobytes, whatever it claims.

    Args:
        path: The file; missing folders are made.
        width: Columns that it declares.
        height: Rows that it declares.
        dtype: Type of the numbers.
        resolution: Pixel size in metres.
        count: Number of bands.
        creation: Creation options; without any, in tiles of 512 pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"width": width, "height": height, "count": count, "dtype": dtype}
    place = {"crs": UTM, "transform": Affine(resolution, 0, WEST, 0, -resolution, NORTH)}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(
        path, "w", driver="GTiff", SPARSE_OK=True, BIGTIFF="YES", **size, **place, **(creation or tiles)
    ):
        pass
    return path


def _some(missing: NDArray[np.bool_] | None, like: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(like.shape, bool) if missing is None else missing


def scene_of(files: Path | Mapping[str, Path], location: str = "here", acquired: datetime = DAY) -> Scene:
    """A scene of one file with several bands, or of one file a band."""
    pairs = files.items() if isinstance(files, Mapping) else [("", files)]
    return Scene(location, acquired, tuple(SceneFile(band, str(path)) for band, path in pairs))


def source_settings(bands: Sequence[str] = BANDS, **values: Any) -> SourceSettings:
    """How scenes are read, with stored numbers as physical values unless told otherwise."""
    return SourceSettings(**{"location": "here", "bands": tuple(bands), "scale": 1.0} | values)


def open_scene(
    scene: Scene | Path,
    source: SourceSettings | None = None,
    masks: MaskSettings | None = None,
    grid: GridSettings | None = None,
    location_grid: Grid | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
) -> SceneReader:
    """A scene, or a file that holds all of it, opened."""
    return SceneReader(
        scene_of(scene) if isinstance(scene, Path) else scene,
        source or source_settings(),
        masks or MaskSettings(),
        grid or GridSettings(),
        location_grid,
        shift,
    )


def read_scene(scene: Scene | Path, *arguments: Any, **settings: Any) -> Pixels:
    """All pixels of a scene; for the arguments see `open_scene`."""
    with open_scene(scene, *arguments, **settings) as reader:
        return reader.read(whole(reader.grid))


def whole(grid: Grid) -> Any:
    """The window of a whole grid."""
    return rasterio.windows.Window(0, 0, grid.width, grid.height)


def watch_settings(root: Path, **sections: Mapping[str, Any]) -> Settings:
    """Settings of a small watch: tiles of 16 px, files `<location>/<date>.tif` below a folder.

    Example:
        >>> watch_settings(Path("."), train={"epochs": 2}).train.epochs
        2
    """
    values: dict[str, dict[str, Any]] = {
        "source": {"root": root, "bands": BANDS},
        "grid": {"tile_size": 16},
        "model": {"depth": 2, "width": 8, "latent_channels": 4},
    }
    for section, entries in sections.items():
        values[section] = values.get(section, {}) | dict(entries)
    return Settings.model_validate(values)

"""Opening a scene on its location's grid: bands as physical values, and which pixels count."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from configs.schema import GridSettings, MaskSettings, SourceSettings
from imagery.errors import SceneMismatch, SceneUnreadable
from imagery.grid import Grid, grid_of
from imagery.sources.scene import Scene

# Only these may open anything: an indirect format (VRT, WMS, …) could point at any file or address.
DRIVERS = {".jp2": "JP2OpenJPEG", ".j2k": "JP2OpenJPEG"}
DEFAULT_DRIVER = "GTiff"


@dataclass(frozen=True)
class Pixels:
    """A window of a scene.

    Attributes:
        values: (C, H, W) float32, physical units; NaN where there is no number.
        valid: (H, W) bool, True where the pixel counts: data in every band, and no bad class.
        data: (H, W) bool, True where every band has data, cloudy or not.
        cloud: (H, W) bool, True where the classification says cloud or its shadow.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    data: NDArray[np.bool_]
    cloud: NDArray[np.bool_]


@dataclass(frozen=True)
class _Band:
    """A band of an open dataset, and the index of the alpha band beside it, if there is one."""

    dataset: DatasetReader | WarpedVRT
    index: int
    alpha: int | None


class SceneReader:
    """A scene opened on a grid. A context manager; not shared between threads.

    Args:
        scene: What to open.
        source: Bands, scale and offset.
        masks: What does not count.
        grid: Settings of grids: resolution, and how far a scene may lie off.
        location_grid: The location's grid; None when this scene defines it.

    Raises:
        SceneUnreadable: A file that cannot be opened.
        SceneMismatch: A band is missing, or the scene does not lie on the location's grid.
    """

    def __init__(
        self,
        scene: Scene,
        source: SourceSettings,
        masks: MaskSettings,
        grid: GridSettings,
        location_grid: Grid | None = None,
    ) -> None:
        self.scene, self._source, self._masks = scene, source, masks
        self._stack = ExitStack()
        try:
            wanted = [*source.bands, *([masks.class_band] if masks.class_band else [])]
            opened = self._open(wanted)
            finest = min((opened[band].dataset for band in source.bands), key=lambda dataset: dataset.res[0])
            own = grid_of(finest.crs, finest.transform, finest.width, finest.height, grid.resolution, finest.name)
            self.grid = location_grid or own
            self._bands = {name: self._on_grid(band, name == masks.class_band, grid) for name, band in opened.items()}
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, window: Window) -> Pixels:
        """Read a window of the grid.

        Raises:
            SceneUnreadable: A block that cannot be read, with the file's name.
        """
        shape = (int(window.height), int(window.width))
        values = np.empty((len(self._source.bands), *shape), np.float32)
        data, all_border = np.ones(shape, bool), np.ones(shape, bool)
        for channel, band in enumerate(self._source.bands):
            stored, has_data = self._read_band(band, window)
            values[channel] = stored * np.float32(self._source.scale or 1e-4) + np.float32(self._source.offset or 0)
            values[channel][~has_data] = np.nan
            data &= has_data
            all_border &= stored == self._masks.border
        if self._masks.border is not None:
            data &= ~all_border
        valid, cloud = data.copy(), np.zeros(shape, bool)
        if self._masks.class_band:
            classes, has_class = self._read_band(self._masks.class_band, window)
            valid &= has_class & ~np.isin(classes, self._masks.bad_classes)
            cloud = data & np.isin(classes, self._masks.cloud_classes)
        return Pixels(values, valid, data, cloud)

    def _read_band(self, name: str, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        band = self._bands[name]
        try:
            stored = band.dataset.read(band.index, window=window)
            has_data = band.dataset.read_masks(band.index, window=window) > 0
            if band.alpha is not None:
                has_data &= band.dataset.read(band.alpha, window=window) > 0
        except RasterioError as error:
            raise SceneUnreadable(f"band {name} of {band.dataset.name} cannot be read: {_cause(error)}") from error
        if self._masks.nodata is not None:
            has_data &= stored != self._masks.nodata
        with np.errstate(over="ignore"):  # what is too large for float32 is no number below
            numbers = stored.astype(np.float32, copy=False)
        has_data &= np.isfinite(numbers)
        return numbers, has_data

    def _open(self, wanted: list[str]) -> dict[str, _Band]:
        """The band of each name."""
        bands: dict[str, _Band] = {}
        for file in self.scene.files:
            name, path = file.band, Path(file.path)
            if name and name not in wanted:
                continue
            driver = DRIVERS.get(path.suffix.lower(), DEFAULT_DRIVER)
            try:
                dataset = self._stack.enter_context(rasterio.open(path, driver=driver, sharing=False, num_threads=2))
            except RasterioIOError as error:
                raise SceneUnreadable(f"{path} cannot be opened as {driver}: {_cause(error)}") from None
            if any(np.dtype(kind).kind not in "uif" for kind in dataset.dtypes):
                raise SceneMismatch(f"{path} holds numbers of type {dataset.dtypes[0]}: real numbers are needed")
            if name in bands:
                raise SceneMismatch(
                    f"{self.scene.scene_id} has two files for band {name}, {bands[name].dataset.name} and {path}: make "
                    "source.pattern match only one"
                )
            names = {name: 1} if name else self._band_indices(dataset)
            bands |= {band: _Band(dataset, index, _alpha(dataset)) for band, index in names.items()}
        missing = [band for band in wanted if band not in bands]
        if missing:
            found = ", ".join(sorted(bands)) or "none"
            raise SceneMismatch(
                f"{self.scene.scene_id} has no band {', '.join(missing)} (found: {found}): complete the scene, "
                "or change source.bands"
            )
        return {band: bands[band] for band in wanted}

    def _band_indices(self, dataset: DatasetReader) -> dict[str, int]:
        """Names of a file's bands: its descriptions, or those given in the settings; never guessed from the order."""
        described = [(text, index) for index, text in enumerate(dataset.descriptions, start=1) if text]
        if described:
            names = [text for text, _ in described]
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise SceneMismatch(
                    f"{dataset.name} has several bands named {', '.join(repeated)}: describe them apart"
                )
            return dict(described)
        plain = [i for i, role in zip(dataset.indexes, dataset.colorinterp, strict=True) if role != ColorInterp.alpha]
        given = self._source.band_names
        if given is None:
            raise SceneMismatch(
                f"{dataset.name} has {len(plain)} bands without descriptions: name them with source.band_names"
            )
        if len(given) != len(plain):
            raise SceneMismatch(
                f"{dataset.name} has {len(plain)} bands, source.band_names names {len(given)}: {', '.join(given)}"
            )
        return dict(zip(given, plain, strict=True))

    def _on_grid(self, band: _Band, classes: bool, settings: GridSettings) -> _Band:
        """The band itself where it lies on the grid, else a view of it warped onto the grid."""
        dataset, grid, crs = band.dataset, self.grid, CRS.from_string(self.grid.crs)
        same_crs = dataset.crs == crs
        same_shape = dataset.shape == (grid.height, grid.width)
        if same_crs and same_shape and dataset.transform.almost_equals(grid.affine, 1e-6 * grid.resolution):
            return band
        self._check_fit(dataset, same_crs, settings)
        nodata = self._nodata(dataset)
        try:
            warped = WarpedVRT(
                dataset,
                crs=crs,
                transform=grid.affine,
                width=grid.width,
                height=grid.height,
                resampling=Resampling.nearest if classes else Resampling.bilinear,
                src_nodata=nodata,
                # Without a number for it, where the scene does not reach is told by an alpha band.
                **({"src_alpha": band.alpha, "dst_alpha": band.alpha} if band.alpha else {"add_alpha": nodata is None}),
            )
        except RasterioError as error:
            raise SceneMismatch(
                f"{dataset.name} cannot be brought onto the grid of its location: {_cause(error)}"
            ) from error
        self._stack.enter_context(warped)
        return _Band(warped, band.index, band.alpha or (warped.count if nodata is None else None))

    def _nodata(self, dataset: DatasetReader) -> float | None:
        undeclared = self._masks.nodata if self._masks.nodata is not None else self._masks.border
        return dataset.nodata if dataset.nodata is not None else undeclared

    def _check_fit(self, dataset: DatasetReader, same_crs: bool, settings: GridSettings) -> None:
        """Refuse a scene that covers other ground than its location, and one whose grid may not be changed."""
        if dataset.crs is None:
            raise SceneMismatch(f"{dataset.name} has no coordinate reference system")
        grid = self.grid
        corner = f"{grid.bounds[0]:.10g}, {grid.bounds[3]:.10g} in {grid.crs}"
        location = f"{grid.width} x {grid.height} px of {grid.resolution:g} from {corner}"
        bounds = dataset.bounds if same_crs else transform_bounds(dataset.crs, self.grid.crs, *dataset.bounds)
        coarsest = max(self.grid.resolution, dataset.res[0]) if same_crs else self.grid.resolution
        off = max(abs(a - b) for a, b in zip(bounds, self.grid.bounds, strict=True)) / coarsest
        if settings.on_mismatch == "refuse" and (not same_crs or off > settings.tolerance):
            where = f"its corners are {off:.1f} pixels off" if same_crs else f"it is in {dataset.crs.to_string()}"
            raise SceneMismatch(
                f"{dataset.name} is not on the grid of {self.scene.location} ({location}): {where}. Warp it, or set "
                "grid.on_mismatch=warp"
            )
        left, bottom, right, top = self.grid.bounds
        if bounds[0] >= right or bounds[2] <= left or bounds[1] >= top or bounds[3] <= bottom:
            raise SceneMismatch(f"{dataset.name} covers nothing of {self.scene.location} ({location})")


def _alpha(dataset: DatasetReader) -> int | None:
    """The alpha band. GDAL takes it for a mask by itself only in files of two or four bands."""
    roles = list(dataset.colorinterp)
    return roles.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in roles else None


def _cause(error: Exception) -> str:
    """GDAL's own words, which rasterio keeps as the cause of its error."""
    return str(error.__cause__ or error).strip()

"""Opening a scene on its location's grid: bands as physical values, and which pixels count."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from configs.schema import GridSettings, MaskSettings, SourceSettings
from imagery import masks as masking
from imagery.clouds import BLOCK, CloudModel
from imagery.errors import SceneMismatch
from imagery.grid import Grid, Tile, grid_of
from imagery.guards import check_grid
from imagery.masks import CLOUDY, EMPTY, Cause, Causes
from imagery.opening import open_bands
from imagery.placed import PlacedBand, Stored, differs, read_together
from imagery.placement import place_bands
from imagery.sources.scene import Scene
from imagery.sources.storage import gdal_options, tried_again
from imagery.warping import Shift

PROBE = 64  # rows that are looked at at once for a sign of data


@dataclass(frozen=True)
class Pixels:
    """A window of a scene.

    Attributes:
        values: (C, H, W) float32, physical units; NaN where there is no number.
        causes: (H, W) uint8, why a pixel does not count (`imagery.masks.Cause`); 0 when it does.
    """

    values: NDArray[np.float32]
    causes: Causes

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(H, W) True where the pixel counts: data in every band, and nothing against it."""
        return self.causes == Cause.VALID

    @property
    def data(self) -> NDArray[np.bool_]:
        """(H, W) True where every band has data, cloudy or not."""
        return ~np.isin(self.causes, EMPTY)

    @property
    def cloud(self) -> NDArray[np.bool_]:
        """(H, W) True where cloud or its shadow was masked."""
        return np.isin(self.causes, CLOUDY)

    def without(self, tiles: Sequence[Tile], window: Window) -> Pixels:
        """The same where the pixels of some tiles do not count.

        Args:
            tiles: Windows of the location's grid; those that lie elsewhere change nothing.
            window: The window of the grid that these pixels are of.
        """
        if not tiles:
            return self
        causes = self.causes.copy()
        top, left = int(window.row_off), int(window.col_off)
        for tile in tiles:
            rows = slice(max(tile.row_off - top, 0), max(tile.row_off + tile.height - top, 0))
            columns = slice(max(tile.col_off - left, 0), max(tile.col_off + tile.width - left, 0))
            inside = causes[rows, columns]
            inside[inside == Cause.VALID] = Cause.JUDGED
        return Pixels(self.values, causes)


@dataclass(frozen=True)
class StoredPixels:
    """A window of a scene as its files hold it.

    Attributes:
        bands: (H, W) stored numbers of each band, each in its own type.
        has_data: (H, W) bool of each band; None where it has data everywhere.
        causes: (H, W) uint8, why a pixel does not count; 0 when it does.
    """

    bands: tuple[Stored, ...]
    has_data: tuple[NDArray[np.bool_] | None, ...]
    causes: Causes


class SceneReader:
    """A scene opened on a grid. A context manager; used by the thread that made it.

    Args:
        scene: What to open.
        source: Bands, scale and offset.
        masks: What does not count.
        grid: Settings of grids: resolution, and how far a scene may lie off.
        location_grid: The location's grid; None when this scene defines it.
        shift: (rows, columns) that the scene is moved by before it is brought onto the grid, pixels of the grid,
            positive down and right: what `imagery.registration` found.

    Raises:
        SceneUnreadable: A file that cannot be opened.
        SceneMismatch: A band is missing, or the scene does not fit the location's grid.
    """

    def __init__(
        self,
        scene: Scene,
        source: SourceSettings,
        masks: MaskSettings,
        grid: GridSettings,
        location_grid: Grid | None = None,
        shift: Shift = (0.0, 0.0),
    ) -> None:
        self.scene, self._source, self._masks = scene, source, masks
        self._grid_settings, self._shift = grid, shift
        self._model = CloudModel(masks.cloud_model, source.bands) if masks.cloud_model else None
        self._stack = ExitStack()
        self.grid = tried_again(lambda: self._open(location_grid), scene.remote_files, source)

    def _open(self, location_grid: Grid | None) -> Grid:
        """Open the files, anew when they are open, on the location's grid; without one, on that of the finest band."""
        self._stack.close()
        source, masks, settings = self._source, self._masks, self._grid_settings
        try:
            self._stack.enter_context(rasterio.Env(**(gdal_options(source) if self.scene.remote_files else {})))
            class_bands = [name for name in (masks.class_band, masks.qa_band, masks.cloud_band) if name]
            bands = open_bands(self.scene, source, [*source.bands, *class_bands], self._stack)
            finest = min((bands[name].dataset for name in source.bands), key=lambda dataset: abs(dataset.res[0]))
            grid = location_grid or grid_of(
                finest.crs, finest.transform, finest.width, finest.height, settings.resolution, finest.name
            )
            check_grid(grid, settings, self.scene.scene_id)
            self._bands: dict[str, PlacedBand] = place_bands(
                bands, grid, settings, masks, self.scene.location, self._shift
            )
            if masks.qa_band and self._bands[masks.qa_band].dtype.kind not in "ui":
                raise SceneMismatch(
                    f"masks.qa_band {masks.qa_band} holds {self._bands[masks.qa_band].dtype}: bits are whole numbers"
                )
            self._pixel = grid.pixel_metres if masks.dilate else (1.0, 1.0)
        except BaseException:
            self._stack.close()
            raise
        return grid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def block_rows(self) -> int:
        """Rows of the grid that are best read at once: a block of the files, or of the cloud model."""
        rows = max(self._bands[name].block_rows for name in self._source.bands)
        return max(rows, BLOCK) if self._model else rows

    def has_any_data(self) -> bool:
        """Whether a single pixel has data in every band, cloudy or not; reads no further than to the first one.

        Raises:
            SceneUnreadable: A block that cannot be read, with the file's name.
        """
        rows = [
            Window(0, row, self.grid.width, min(PROBE, self.grid.height - row))
            for row in range(0, self.grid.height, PROBE)
        ]
        return any(not np.isin(self.read_stored(window).causes, EMPTY).all() for window in rows)

    def scaling(self, band: str) -> tuple[float, float]:
        """(scale, offset) of a band: stored number × scale + offset = physical value."""
        return self._bands[band].band.scale, self._bands[band].band.offset

    def read(self, window: Window) -> Pixels:
        """Read a window of the grid.

        Raises:
            SceneUnreadable: A block that cannot be read, with the file's name.
        """
        stored = self.read_stored(window)
        return Pixels(self._physical(stored), stored.causes)

    def read_stored(self, window: Window) -> StoredPixels:
        """Read a window of the grid as it is stored.

        Raises:
            SceneUnreadable: A block that cannot be read, with the file's name.
            SceneUnreachable: The same of a file that lies elsewhere, after it was tried again.
        """
        # GDAL keeps what broke off as long as a file is open.
        return tried_again(
            lambda: self._read_stored(window), self.scene.remote_files, self._source, lambda: self._open(self.grid)
        )

    def _read_stored(self, window: Window) -> StoredPixels:
        stored = self._read_data(window)
        if self._masks.class_band or self._masks.qa_band or self._masks.cloud_band or self._model:
            return StoredPixels(stored.bands, stored.has_data, masking.first(stored.causes, self._unwanted(window)))
        return stored

    def _read_data(self, window: Window) -> StoredPixels:
        """The bands, and where they have no data."""
        bands, has_data = zip(*read_together([self._bands[name] for name in self._source.bands], window), strict=True)
        causes = np.zeros((int(window.height), int(window.width)), np.uint8)
        for present in has_data:
            if present is not None:
                causes |= ~present  # the number of Cause.NODATA
        border = self._masks.border
        if border is not None:
            inner = [one for one in (differs(stored, border) for stored in bands) if one is not None]
            if len(inner) == len(bands):  # else a band cannot even store the number
                causes[~np.logical_or.reduce(inner) & (causes == Cause.VALID)] = Cause.BORDER
        return StoredPixels(bands, has_data, causes)

    def _physical(self, stored: StoredPixels) -> NDArray[np.float32]:
        values = np.empty((len(stored.bands), *stored.causes.shape), np.float32)
        for channel, (name, numbers, has_data) in enumerate(
            zip(self._source.bands, stored.bands, stored.has_data, strict=True)
        ):
            scale, offset = self.scaling(name)
            # Rounded once: in float32, a quarter of all (DN - 1000) / 10 000 would come out one step beside.
            values[channel] = numbers * np.float64(scale) + np.float64(offset)
            if has_data is not None:
                values[channel][~has_data] = np.nan
        return values

    def _unwanted(self, window: Window) -> Causes:
        """Causes other than missing data. Clouds outside the window may reach into it."""
        outer, inner = self._grown(window)
        causes = np.zeros((int(outer.height), int(outer.width)), np.uint8)
        for name, causes_of, when_missing in (
            (self._masks.class_band, masking.of_classes, Cause.CLASS),
            (self._masks.qa_band, masking.of_quality_bits, Cause.NODATA),
            (self._masks.cloud_band, masking.of_cloud, Cause.CLASS),
        ):
            if name:
                numbers, has_data = self._bands[name].read(outer)
                found = causes_of(numbers, self._masks)
                if has_data is not None:
                    found[~has_data] = when_missing
                causes = masking.first(causes, found)
        if self._model:
            causes = masking.first(causes, self._model.causes(outer, self.grid, self._values))
        return masking.dilated(causes, self._masks.dilate, self._pixel)[inner]

    def _values(self, window: Window) -> NDArray[np.float32]:
        return self._physical(self._read_data(window))

    def _grown(self, window: Window) -> tuple[Window, tuple[slice, slice]]:
        """A window with what clouds may be grown by, as far as the grid reaches, and where the window lies in it."""
        above, beside = (ceil(self._masks.dilate / metres) for metres in self._pixel)
        row, col = int(window.row_off), int(window.col_off)
        bottom, right = row + int(window.height), col + int(window.width)
        top, left = max(0, row - above), max(0, col - beside)
        height = min(self.grid.height, bottom + above) - top
        width = min(self.grid.width, right + beside) - left
        inner = slice(row - top, bottom - top), slice(col - left, right - left)
        return Window(left, top, width, height), inner

"""How a scene's bands lie to the grid of its location: at an offset of whole pixels, or on pixels of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from configs.schema import GridSettings, MaskSettings
from imagery.errors import SceneMismatch
from imagery.grid import Grid
from imagery.opening import Band, in_words
from imagery.placed import Offset, PlacedBand
from imagery.warping import Warp, full_turn, warp_onto

Shift = tuple[float, float]
Bounds = tuple[float, float, float, float]


def place_bands(
    bands: Mapping[str, Band],
    grid: Grid,
    settings: GridSettings,
    masks: MaskSettings,
    location: str,
    shift: Shift = (0.0, 0.0),
) -> dict[str, PlacedBand]:
    """Bring the bands of a scene onto a grid.

    A band whose pixels are those of the grid, to within `grid.tolerance` of a pixel everywhere, is read as it is, at an
    offset of whole pixels. Any other one is warped: data bilinear, classes nearest neighbour.

    Args:
        bands: What is to be placed, by name.
        grid: The grid of their location.
        settings: The tolerance, and whether bands may be warped.
        masks: Which bands hold classes, and which stored numbers of the others mean "no data".
        location: Its name, for messages.
        shift: (rows, columns) that the scene is moved by, pixels of the grid, positive down and right: what
            `skimage.registration.phase_cross_correlation(reference, scene)` gives puts the scene onto the reference.

    Raises:
        SceneMismatch: A band covers nothing of the location, or would have to be warped and may not be.
    """
    places: dict[str, Offset | Warp] = {}
    for band in bands.values():
        dataset = band.dataset
        if dataset.name not in places:
            transform = _turned(dataset, grid)
            _check_overlap(dataset, transform, grid, location)
            if settings.on_mismatch == "refuse":
                _check_pixels(dataset, transform, grid, settings.tolerance, bands, location)
            places[dataset.name] = _place(dataset, transform, grid, settings.tolerance, shift)
    class_bands = (masks.class_band, masks.qa_band, masks.cloud_band)
    return {
        name: _placed(band, places[band.dataset.name], masks, classes=name in class_bands)
        for name, band in bands.items()
    }


def _placed(band: Band, place: Offset | Warp, masks: MaskSettings, classes: bool) -> PlacedBand:
    """The masks of numbers are those of data: 0 may be nodata there, and a class here."""
    nodata = (band.undeclared,) if classes else (band.undeclared, masks.nodata)
    known = tuple(number for number in nodata if number is not None)
    return PlacedBand(band, place, known, None if classes else masks.border, classes)


def _place(dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float, shift: Shift) -> Offset | Warp:
    """Where a dataset lies, once it is moved."""
    move = Affine.translation(shift[1] * grid.transform[0], shift[0] * grid.transform[4])
    moved = move @ transform
    crs = _crs(dataset)
    if crs == CRS.from_string(grid.crs):
        offset = _whole_offset(dataset, moved, grid, tolerance)
        if offset is not None:
            return offset
    try:
        warp = warp_onto(grid, moved, crs, dataset.height, dataset.width)
    except (ProjError, CRSError) as error:
        raise _impossible(dataset, error) from error
    if warp is None:
        raise _impossible(dataset, f"no place of the grid is known in {crs.to_string()[:80]}")
    return warp


def _crs(dataset: DatasetReader) -> CRS:
    if dataset.crs is None:
        raise SceneMismatch(f"{dataset.name} has no coordinate reference system")
    return dataset.crs


def _turned(dataset: DatasetReader, grid: Grid) -> Affine:
    """A dataset's geotransform; where both are in longitude and latitude, turned round the Earth to the grid.

    Raises:
        SceneMismatch: There is none, or none that could be one.
    """
    transform, crs = dataset.transform, _crs(dataset)
    if transform.is_identity or not transform.determinant or not all(math.isfinite(number) for number in transform):
        raise SceneMismatch(f"{dataset.name} has no geotransform that could be one: {tuple(transform)[:6]}")
    turn = full_turn(crs)
    if not math.isfinite(turn) or crs != CRS.from_string(grid.crs):
        return transform
    middle = (transform @ (dataset.width / 2, dataset.height / 2))[0]
    turns = round(((grid.bounds[0] + grid.bounds[2]) / 2 - middle) / turn)
    return Affine.translation(turns * turn, 0) @ transform


def _whole_offset(dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float) -> Offset | None:
    """Where a dataset whose pixels are those of the grid begins; None when they are not."""
    a, b, c, d, e, f = tuple(transform)[:6]
    if b or d or a <= 0:
        return None
    across, down = grid.transform[0], -grid.transform[4]
    north = f if e < 0 else f + e * dataset.height
    columns, rows = (c - grid.bounds[0]) / across, (grid.bounds[3] - north) / down
    # An error of the pixel size adds up from one end of the raster to the other.
    stretch = max(abs(a / across - 1) * dataset.width, abs(abs(e) / down - 1) * dataset.height)
    off = max(abs(columns - round(columns)), abs(rows - round(rows))) + stretch
    return Offset(round(rows), round(columns), e > 0) if off <= tolerance else None


def _check_overlap(dataset: DatasetReader, transform: Affine, grid: Grid, location: str) -> None:
    """Refuse a dataset that lies elsewhere.

    Raises:
        SceneMismatch: It covers nothing of the grid.
    """
    left, bottom, right, top = _bounds_in(dataset, transform, grid)
    west, south, east, north = grid.bounds
    turn = full_turn(CRS.from_string(grid.crs))
    if left > right:  # across the 180th meridian
        right += turn
    turns = (-turn, 0.0, turn) if math.isfinite(turn) else (0.0,)
    if not any(left + by < east and right + by > west and bottom < north and top > south for by in turns):
        raise SceneMismatch(f"{dataset.name} covers nothing of {location} ({_words(grid)})")


def _bounds_in(dataset: DatasetReader, transform: Affine, grid: Grid) -> Bounds:
    """A dataset's bounds in the CRS of a grid."""
    bounds, crs, ours = _bounds(dataset, transform), _crs(dataset), CRS.from_string(grid.crs)
    if crs == ours:
        return bounds
    try:
        left, bottom, right, top = transform_bounds(crs, ours, *bounds)
    except (RasterioError, CRSError) as error:
        raise _impossible(dataset, error) from error
    return left, bottom, right, top


def _bounds(dataset: DatasetReader, transform: Affine) -> Bounds:
    width, height = dataset.width, dataset.height
    xs, ys = zip(*(transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _check_pixels(
    dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float, bands: Mapping[str, Band], location: str
) -> None:
    """Refuse a dataset that would have to be warped.

    One of another resolution need not be: it must be resampled anyway. It has to cover what the grid covers, or what
    another file of the scene covers that is on the grid, to half a pixel of the coarser one.

    Raises:
        SceneMismatch: It is not on the grid.
    """
    crs = _crs(dataset)
    if crs != CRS.from_string(grid.crs):
        off = f"it is in {crs.to_string()}"
    elif _whole_offset(dataset, transform, grid, tolerance):
        return
    elif transform.b or transform.d or transform.a <= 0:
        off = "it is rotated or mirrored"
    elif abs(transform.a / grid.resolution - 1) * dataset.width <= tolerance:
        east, south = (transform.c - grid.bounds[0]) / transform.a, (grid.bounds[3] - transform.f) / transform.a
        off = f"its pixels lie {max(abs(east - round(east)), abs(south - round(south))):.2f} of a pixel off"
    else:
        finer = {band.dataset.name: band.dataset for band in bands.values()}.values()
        on_grid = [_bounds(other, turned) for other in finer if _whole_offset(other, turned := _turned(other, grid), grid, tolerance)]
        coarser = max(transform.a, grid.resolution)
        off_by = min(_furthest(_bounds(dataset, transform), bounds) / coarser for bounds in (grid.bounds, *on_grid))
        if off_by <= 0.5:
            return
        off = f"its pixels measure {transform.a:g}, and its corners are {off_by:.1f} of them off"
    raise SceneMismatch(
        f"{dataset.name} is not on the grid of {location} ({_words(grid)}): {off}. Warp it, or set "
        "grid.on_mismatch=warp"
    )


def _furthest(one: Bounds, other: Bounds) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _impossible(dataset: DatasetReader, error: Exception | str) -> SceneMismatch:
    words = in_words(error) if isinstance(error, Exception) else error
    return SceneMismatch(f"{dataset.name} cannot be brought onto the grid of its location: {words}")


def _words(grid: Grid) -> str:
    corner = f"{grid.bounds[0]:.10g}, {grid.bounds[3]:.10g} in {grid.crs}"
    return f"{grid.width} x {grid.height} px of {grid.resolution:g} from {corner}"

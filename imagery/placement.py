"""How a scene's bands lie to the grid of its location: at an offset of whole pixels, or on pixels of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from configs.schema import GridSettings, MaskSettings
from imagery.errors import SceneMismatch
from imagery.grid import Grid
from imagery.guards import check_density
from imagery.opening import Band, in_words
from imagery.placed import Offset, PlacedBand
from imagery.warping import Shift, Warp, full_turn, transformer, warp_onto

SAME_RESOLUTION = 0.1  # relative difference of pixel sizes that are meant to be the same
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
    tolerance = settings.tolerance
    datasets = {band.dataset.name: band.dataset for band in bands.values()}
    transforms = {name: _turned(dataset, grid) for name, dataset in datasets.items()}
    on_grid = [
        _bounds(dataset, transforms[name])
        for name, dataset in datasets.items()
        if _whole_offset(dataset, transforms[name], grid, tolerance)
    ]
    places = {}
    for name, dataset in datasets.items():
        _check_overlap(dataset, transforms[name], grid, location)
        if settings.on_mismatch == "refuse":
            _check_pixels(dataset, transforms[name], grid, tolerance, [grid.bounds, *on_grid], location)
        places[name] = _place(dataset, transforms[name], grid, tolerance, shift)
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
    moved = Affine.translation(shift[1] * grid.transform[0], shift[0] * grid.transform[4]) @ transform
    offset = _whole_offset(dataset, moved, grid, tolerance)
    if offset is not None:
        return offset
    try:
        warp = warp_onto(grid, transform, _crs(dataset), (dataset.height, dataset.width), shift)
    except (ProjError, CRSError) as error:
        raise _impossible(dataset, error) from error
    if warp is None:
        raise _impossible(dataset, "no place of the grid is known in its coordinate reference system")
    check_density(dataset, warp.density)
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
    if transform.b or transform.d or transform.a <= 0 or _crs(dataset) != CRS.from_string(grid.crs):
        return None
    offset, off = _nearest_offset(dataset, transform, grid)
    return offset if off <= tolerance else None


def _nearest_offset(dataset: DatasetReader, transform: Affine, grid: Grid) -> tuple[Offset, float]:
    """The whole offset that is closest, and how far pixels lie off it at most, pixels of the grid."""
    across, down = grid.transform[0], -grid.transform[4]
    north = transform.f if transform.e < 0 else transform.f + transform.e * dataset.height
    columns, rows = (transform.c - grid.bounds[0]) / across, (grid.bounds[3] - north) / down
    # An error of the pixel size adds up from one end of the raster to the other.
    stretch = max(abs(transform.a / across - 1) * dataset.width, abs(abs(transform.e) / down - 1) * dataset.height)
    off = max(abs(columns - round(columns)), abs(rows - round(rows))) + stretch
    return Offset(round(rows), round(columns), transform.e > 0), off


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
    bounds, crs = _bounds(dataset, transform), _crs(dataset)
    if crs == CRS.from_string(grid.crs):
        return bounds
    try:
        left, bottom, right, top = transformer(crs.to_wkt(), grid.crs).transform_bounds(*bounds)
    except (ProjError, CRSError) as error:
        raise _impossible(dataset, error) from error
    return left, bottom, right, top


def _bounds(dataset: DatasetReader, transform: Affine) -> Bounds:
    width, height = dataset.width, dataset.height
    xs, ys = zip(*(transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _check_pixels(
    dataset: DatasetReader, transform: Affine, grid: Grid, tolerance: float, on_grid: Sequence[Bounds], location: str
) -> None:
    """Refuse a dataset that would have to be warped.

    Args:
        dataset: The dataset.
        transform: Its geotransform.
        grid: The grid of its location.
        tolerance: How far its pixels may lie off, pixels.
        on_grid: What the grid covers, and what each file of the scene covers that is on it. One of another resolution,
            which must be resampled anyway, is not refused when it covers the same to half a pixel of the coarser one.
        location: Its name.

    Raises:
        SceneMismatch: It is not on the grid.
    """
    if _whole_offset(dataset, transform, grid, tolerance):
        return
    if _crs(dataset) != CRS.from_string(grid.crs):
        off = f"it is in {_crs(dataset).to_string()}"
    elif transform.b or transform.d or transform.a <= 0:
        off = "it is rotated or mirrored"
    elif abs(transform.a / grid.resolution - 1) < SAME_RESOLUTION:
        off = f"its pixels lie up to {_nearest_offset(dataset, transform, grid)[1]:.2f} pixels off"
    else:
        coarser = max(transform.a, grid.resolution)
        off_by = min(_furthest(_bounds(dataset, transform), bounds) for bounds in on_grid) / coarser
        if off_by <= 0.5:
            return
        off = f"its pixels measure {transform.a:g}, and its corners are {off_by:.1f} pixels off"
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

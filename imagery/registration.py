"""Registration: how far a scene lies from the reference of its place, in fractions of a pixel.

Both images become maps of the direction of their slopes, which is the same in bright and dark light and tells nothing
of masked pixels (orientation correlation, Fitch et al. 2002). Chips all over the scene are correlated in the Fourier
domain, and refined to a fiftieth of a pixel (Guizar-Sicairos, Thurman & Fienup 2008, in scikit-image). Chips on ground
give nearly the same shift; chips on cloud, haze or water give any. So the shift is the median of the chips', and it is
trusted when they agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from skimage.registration import phase_cross_correlation

from configs.schema import AlignmentSettings
from imagery.grid import Grid

Shift = tuple[float, float]

LARGEST, SMALLEST = 256, 32  # pixels: side of a chip
MOST = 8  # chips along a side of the grid
MIN_VALID = 0.5  # share of a chip's pixels that must be valid in both images
FINENESS = 50  # steps in a pixel
MIN_CHIPS = 3  # that agree
AGREE = 0.5  # pixels: chips that lie this close to the median agree with it
MIN_AGREEMENT = 0.6  # share of the chips


@dataclass(frozen=True)
class ChipPair:
    """The same window of a reference and a scene.

    Attributes:
        reference: (C, H, W), any units.
        scene: (C, H, W).
        reference_valid: (H, W), True where the reference has values.
        scene_valid: (H, W), True where the scene's pixel counts.
    """

    reference: NDArray[np.float32]
    scene: NDArray[np.float32]
    reference_valid: NDArray[np.bool_]
    scene_valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Registration:
    """How far a scene lies from a reference.

    Attributes:
        rows: Pixels by which the scene must be moved down to lie on the reference; None when it was not measured.
        cols: Pixels by which it must be moved to the right.
        spread: Robust standard deviation of the chips' shifts, pixels, in the direction where they differ more.
        agreement: Share of the chips that agree with their median.
        chips: How many were measured.
        correction: (rows, cols) to move the scene by, whole pixels: (0, 0) when the shift is not trusted or smaller.
        reason: Why the shift is not to be trusted, in words; None when it is.
    """

    rows: float | None
    cols: float | None
    spread: float | None
    agreement: float
    chips: int
    correction: Shift
    reason: str | None

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Registration:
        """The inverse of `to_record`."""
        rows, cols = record["correction"]
        return cls(**record | {"correction": (rows, cols)})


def register(pairs: Iterable[ChipPair], settings: AlignmentSettings) -> Registration:
    """Measure the shift between a scene and a reference.

    Args:
        pairs: Chips, see `chip_windows`; one is looked at at a time.
        settings: Which shifts are corrected.
    """
    return judge_shifts([chip_shift(pair) for pair in pairs], settings)


def chip_windows(grid: Grid) -> list[Window]:
    """Chips spread evenly over a grid, row by row; on small grids they overlap. None where it is too small."""
    side = min(LARGEST, min(grid.height, grid.width) // 2)
    if side < SMALLEST:
        return []
    rows, cols = (_starts(length, side) for length in (grid.height, grid.width))
    return [Window(col, row, side, side) for row in rows for col in cols]


def sample_windows(grid: Grid) -> list[Window]:
    """The ground of the chips, each pixel once; all of a grid that is too small for chips."""
    chips = chip_windows(grid)
    rows, cols = {chip.row_off for chip in chips}, {chip.col_off for chip in chips}

    def until_next(start: int, starts: set[int], side: int) -> int:
        return min([side, *(other - start for other in starts if other > start)])

    return [
        Window(
            chip.col_off,
            chip.row_off,
            until_next(chip.col_off, cols, chip.width),
            until_next(chip.row_off, rows, chip.height),
        )
        for chip in chips
    ] or [Window(0, 0, grid.width, grid.height)]


def chip_shift(pair: ChipPair) -> Shift | None:
    """(rows, cols) by which the scene must be moved to lie on the reference; None when too little of it is seen."""
    if (pair.reference_valid & pair.scene_valid).mean() < MIN_VALID:
        return None
    fixed, moving = _slopes(pair.reference, pair.reference_valid), _slopes(pair.scene, pair.scene_valid)
    if not (fixed.any() and moving.any()):
        return None
    # Phase alone (normalization="phase") gives every frequency the same say, and the highest are noise: measured on
    # real images with known shifts, that errs twice as far.
    (rows, cols), _, _ = phase_cross_correlation(fixed, moving, upsample_factor=FINENESS, normalization=None)
    return float(rows), float(cols)


def judge_shifts(shifts: list[Shift | None], settings: AlignmentSettings) -> Registration:
    """The shift that most chips agree on, and whether to trust it.

    Args:
        shifts: One entry a chip, None where nothing could be measured.
        settings: Which shifts are corrected.
    """
    measured = np.array([shift for shift in shifts if shift is not None], dtype=float).reshape(-1, 2)
    if len(measured) < MIN_CHIPS:
        few = (
            f"{len(measured)} of {len(shifts)} chips show enough pixels that are valid in both, {MIN_CHIPS} are needed"
        )
        small = f"the location is smaller than {2 * SMALLEST} pixels: too small to measure a shift"
        return Registration(None, None, None, 0.0, len(measured), (0.0, 0.0), few if shifts else small)
    rows, cols = (round(float(value), 2) for value in np.median(measured, axis=0))
    off = np.abs(measured - (rows, cols))
    spread = round(float(1.4826 * np.median(off, axis=0).max()), 3)
    agreeing = int((off.max(axis=1) <= AGREE).sum())
    agreement = agreeing / len(measured)
    size, reason = max(abs(rows), abs(cols)), None
    if agreeing < max(MIN_CHIPS, MIN_AGREEMENT * len(measured)):
        reason = (
            f"the chips do not agree on a shift: {agreeing} of {len(measured)} lie within {AGREE} pixels of their "
            "median (cloud, haze, snow, water, or other ground)"
        )
    elif size > settings.max_shift > 0:
        reason = (
            f"the scene lies {size:.1f} pixels off, more than the {settings.max_shift:g} that are corrected "
            "(alignment.max_shift): check its geotransform"
        )
    corrected = reason is None and size <= settings.max_shift
    # Whole pixels: to resample one scene, and not those that the detector learned from, would smooth its errors away.
    correction = (float(round(rows)), float(round(cols))) if corrected else (0.0, 0.0)
    return Registration(rows, cols, spread, agreement, len(measured), correction, reason)


def _starts(length: int, side: int) -> list[int]:
    """Where chips begin along a side: at both ends and evenly between, overlapping by at most a half."""
    count = min(MOST, 2 * (length // side) - 1)
    return [round(step) for step in np.linspace(0, length - side, count)]


def _slopes(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """(H, W) direction of the slope, as a complex number of size below 1, mean over the bands; 0 where it is not known.

    Slopes smaller than a band's usual one count for less: their direction is mostly noise.
    """
    valid = valid & np.isfinite(values).all(axis=0)
    known = np.zeros_like(valid)
    known[1:-1, 1:-1] = valid[1:-1, 1:-1] & valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]
    slopes = np.zeros(valid.shape, np.complex64)
    for band in values:
        slope = np.zeros(valid.shape, np.complex64)
        with np.errstate(invalid="ignore", over="ignore"):  # what lies under a mask may be any number
            slope.real[:, 1:-1] = band[:, 2:] - band[:, :-2]
            slope.imag[1:-1] = band[2:] - band[:-2]
        slope = slope[known]
        size = np.abs(slope)
        usual = np.median(size) if size.size else 0
        direction = np.divide(slope, size + usual, out=np.zeros_like(slope), where=size > 0)
        slopes[known] += direction - direction.mean()  # a slope over the whole chip is the same wherever the chip lies
    return slopes / np.float32(len(values))

"""Settings of imagery: where scenes lie, what counts in them, and what they are compared with."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from configs.schema.base import Fraction, Section, Severity

QualityBit = Literal["fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "water"]


class StacSettings(Section):
    """What to ask a STAC API for; a static catalog is walked, and its items are chosen in the same way."""

    collections: tuple[str, ...] = Field((), description="Collections to search; none means all.")
    max_cloud: float = Field(100.0, ge=0, le=100, description="Largest eo:cloud_cover, percent.")


class SourceSettings(Section):
    """Where scenes lie, and how their names and numbers are read."""

    kind: Literal["files", "sentinel2", "landsat", "stac"] = Field(
        "files",
        description="Files found by `pattern`; Sentinel-2 products (SAFE folders and zips, L1C and L2A); Landsat "
        "Collection 2 products (folders and tar files); or a STAC catalog or API.",
    )
    root: Path = Field(Path("."), description="Folder that is searched for scenes, or a static STAC catalog's file.")
    url: str | None = Field(
        None,
        pattern=r"^(s3|https?)://",
        description="In place of `root`: s3://bucket/prefix, or the address of a web folder (see `index`), of a STAC "
        "API or of a static STAC catalog. Credentials come from the environment, never from here.",
    )
    index: str | None = Field(
        None, description="For a web folder, which cannot be listed: a text file in it with one file name a line."
    )
    pattern: str = Field(
        "{location}/{date:%Y-%m-%d}.tif",
        description="For `files`: path of a file below `root`. Fields: {location}, {date:FORMAT} (UTC), {band} for one "
        "file a band; `*` stands for anything within a name.",
    )
    extra: dict[str, str] = Field(
        {}, description="For `files`: further files of a scene by band name, e.g. CLOUD: '{location}/{date}_cloud.tif'."
    )
    location: str | None = Field(
        None,
        min_length=1,
        description="Name of the location when nothing else tells it: neither names nor `locations`.",
    )
    since: date | None = Field(None, description="Scenes acquired before this date are left out.")
    stac: StacSettings = StacSettings()
    names: dict[str, str] = Field(
        {}, description="What a band is called in the source where that differs, e.g. the STAC asset: {B04: red}."
    )
    bands: tuple[str, ...] = Field(
        ("B02", "B03", "B04", "B08"),
        min_length=1,
        description="Bands to use, in this order, by their names in the files.",
    )
    band_names: tuple[str, ...] | None = Field(
        None, description="Names of a file's bands by position, for files without band descriptions."
    )
    scale: float | None = Field(
        None,
        gt=0,
        description="Stored number × scale + offset = physical value (reflectance 0–1). Null: what the product "
        "says, else 1e-4 for files of whole numbers, 1 for others.",
    )
    offset: float | None = Field(
        None,
        description="See `scale`, e.g. -0.1 for plain files of Sentinel-2 from baseline 04.00 on. Null: what "
        "the product says, and 0 for plain files.",
    )
    retries: int = Field(5, ge=0, description="How often a remote read is tried again, waiting longer each time.")
    timeout: float = Field(30, gt=0, description="Seconds without a byte after which a remote read is tried again.")

    @field_validator("pattern")
    @classmethod
    def _pattern_has_a_date(cls, pattern: str) -> str:
        if "{date" not in pattern:
            raise ValueError(f"the pattern {pattern!r} has no {{date:FORMAT}} field, so scenes would have no date")
        return pattern

    @field_validator("bands")
    @classmethod
    def _bands_differ(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({band for band in bands if bands.count(band) > 1})
        if repeated:
            raise ValueError(f"bands are named twice: {', '.join(repeated)}")
        return bands

    @model_validator(mode="after")
    def _location_is_known(self) -> SourceSettings:
        if self.kind == "files" and "{location}" not in self.pattern and self.location is None:
            raise ValueError("the pattern has no {location} field: set source.location to name the place")
        return self


class MaskSettings(Section):
    """Which pixels count. A masked pixel counts in no sum, anywhere."""

    nodata: float | None = Field(
        None, description="Stored number that means 'no data' when the files do not declare one."
    )
    border: float | None = Field(
        None,
        description="Stored number of an undeclared border: masked where every band has it (`nodata`: where any has).",
    )
    class_band: str | None = Field(None, description="Band with a scene classification, e.g. SCL.")
    bad_classes: tuple[int, ...] = Field(
        (0, 1, 3, 8, 9, 10, 11),
        description="Classes to mask: nodata, defective, shadow, cloud, cirrus, snow (Sentinel-2 SCL).",
    )
    cloud_classes: tuple[int, ...] = Field((8, 9, 10), description="Bad classes that are counted as cloud.")
    shadow_classes: tuple[int, ...] = Field((3,), description="Bad classes that are counted as shadow of a cloud.")
    snow_classes: tuple[int, ...] = Field((11,), description="Bad classes that are counted as snow.")
    qa_band: str | None = Field(None, description="Band with Landsat Collection 2 quality bits: QA_PIXEL.")
    bad_bits: tuple[QualityBit, ...] = Field(
        ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"), description="Bits of `qa_band` to mask."
    )
    cloud_band: str | None = Field(
        None, description="Band (or file, see `source.extra`) with a cloud mask or cloud probability."
    )
    cloud_above: float = Field(0.0, description="Stored numbers of `cloud_band` above this are cloud.")
    cloud_model: Literal["ukis-csmask-l1c", "ukis-csmask-l2a"] | None = Field(
        None,
        description="Cloud and shadow by a network, for top-of-atmosphere (l1c) or surface (l2a) reflectance: needs "
        "`pip install 'tilewatch[clouds]'`.",
    )
    dilate: float = Field(0.0, ge=0, le=5000, description="Cloud and shadow are grown by so many metres.")


class GridSettings(Section):
    """The fixed pixel grid of a location, and its tiles."""

    tile_size: int = Field(64, ge=8, le=512, multiple_of=4, description="Side of a tile in pixels.")
    resolution: float | None = Field(
        None, gt=0, description="Pixel size in units of the CRS; by default that of the finest band of the first scene."
    )
    stride: int | None = Field(
        None, ge=4, description="Pixels from one tile to the next; null is `tile_size`, less makes tiles overlap."
    )
    tolerance: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="A scene whose pixels lie this close to those of the grid, in pixels, is shifted, not resampled.",
    )
    on_mismatch: Literal["warp", "refuse"] = Field(
        "warp",
        description="A scene on other pixels, or in another CRS, is warped (data bilinear, classes nearest), "
        "or quarantined.",
    )

    @model_validator(mode="after")
    def _leaves_no_gaps(self) -> GridSettings:
        if self.stride is not None and self.stride > self.tile_size:
            raise ValueError(
                f"a stride of {self.stride} leaves gaps between tiles of {self.tile_size} pixels: "
                f"use at most {self.tile_size}"
            )
        return self


class Area(Section):
    """The grid of a location, given instead of taken from its first scene."""

    crs: str = Field(description="Coordinate reference system, e.g. EPSG:32631.")
    bounds: tuple[float, float, float, float] = Field(description="Left, bottom, right, top in units of the CRS.")
    resolution: float = Field(gt=0, description="Pixel size in units of the CRS; it divides width and height.")

    @model_validator(mode="after")
    def _has_whole_pixels(self) -> Area:
        left, bottom, right, top = self.bounds
        if left >= right or bottom >= top:
            raise ValueError(f"the bounds {self.bounds} are not left, bottom, right, top")
        for name, length in (("width", right - left), ("height", top - bottom)):
            pixels = length / self.resolution
            if abs(pixels - round(pixels)) > 1e-6 * pixels:
                raise ValueError(
                    f"the {name} of {length:g} is {pixels:.6g} pixels of {self.resolution:g}: make it whole"
                )
        return self


DARKEST = 1e-4  # logarithms are taken of at least this: reflectance cannot be known to better


class NormaliseSettings(Section):
    """How physical values become what the network sees; fitted on the training dates, stored with the detector."""

    method: Literal["percentile", "standard", "range"] = Field(
        "percentile", description="Map to [-1, 1]: by two percentiles, by mean ± 2 std, or by a fixed range."
    )
    percentiles: tuple[float, float] = Field((0.5, 99.5), description="For `percentile`: the two percentiles.")
    range: tuple[float, float] = Field((0.0, 1.0), description="For `range`: physical values mapped to -1 and 1.")
    ranges: dict[str, tuple[float, float]] = Field(
        {}, description="Bands with a fixed range of their own, whatever the method, e.g. {B04: [0, 0.3]}."
    )
    log: bool = Field(True, description="Take the logarithm of the physical value first: surfaces differ by factors.")
    log_offset: float = Field(
        0.1,
        ge=0,
        description="Added before the logarithm, physical units: what is darker differs by steps rather than by "
        "factors, so that a little haze over water is little.",
    )
    clip: float = Field(3.0, ge=1, description="Normalised values are clipped to ± this.")

    @model_validator(mode="after")
    def _in_order(self) -> NormaliseSettings:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"the percentiles {low:g} and {high:g} are not in order between 0 and 100")
        used = {f" of {band}": ends for band, ends in self.ranges.items()} | {"": self.range}
        for name, (low, high) in used.items():
            if not low < high:
                raise ValueError(f"the range{name} {low:g} … {high:g} is empty: its first end must be smaller")
            if self.log and high <= DARKEST and (name or self.method == "range"):
                raise ValueError(
                    f"the range{name} {low:g} … {high:g} has no logarithms, which are taken of {DARKEST:g} at least: "
                    "set normalise.log=false"
                )
        return self


class ReferenceSettings(Section):
    """What a location normally looks like: its last clear scenes, and those of the season."""

    scenes: int = Field(
        5,
        ge=0,
        le=50,
        description="The last so many clear scenes; 0 makes no reference. The newest confirms what is seen tonight.",
    )
    seasonal: int = Field(6, ge=0, le=50, description="And so many of earlier years, of the same season.")
    season_days: int = Field(20, ge=1, le=183, description="How far from the day of the year a season reaches.")
    min_valid: Fraction = Field(0.5, description="A scene with a smaller share of usable pixels is not clear.")
    max_age: int = Field(400, ge=1, description="Days after which a scene is no longer one of the last.")


class AlignmentSettings(Section):
    """How a reference is brought to a scene's radiometry, and the scene to the reference's place."""

    min_pixels: int = Field(500, ge=50, description="With fewer pixels valid in both, nothing is fitted.")
    max_pixels: int = Field(200_000, ge=1000, description="Pixels that are fitted: more are thinned evenly.")
    max_gain: float = Field(3.0, gt=1, description="A larger band gain is not trusted: it magnifies noise.")
    max_shift: float = Field(
        3.0, ge=0, description="Shifts of up to so many pixels are corrected, by whole pixels; 0 corrects none."
    )


class ValidationSettings(Section):
    """Checks of every scene before it is used. A failed critical check quarantines the scene, never the run."""

    min_valid_fraction: Fraction = Field(0.05, description="Least share of usable pixels in a scene.")
    max_cloud_fraction: Fraction = Field(0.95, description="Largest share of cloud in a scene.")
    range_margin: float = Field(
        0.5, ge=0, description="How far a band's 2–98 % range may leave that of training, as a share of its width."
    )
    max_value: float = Field(2.0, gt=0, description="Largest plausible physical value of a band's 98th percentile.")
    max_negative: Fraction = Field(
        0.25, description="Largest share of negative pixels in a band: more, and an offset was applied twice."
    )
    valid_fraction: Severity = "warning"
    cloud_fraction: Severity = "info"
    range_vs_training: Severity = "warning"
    plausible: Severity = "critical"
    negative: Severity = "critical"
    finite: Severity = "critical"
    duplicate_tiles: Severity = "critical"
    future_date: Severity = "critical"
    complete: Severity = "critical"

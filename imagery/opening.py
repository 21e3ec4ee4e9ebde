"""Opening rasters: by a named driver only, with their bands by name."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePosixPath

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from configs.schema import SourceSettings
from imagery.errors import SceneMismatch, SceneUnreadable
from imagery.guards import check_beside, check_dataset
from imagery.sources.scene import Scene, SceneFile, our_names

# Only these may open anything: an indirect format (VRT, WMS, …) could point at any file or address.
DRIVERS = {".jp2": "JP2OpenJPEG", ".j2k": "JP2OpenJPEG"}
DEFAULT_DRIVER = "GTiff"
WHOLE_NUMBERS, FRACTIONS = (1e-4, 0.0), (1.0, 0.0)  # what reflectances usually are: (scale, offset)


@dataclass(frozen=True)
class Band:
    """A band of an open dataset.

    Attributes:
        name: What it is called.
        dataset: Where it is; not necessarily on the location's grid.
        index: Which band of it, from 1.
        alpha: Which band of it is an alpha band, if one is.
        scale: Stored number × scale + offset = physical value.
        offset: See `scale`.
        undeclared: Stored number that means "no data", as the source knows it and the file does not declare it.
    """

    name: str
    dataset: DatasetReader
    index: int
    alpha: int | None
    scale: float
    offset: float
    undeclared: float | None


def open_bands(scene: Scene, source: SourceSettings, wanted: list[str], stack: ExitStack) -> dict[str, Band]:
    """Open the rasters of a scene.

    Args:
        scene: What to open.
        source: How bands are named and numbers are meant.
        wanted: Names of the bands to open.
        stack: Closes them.

    Returns:
        The bands by name, in the order wanted.

    Raises:
        SceneUnreadable: A file that cannot be opened.
        SceneMismatch: A band is missing, there twice, or of a type that is not a real number.
    """
    bands: dict[str, Band] = {}
    datasets: dict[str, DatasetReader] = {}
    present: set[str] = set()
    for file in scene.files:
        present |= {file.band} - {""}
        if file.band and file.band not in wanted:
            continue
        if file.path not in datasets:
            datasets[file.path] = stack.enter_context(_open(file.path))
        dataset = datasets[file.path]
        names = {file.band: file.number} if file.band else _indices(dataset, source)
        present |= set(names)
        for name in (name for name in names if name in wanted):
            if name in bands:
                raise SceneMismatch(
                    f"{scene.scene_id} has two files for band {name}, {bands[name].dataset.name} and {dataset.name}: "
                    "make source.pattern match only one"
                )
            bands[name] = _band(name, dataset, names[name], file, source)
    missing = [band for band in wanted if band not in bands]
    if missing:
        raise SceneMismatch(
            f"{scene.scene_id} has no band {', '.join(missing)} (found: {', '.join(sorted(present)) or 'none'}): "
            "complete the scene, or change source.bands"
        )
    return {name: bands[name] for name in wanted}


def in_words(error: Exception) -> str:
    """GDAL's own words, which rasterio keeps as the cause of its error."""
    return str(error.__cause__ or error).strip()


def _open(path: str) -> DatasetReader:
    driver = DRIVERS.get(PurePosixPath(path).suffix.lower(), DEFAULT_DRIVER)
    virtual = path.startswith("/vsi")
    if not virtual:
        path = os.path.abspath(path)  # or a folder with an odd name could pass for one of GDAL's prefixes
        check_beside(path)
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR") if virtual else nullcontext():
            dataset = rasterio.open(path, driver=driver, sharing=False)
    except RasterioError as error:
        raise SceneUnreadable(f"{path} cannot be opened as {driver}: {in_words(error)}") from None
    try:
        check_dataset(dataset)
    except BaseException:
        dataset.close()
        raise
    unreal = [kind for kind in dataset.dtypes if np.dtype(kind).kind not in "uif"]
    if unreal:
        dataset.close()
        raise SceneMismatch(f"{path} holds numbers of type {unreal[0]}: real numbers are needed")
    return dataset


def _indices(dataset: DatasetReader, source: SourceSettings) -> dict[str, int]:
    """Names of a file's bands: its descriptions, or those given in the settings; never guessed from the order."""
    described = [
        (name, index)
        for index, text in enumerate(dataset.descriptions, start=1)
        if text
        for name in our_names(text, source.names)
    ]
    if described:
        names = [text for text, _ in described]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SceneMismatch(f"{dataset.name} has several bands named {', '.join(repeated)}: describe them apart")
        return dict(described)
    plain = [i for i, role in zip(dataset.indexes, dataset.colorinterp, strict=True) if role != ColorInterp.alpha]
    given = source.band_names
    if given is None:
        raise SceneMismatch(
            f"{dataset.name} has {len(plain)} bands without descriptions: name them with source.band_names"
        )
    if len(given) != len(plain):
        raise SceneMismatch(
            f"{dataset.name} has {len(plain)} bands, source.band_names names {len(given)}: {', '.join(given)}"
        )
    return dict(zip(given, plain, strict=True))


def _band(name: str, dataset: DatasetReader, index: int, file: SceneFile, source: SourceSettings) -> Band:
    """A band with what its numbers mean: as the settings say, else the source, else the file, else the defaults."""
    if not 1 <= index <= dataset.count:
        raise SceneMismatch(f"{dataset.name} has {dataset.count} bands, {name} should be number {index}")
    declared = (dataset.scales[index - 1], dataset.offsets[index - 1])
    default = FRACTIONS if np.dtype(dataset.dtypes[index - 1]).kind == "f" else WHOLE_NUMBERS
    usual = declared if declared != (1.0, 0.0) else default
    scale, offset = (
        next(value for value in values if value is not None)
        for values in zip((source.scale, source.offset), (file.scale, file.offset), usual, strict=True)
    )
    if not (isfinite(scale) and isfinite(offset) and scale > 0):
        raise SceneMismatch(
            f"{dataset.name} says that {name} is {scale:g} × stored number + {offset:g}, which no value is: correct it "
            "with `gdal_edit.py -scale … -offset …`, or set source.scale and source.offset"
        )
    undeclared = file.nodata if file.nodata != dataset.nodatavals[index - 1] else None
    return Band(name, dataset, index, _alpha(dataset), scale, offset, undeclared)


def _alpha(dataset: DatasetReader) -> int | None:
    """The alpha band. GDAL takes it for a mask by itself only in files of two or four bands."""
    roles = list(dataset.colorinterp)
    return roles.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in roles else None

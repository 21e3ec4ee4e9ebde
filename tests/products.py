"""Products as agencies deliver them, made when a test needs them: their metadata around the images that it gives."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Longitude and latitude of the corners of MGRS tile 29UNU, about.
CORNERS = ((-9.0, 53.25), (-7.36, 53.25), (-7.36, 52.25), (-9.0, 52.25))


def write_safe(
    folder: Path,
    images: Mapping[str, Path | bytes],
    *,
    level: str = "2A",
    tile: str = "29UNU",
    start: str = "20221005T115411",
    baseline: str = "04.00",
    generated: str = "2022-10-05T18:04:59.000000Z",
    offset: float | None = -1000,
    quantification: float = 10000,
    strip: str | None = None,
    corners: tuple[tuple[float, float], ...] = CORNERS,
    edit: Mapping[str, str] | None = None,
) -> Path:
    """A Sentinel-2 product in the compact format.

    Args:
        folder: Where the `.SAFE` folder is made.
        images: A file or its content by band and pixel size, e.g. "B02_60m"; without one ("B02") that of level 1C.
        level: 1C or 2A.
        tile: MGRS tile.
        start: Start of the data take.
        baseline: Of the processing.
        generated: When it was processed.
        offset: Added to all stored numbers of reflectance; None before baseline 04.00.
        quantification: What they are divided by.
        strip: Start of the data strip; by default that of the data take.
        corners: Longitude and latitude of the footprint.
        edit: Text of the metadata to replace.
    """
    number = baseline.replace(".", "")
    stamp = generated.replace("-", "").replace(":", "")[:15]
    product = folder / f"S2A_MSIL{level}_{start}_N{number}_R023_T{tile}_{stamp}.SAFE"
    granule = f"GRANULE/L{level}_T{tile}_A038063_{start}/IMG_DATA"
    names = []
    for image, content in images.items():
        within = f"R{image.rpartition('_')[2]}/" if "_" in image else ""
        names.append(f"{granule}/{within}T{tile}_{start}_{image}")
        path = product / f"{names[-1]}.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copy(content, path)
    day, time = start.split("T")
    moment = f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}.024Z"
    kind, prefix = ("BOA", "BOA_") if level == "2A" else ("RADIO", "")
    offsets = "".join(
        f'<{kind}_ADD_OFFSET band_id="{index}">{offset:g}</{kind}_ADD_OFFSET>'
        for index in range(13)
        if offset is not None
    )
    ring = " ".join(f"{lat} {lon}" for lon, lat in (*corners, corners[0]))
    text = f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>{moment}</PRODUCT_START_TIME>
      <PRODUCT_URI>{product.name}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <GENERATION_TIME>{generated}</GENERATION_TIME>
      <Product_Organisation>
        <Granule_List>
          <Granule datastripIdentifier="S2A_OPER_MSI_L{level}_DS_ATOS_{stamp}_S{strip or start}_N{baseline}"
              granuleIdentifier="S2A_OPER_MSI_L{level}_TL_ATOS_{stamp}_A038063_T{tile}_N{baseline}">
            {"".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in names)}
          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <{prefix}QUANTIFICATION_VALUE unit="none">{quantification:g}</{prefix}QUANTIFICATION_VALUE>
      <AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>
      {offsets}
    </Product_Image_Characteristics>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Product_Footprint><Product_Footprint><Global_Footprint>
      <EXT_POS_LIST>{ring}</EXT_POS_LIST>
    </Global_Footprint></Product_Footprint></Product_Footprint>
  </n1:Geometric_Info>
</n1:Level-{level}_User_Product>
"""
    for old, new in (edit or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    (product / f"MTD_MSIL{level}.xml").write_text(text)
    return product


def write_landsat(
    folder: Path,
    images: Mapping[str, Path | bytes],
    *,
    level: str = "L2SP",
    path_row: tuple[int, int] = (198, 24),
    day: str = "2020-05-18",
    time: str = "10:27:24.5434450Z",
    processed: str = "2020-08-20",
    spacecraft: int = 8,
    sensor: str = "OLI_TIRS",
    elevation: float = 30.0,
    collection: int = 2,
    corners: tuple[tuple[float, float], ...] = CORNERS,
    as_json: bool = False,
    edit: Mapping[str, str] | None = None,
) -> Path:
    """A Landsat Collection 2 product.

    Args:
        folder: Where the product's folder is made.
        images: A file or its content by the last part of its name: SR_B4, ST_B10, QA_PIXEL; B4 of level 1.
        level: Processing level.
        path_row: Of the Worldwide Reference System.
        day, time: Of acquisition.
        processed: Day of processing.
        spacecraft: Its number.
        sensor: Its name.
        elevation: Of the sun, degrees.
        collection: Number of the collection.
        corners: Longitude and latitude of the footprint: upper left, upper right, lower right, lower left.
        as_json: Write the metadata as JSON instead of text.
        edit: Text of the metadata to replace.
    """
    name = (
        f"LC{spacecraft:02d}_{level}_{path_row[0]:03d}{path_row[1]:03d}_{day.replace('-', '')}_"
        f"{processed.replace('-', '')}_02_T1"
    )
    product = folder / name
    product.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {"COLLECTION_NUMBER": f"{collection:02d}", "PROCESSING_LEVEL": level}
    for image, content in images.items():
        target = product / f"{name}_{image}.TIF"
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copy(content, target)
        contents[_key(image)] = target.name
    bands = [image.removeprefix("SR_").removeprefix("B") for image in images if not image.startswith("QA")]
    groups = {
        "PRODUCT_CONTENTS": contents,
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": f"LANDSAT_{spacecraft}", "SENSOR_ID": sensor,
            "WRS_PATH": path_row[0], "WRS_ROW": f"{path_row[1]:03d}",
            "DATE_ACQUIRED": day, "SCENE_CENTER_TIME": time, "SUN_ELEVATION": elevation,
        },
        "PROJECTION_ATTRIBUTES": {
            f"CORNER_{at}_{axis}_PRODUCT": value
            for at, corner in zip(("UL", "UR", "LR", "LL"), corners, strict=True)
            for axis, value in zip(("LON", "LAT"), corner, strict=True)
        },
    }  # fmt: skip
    if level.startswith("L2"):
        groups["LEVEL2_PROCESSING_RECORD"] = {"DATE_PRODUCT_GENERATED": f"{processed}T12:00:00Z"}
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = _pairs("REFLECTANCE", bands, 2.75e-05, -0.2)
        groups["LEVEL2_SURFACE_TEMPERATURE_PARAMETERS"] = _pairs("TEMPERATURE", ["ST_B10"], 0.00341802, 149.0)
    # The metadata of level 2 repeats that of the level 1 it was made of, under the same names.
    groups["LEVEL1_PROCESSING_RECORD"] = {
        "DATE_PRODUCT_GENERATED": f"{processed}T06:00:00Z",
        **{f"FILE_NAME_BAND_{band}": f"level1_B{band}.TIF" for band in bands},
    }
    groups["LEVEL1_RADIOMETRIC_RESCALING"] = _pairs("RADIANCE", bands, 3.342e-04, 0.1) | _pairs(
        "REFLECTANCE", [band for band in bands if band != "10"], 2e-05, -0.1
    )
    if as_json:
        told = {group: {key: str(value) for key, value in entries.items()} for group, entries in groups.items()}
        text, ending = json.dumps({"LANDSAT_METADATA_FILE": told}), "json"
    else:
        text, ending = _odl(groups), "txt"
    for old, new in (edit or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    (product / f"{name}_MTL.{ending}").write_text(text)
    return product


def zipped(product: Path) -> Path:
    """A product's folder as the zip file that is delivered; the folder is gone."""
    target = product.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(product.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(product.parent))
    shutil.rmtree(product)
    return target


def tarred(product: Path) -> Path:
    """A product's folder as the tar file that is delivered, without the folder's name; the folder is gone."""
    target = product.parent / f"{product.name}.tar"
    with tarfile.open(target, "w") as archive:
        for path in sorted(product.iterdir()):
            archive.add(path, path.name)
    shutil.rmtree(product)
    return target


def _key(image: str) -> str:
    if image == "QA_PIXEL":
        return "FILE_NAME_QUALITY_L1_PIXEL"
    band = image.removeprefix("SR_")
    return f"FILE_NAME_BAND_{band if band.startswith('ST_') else band.removeprefix('B')}"


def _pairs(kind: str, bands: list[str], scale: float, offset: float) -> dict[str, Any]:
    return {f"{kind}_MULT_BAND_{band}": scale for band in bands} | {f"{kind}_ADD_BAND_{band}": offset for band in bands}


def _odl(groups: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, entries in groups.items():
        lines.append(f"  GROUP = {group}")
        for key, value in entries.items():
            plain = key.startswith(("DATE", "COLLECTION_NUMBER", "WRS")) or not isinstance(value, str)
            lines.append(f"    {key} = {value}" if plain else f'    {key} = "{value}"')
        lines.append(f"  END_GROUP = {group}")
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])

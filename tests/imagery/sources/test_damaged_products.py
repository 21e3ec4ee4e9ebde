"""Products with bytes that are not theirs: whatever they say, they are listed or skipped, and never an exception."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.schema import Area, SourceSettings
from imagery.sources import find_scenes
from tests.items import asset, item, write_catalog
from tests.products import tarred, write_landsat, write_safe, zipped

HERE = Area(crs="EPSG:4326", bounds=(-8.5, 52.5, -8.4, 52.6), resolution=0.001)


def safe(folder: Path) -> tuple[str, Path]:
    product = write_safe(folder, {"B02_10m": b"a" * 100, "SCL_20m": b"b" * 100})
    return "sentinel2", product / "MTD_MSIL2A.xml"


def safe_zip(folder: Path) -> tuple[str, Path]:
    return "sentinel2", zipped(write_safe(folder, {"B02_10m": b"a" * 100, "SCL_20m": b"b" * 100}))


def landsat(folder: Path) -> tuple[str, Path]:
    return "landsat", next(write_landsat(folder, {"SR_B2": b"a" * 100}).glob("*_MTL.txt"))


def landsat_json(folder: Path) -> tuple[str, Path]:
    return "landsat", next(write_landsat(folder, {"SR_B2": b"a" * 100}, as_json=True).glob("*_MTL.json"))


def landsat_tar(folder: Path) -> tuple[str, Path]:
    return "landsat", tarred(write_landsat(folder, {"SR_B2": b"a" * 100}))


def stac(folder: Path) -> tuple[str, Path]:
    told = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}], "eo:bands": [{"name": "B02"}]}
    write_catalog(folder, [item("one", {"B02": asset("./a.tif", **told)}, box=(-9, 52, -8, 53))])
    return "stac", folder / "one.json"


@pytest.mark.slow
@pytest.mark.parametrize("write", [safe, safe_zip, landsat, landsat_json, landsat_tar, stac])
def test_damage_of_any_kind_costs_no_more_than_the_product(
    tmp_path: Path, write: Callable[[Path], tuple[str, Path]]
) -> None:
    kind, path = write(tmp_path)
    source = SourceSettings.model_validate({"kind": kind, "root": tmp_path, "bands": ["B02"]})
    whole, outcomes = path.read_bytes(), set()
    assert len(find_scenes(source, {"here": HERE}).scenes) == 1
    draw = random.Random(0)
    for _ in range(400):
        damaged = bytearray(whole)
        start = draw.randrange(len(damaged))
        how = draw.randrange(4)
        if how == 0:
            damaged = damaged[:start]
        elif how == 1:
            damaged[start : start + draw.randrange(1, 64)] = draw.randbytes(draw.randrange(64))
        elif how == 2:
            for place in draw.choices(range(len(damaged)), k=4):
                damaged[place] ^= 1 << draw.randrange(8)
        else:
            other = draw.randrange(len(damaged))
            damaged[start:start] = damaged[other : other + 200]
        path.write_bytes(damaged)

        found = find_scenes(source, {"here": HERE})

        assert all(reason for _, reason in found.skipped)
        outcomes.add((len(found.scenes), len(found.skipped)))
    assert {(1, 0), (0, 1)} <= outcomes

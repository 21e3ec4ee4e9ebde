"""The STAC item of a scored scene: valid, complete, and beside the files it names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from imagery.grid import Grid
from imagery.outputs import heatmap, write_item, write_scores
from tests.rasters import NORTH, WEST
from tests.scored import ACROSS_180, HERE, scores_of

LAMBERT = "+proj=laea +lat_0=46 +lon_0=21 +ellps=bessel +units=m +no_defs"
NO_CODE = Grid(rasterio.crs.CRS.from_string(LAMBERT).to_wkt(), (10, 0, 0, 0, -10, 0), 200, 150)
POLAR = Grid("EPSG:3413", (1000, 0, -96_500, 0, -1000, 96_500), 193, 193)


def written(folder: Path, grid: Grid = HERE, location: str = "here", marked: frozenset[int] = frozenset({3})) -> Path:
    """A scored scene in a workspace, and its item."""
    place = folder / "scores" / "v1" / "here"
    item, image, table = place / "2020-06-01.stac.json", place / "2020-06-01_anomaly.tif", place / "2020-06-01.parquet"
    latents = folder / "latents" / "v1" / "here%201" / "2020-06-01.parquet"
    scores = scores_of(set(marked), grid, location)
    with heatmap(image, grid, "reconstruction", {}, 32) as writer:
        for tile in grid.tiles(32)[:-1]:
            writer.add(tile, np.full((32, 32), tile.row_off, np.float32))
    write_scores(table, scores)
    write_scores(latents, scores)
    write_item(item, scores, grid, 0.75, heatmap=image, scores_file=table, latents=latents)
    return item


@pytest.mark.parametrize("grid", [HERE, ACROSS_180, NO_CODE, POLAR], ids=["utm", "across 180", "no code", "polar"])
def test_the_item_is_valid_and_lies_where_the_scene_does(tmp_path: Path, grid: Grid) -> None:
    path = written(tmp_path, grid)

    content = json.loads(path.read_text(encoding="utf-8"))

    # The schemas of the core come with pystac; those of extensions lie on the web.
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, "1.1.0")
    item = pystac.Item.from_file(path)
    outline = shapely.geometry.shape(item.geometry)
    assert outline.is_valid
    assert outline.equals(grid.footprints(grid.tiles(512))[0])
    west, south, east, north = item.bbox
    assert (south, north) == (outline.bounds[1], outline.bounds[3])
    assert (west > east) == (grid is ACROSS_180)  # RFC 7946, section 5.2
    assert item.datetime == datetime(2020, 6, 1, tzinfo=UTC)


def test_the_item_tells_what_the_scores_say(tmp_path: Path) -> None:
    item = pystac.Item.from_file(written(tmp_path, marked=frozenset({3, 4})))

    assert item.id == "here_2020-06-01_v1"
    told = {name.removeprefix("tilewatch:"): value for name, value in item.properties.items() if "tilewatch:" in name}
    assert told == {
        "location": "here",
        "scene_id": "here/2020-06-01",
        "detector_version": "v1",
        "calibration_id": "abc",
        "threshold": 2.5,
        "tiles": 35,
        "scored": 34,
        "flags": 2,
        "valid_fraction": 0.75,
    }
    assert item.properties["proj:code"] == "EPSG:32634"
    assert item.properties["proj:shape"] == [150, 200]
    assert item.properties["proj:transform"] == [10, 0, WEST, 0, -10, NORTH]
    assert item.properties["proj:bbox"] == [WEST, NORTH - 1500, WEST + 2000, NORTH]


def test_a_crs_without_a_code_is_given_in_full(tmp_path: Path) -> None:
    item = pystac.Item.from_file(written(tmp_path, NO_CODE))

    assert item.properties["proj:code"] is None
    assert rasterio.crs.CRS.from_wkt(item.properties["proj:wkt2"]) == rasterio.crs.CRS.from_wkt(NO_CODE.crs)


def test_its_assets_are_the_files_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    item = pystac.Item.from_file(path)

    assert {name: asset.href for name, asset in item.assets.items()} == {
        "heatmap": "./2020-06-01_anomaly.tif",
        "scores": "./2020-06-01.parquet",
        "latents": "./../../../latents/v1/here%25201/2020-06-01.parquet",  # a URL, and the folder's name has a %
    }
    assert item.assets["heatmap"].media_type == pystac.MediaType.COG
    with rasterio.open(item.assets["heatmap"].get_absolute_href()) as dataset:
        values = dataset.read(1)
    (band,) = item.assets["heatmap"].extra_fields["bands"]
    assert (band["name"], band["data_type"], band["nodata"]) == ("reconstruction", "float32", "nan")
    assert band["statistics"] == pytest.approx(
        {
            "minimum": np.nanmin(values),
            "maximum": np.nanmax(values),
            "mean": np.nanmean(values),
            "stddev": np.nanstd(values.astype(float)),
            "valid_percent": 100 * np.isfinite(values).mean(),
        }
    )
    table = pd.read_parquet(item.assets["scores"].get_absolute_href())
    assert len(table) == item.properties["tilewatch:tiles"]


def test_names_of_places_are_kept_apart_in_its_id(tmp_path: Path) -> None:
    item = pystac.Item.from_file(written(tmp_path, location="Brașov/2"))

    assert item.id == "Bra%C8%99ov%2F2_2020-06-01_v1"
    assert item.properties["tilewatch:location"] == "Brașov/2"


def test_the_same_scene_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    assert written(tmp_path / "a").read_bytes() == written(tmp_path / "elsewhere" / "b").read_bytes()

"""Scenes of one place, on servers that may fail, and what must come of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from pyproj import Transformer

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tests.items import asset, item
from tests.rasters import BANDS, NORTH, UTM, WEST, ground, write_raster
from tests.servers import Fault, Requests, failing_proxy, free_port, stac_api

ROOT = Path(__file__).parents[3]
SIDE = 256
DAYS = [date(2024, 6, 1) + timedelta(days=5 * number) for number in range(3)]
LAYOUT = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "interleave": "band"}
PLACE = {"crs": UTM, "bounds": (WEST, NORTH - SIDE * 10, WEST + SIDE * 10, NORTH), "resolution": 10.0}


def failing(url: str, fault: Fault, folder: Path) -> AbstractContextManager[tuple[str, Requests]]:
    """A server that fails every third request; one that breaks off in the middle does so less often.

    GDAL tries a refused request again. What broke off it keeps, so that the files are opened anew and all is asked for
    again: that ends only where enough requests in a row go well.
    """
    return failing_proxy(url, fault, folder / f"requests-{urlsplit(url).port}", 11 if fault == "truncated" else 3)


def write_scenes(folder: Path, days: Sequence[date] = DAYS) -> Path:
    """Scenes of one place as plain files of about half a megabyte."""
    for seed, day in enumerate(days):
        missing = np.zeros((SIDE, SIDE), bool)
        missing[:10, :20] = True
        bands = ground(SIDE, SIDE, seed=seed)
        write_raster(folder / "here" / f"{day}.tif", bands, missing=missing, nodata="declared", **LAYOUT)
    return folder


def settings_of(**source: Any) -> Settings:
    values = {"bands": BANDS, "timeout": 20} | source
    sections: dict[str, Any] = {"locations": {"here": PLACE}} if values.get("kind", "files") != "files" else {}
    return Settings.model_validate({"source": values, "grid": {"tile_size": 64}, **sections})


def ingest(settings: Settings, workspace: Workspace) -> list[SceneRecord]:
    """All scenes, none of them lost."""
    plan = plan_ingest(settings, workspace)
    assert plan.skipped == ()
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        assert ingest_scene(scene, settings, workspace).reason is None
    return Catalog(workspace).scenes()


def check_same(settings: Settings, plain: Settings, folder: Path, scenes: int = len(DAYS)) -> None:
    """Scenes from elsewhere give what the same files give from a folder, and are not read twice."""
    expected, found = Workspace(folder / "expected"), Workspace(folder / "found")
    before, after = ingest(plain, expected), ingest(settings, found)
    assert [record.scene_id for record in after] == [record.scene_id for record in before]
    assert len(after) == scenes
    for one, other in zip(before, after, strict=True):
        assert (other.valid_fraction, other.masked) == (one.valid_fraction, one.masked)
        assert {band: other.stats[band].mean for band in BANDS} == {band: one.stats[band].mean for band in BANDS}
        tiles = [Catalog(place).tiles(record) for place, record in ((expected, one), (found, other))]
        same = [pd.DataFrame(table).drop(columns=["geometry", "fingerprint", "ingested_at"]) for table in tiles]
        pd.testing.assert_frame_equal(*same)
    again = plan_ingest(settings, found)
    assert (len(again.scenes), again.unchanged) == (0, scenes)


def footprint() -> tuple[tuple[float, float], ...]:
    """Longitude and latitude of the corners of the scenes, with a margin."""
    left, bottom, right, top = PLACE["bounds"]
    transform = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform
    corners = (
        (left - 500, top + 500),
        (right + 500, top + 500),
        (right + 500, bottom - 500),
        (left - 500, bottom - 500),
    )
    return tuple(transform(*corner) for corner in corners)


def items_of(base: str, days: Sequence[date] = DAYS) -> list[dict[str, Any]]:
    """Items of the scenes, each band an asset of one file."""
    west, north = footprint()[0]
    east, south = footprint()[2]
    return [
        item(
            f"scene-{day}",
            {"image": asset(f"{base}/here/{day}.tif", **{"eo:bands": [{"name": band} for band in BANDS]})},
            box=(west, south, east, north),
            datetime=f"{day}T00:00:00Z",
            **{"eo:cloud_cover": 10},
        )
        for day in days
    ]


@contextmanager
def api_behind(folder: Path, items: Sequence[dict[str, Any]], fault: Fault | None) -> Iterator[tuple[str, Requests]]:
    """A STAC API behind a proxy, to which its links lead as well."""
    port = free_port()
    every = {"truncated": 11, None: 1_000_000}.get(fault, 3)
    proxy = failing_proxy(f"http://127.0.0.1:{port}", fault or "503", folder / "requests", every)
    with proxy as (url, requests), stac_api(folder, items, port, url):
        yield url, requests

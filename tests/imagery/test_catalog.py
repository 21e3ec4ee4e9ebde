"""What the catalog says of a scene is what numpy finds in its pixels, and what is read back is what was written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import Workspace
from configs.schema import MaskSettings
from imagery.catalog import Catalog, SceneRecord, scene_file
from imagery.grid import Grid
from imagery.sources import Scene, SceneFile
from imagery.statistics import BandStats
from imagery.survey import survey
from tests.rasters import DAY, NORTH, UTM, WEST, ground, open_scene, read_scene, source_settings, write_raster

BANDS = ("B02", "B08")
CONTRACT = {
    "tile_id", "location", "scene_id", "acquired", "row_off", "col_off", "height", "width", "geometry", "crs",
    "valid_fraction", "cloud_fraction", "fingerprint", "ingested_at",
    *(f"{band}_{name}" for band in BANDS for name in ("mean", "std", "p02", "p98")),
}  # fmt: skip
MASKS = MaskSettings(class_band="SCL")


def cloudy_scene(folder: Path, height: int = 40, width: int = 50, seed: int = 0) -> Path:
    """Random ground under random clouds; the tile at the upper left is all cloud, that below it all nodata."""
    draw = np.random.default_rng(seed)
    classes = draw.choice([4, 5, 8, 9, 11], (height, width), p=[0.4, 0.2, 0.1, 0.2, 0.1])
    classes[:16, :16] = 9
    missing = draw.random((height, width)) < 0.1
    missing[16:32, :16] = True
    path = folder / f"scene-{seed}.tif"
    return write_raster(path, ground(height, width, BANDS, seed), nodata="declared", missing=missing, classes=classes)


def surveyed(path: Path, tile_size: int = 16):
    with open_scene(path, source_settings(BANDS, scale=1e-4, offset=-0.05), MASKS) as reader:
        return survey(reader, BANDS, tile_size), reader.grid


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(5, 50),
    width=st.integers(5, 50),
    tile_size=st.sampled_from([8, 16, 32]),
    seed=st.integers(0, 999),
)
def test_a_survey_says_of_every_tile_what_numpy_finds_in_it(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, tile_size: int, seed: int
) -> None:
    path = cloudy_scene(tmp_path_factory.mktemp("survey"), height, width, seed)

    found, grid = surveyed(path, tile_size)

    pixels = read_scene(path, source_settings(BANDS, scale=1e-4, offset=-0.05), MASKS)
    assert len(found.tiles) == len(grid.tiles(tile_size))
    for row, tile in zip(found.tiles.itertuples(), grid.tiles(tile_size), strict=True):
        assert row.tile_id == tile.tile_id("here")
        assert (row.row_off, row.col_off, row.height, row.width) == (
            tile.row_off,
            tile.col_off,
            tile.height,
            tile.width,
        )
        window = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
        valid = pixels.valid[window]
        assert row.valid_fraction == pytest.approx(valid.mean())
        assert row.cloud_fraction == pytest.approx(pixels.cloud[window].mean())
        for values, band in zip(pixels.values, BANDS, strict=True):
            good = values[window][valid].astype(np.float64)
            described = [getattr(row, f"{band}_{name}") for name in ("mean", "std", "p02", "p98")]
            if not good.size:
                assert np.isnan(described).all()
                continue
            expected = [good.mean(), good.std(), *np.percentile(good, (2, 98), method="nearest")]
            np.testing.assert_allclose(described, expected, rtol=2e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(5, 50), width=st.integers(5, 50), seed=st.integers(0, 999))
def test_a_survey_says_of_the_scene_what_numpy_finds_in_it(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    path = cloudy_scene(tmp_path_factory.mktemp("survey"), height, width, seed)

    found, _ = surveyed(path)

    pixels = read_scene(path, source_settings(BANDS, scale=1e-4, offset=-0.05), MASKS)
    assert found.valid_fraction == pytest.approx(pixels.valid.mean())
    assert found.data_fraction == pytest.approx(pixels.data.mean())
    assert found.cloud_fraction == pytest.approx(pixels.cloud.sum() / max(pixels.data.sum(), 1))
    for values, band in zip(pixels.values, BANDS, strict=True):
        good = values[pixels.valid].astype(np.float64)
        stats = found.stats[band]
        assert stats.count == good.size
        if good.size:
            np.testing.assert_allclose([stats.mean, stats.std], [good.mean(), good.std()], rtol=1e-6, atol=1e-9)
            assert (stats.minimum, stats.maximum) == (good.min(), good.max())


def test_what_lies_under_a_mask_changes_no_statistic(tmp_path: Path) -> None:
    classes = np.where(np.arange(32) < 20, 4, 9) * np.ones((32, 1), int)
    numbers = ground(bands=BANDS)
    changed = {band: np.where(classes == 9, 9999, values).astype(np.uint16) for band, values in numbers.items()}

    one, _ = surveyed(write_raster(tmp_path / "one.tif", numbers, classes=classes))
    other, _ = surveyed(write_raster(tmp_path / "other.tif", changed, classes=classes))

    assert {band: stats.to_record() for band, stats in one.stats.items()} == {
        band: stats.to_record() for band, stats in other.stats.items()
    }
    assert one.tiles.drop(columns="geometry").equals(other.tiles.drop(columns="geometry"))


def record_of(path: Path, found, location: str = "here", number: int = 1) -> SceneRecord:
    return SceneRecord(
        scene_id=Scene(location, DAY, (), number).scene_id,
        location=location,
        acquired=DAY,
        number=number,
        files=(SceneFile("", str(path)),),
        stamp=("a 1 2",),
        fingerprint="f00",
        key="k1",
        tile_size=16,
        stride=16,
        tiles=len(found.tiles),
        valid_fraction=found.valid_fraction,
        data_fraction=found.data_fraction,
        cloud_fraction=found.cloud_fraction,
        stats=found.stats,
        ingested_at=datetime(2020, 6, 2, 3, tzinfo=UTC),
    )


def written(tmp_path: Path, location: str = "here") -> tuple[Catalog, SceneRecord, gpd.GeoDataFrame]:
    path = cloudy_scene(tmp_path)
    found, grid = surveyed(path)
    catalog, record = Catalog(Workspace(tmp_path / "w")), record_of(path, found, location)
    catalog.settle_grid(location, grid)
    catalog.write(record, found.tiles)
    return catalog, record, found.tiles


def same(one: SceneRecord, other: SceneRecord) -> bool:
    return one.to_json() == other.to_json()


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    catalog, record, _ = written(tmp_path)

    again = catalog.get(record.scene)

    assert again is not None
    assert same(again, record)
    assert again.acquired == record.acquired
    assert again.files == record.files
    assert (again.stats["B02"].sketch == record.stats["B02"].sketch).all()
    assert again.scene == Scene("here", DAY, record.files)
    assert [same(one, record) for one in catalog.scenes()] == [True]


def test_the_tiles_are_geoparquet_with_the_columns_of_the_contract(tmp_path: Path) -> None:
    catalog, record, tiles = written(tmp_path)
    path = tmp_path / "w/catalog/here/2020-06-01.parquet"

    frame = gpd.read_parquet(path)

    assert set(frame.columns) == CONTRACT
    assert frame.crs == "EPSG:4326"
    assert frame["acquired"].dt.tz is not None
    assert (frame["acquired"] == record.acquired).all()
    assert set(frame["location"]) == {"here"}
    assert set(frame["scene_id"]) == {"here/2020-06-01"}
    assert set(frame["crs"]) == {UTM}
    assert set(frame["fingerprint"]) == {"f00"}
    assert frame["tile_id"].is_unique
    for column in tiles.columns.drop("geometry"):
        np.testing.assert_array_equal(frame[column], tiles[column], err_msg=column)
    assert frame.geometry.geom_equals(tiles.geometry).all()
    assert catalog.tiles(record).equals(frame)


@pytest.mark.parametrize("location", ["../up", "a/b", "Brașov 2", ".hidden", "grid.json"])
def test_odd_names_of_places_stay_in_the_catalog(tmp_path: Path, location: str) -> None:
    catalog, record, _ = written(tmp_path, location)

    assert [one.location for one in catalog.scenes()] == [location]
    assert set(catalog.tiles(record)["location"]) == {location}
    assert catalog.grid(location) is not None
    outside = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".parquet")]
    assert all(path.is_relative_to(tmp_path / "w/catalog") for path in outside)


def test_a_scene_that_is_removed_is_forgotten_and_its_location_keeps_its_grid(tmp_path: Path) -> None:
    catalog, record, _ = written(tmp_path)

    catalog.remove(record.scene)
    catalog.remove(record.scene)  # once more does no harm

    assert catalog.get(record.scene) is None
    assert catalog.scenes() == []
    assert catalog.grid("here") is not None


def test_scenes_of_one_place_and_time_do_not_overwrite_each_other(tmp_path: Path) -> None:
    catalog, record, tiles = written(tmp_path)
    second = record_of(tmp_path / "b.tif", surveyed(cloudy_scene(tmp_path, seed=1))[0], number=2)

    catalog.write(second, tiles)

    assert [one.number for one in catalog.scenes()] == [1, 2]
    assert same(catalog.get(record.scene), record)  # type: ignore[arg-type]


def test_a_scene_is_in_the_catalog_only_when_both_its_files_are(tmp_path: Path) -> None:
    """The record is written last: a run that is killed between the two leaves no scene behind."""
    catalog, record, _ = written(tmp_path)
    folder = tmp_path / "w/catalog/here"

    assert (folder / "2020-06-01.json").stat().st_mtime_ns >= (folder / "2020-06-01.parquet").stat().st_mtime_ns
    (folder / "2020-06-01.json").unlink()
    assert catalog.scenes() == []
    assert catalog.get(record.scene) is None


def test_the_first_grid_to_come_is_kept_whoever_comes_at_the_same_time(tmp_path: Path) -> None:
    catalog, start = Catalog(Workspace(tmp_path)), Barrier(8)
    grids = [Grid(UTM, (10, 0, WEST + 10 * n, 0, -10, NORTH), 32, 32) for n in range(8)]

    def settle(grid: Grid) -> Grid:
        start.wait()
        return catalog.settle_grid("here", grid)

    with ThreadPoolExecutor(8) as pool:
        settled = set(pool.map(settle, grids))

    assert len(settled) == 1
    assert settled == {catalog.grid("here")}
    assert settled <= set(grids)
    assert catalog.settle_grid("here", grids[0]) in settled


def test_a_location_without_a_scene_has_no_grid(tmp_path: Path) -> None:
    assert Catalog(Workspace(tmp_path)).grid("here") is None
    assert Catalog(Workspace(tmp_path)).scenes() == []


def test_scenes_are_listed_oldest_first(tmp_path: Path) -> None:
    found, grid = surveyed(cloudy_scene(tmp_path))
    catalog = Catalog(Workspace(tmp_path / "w"))
    catalog.settle_grid("here", grid)
    for day in (3, 1, 2):
        record = record_of(tmp_path / "a.tif", found)
        values = {**record.__dict__, "acquired": datetime(2020, 1, day, tzinfo=UTC), "scene_id": f"here/{day}"}
        catalog.write(SceneRecord(**values), found.tiles)

    assert [record.day.day for record in catalog.scenes()] == [1, 2, 3]


def test_empty_statistics_are_kept_as_such(tmp_path: Path) -> None:
    found, _ = surveyed(cloudy_scene(tmp_path))
    record = record_of(tmp_path / "a.tif", found)
    record = SceneRecord(**{**record.__dict__, "stats": {"B02": BandStats()}})

    again = SceneRecord.from_json(record.to_json())

    assert again.stats["B02"].count == 0
    assert np.isnan(again.stats["B02"].percentile(50))


def test_the_files_of_a_scene_lie_in_a_folder_of_their_location(tmp_path: Path) -> None:
    when = datetime(2020, 2, 29, tzinfo=UTC)

    assert scene_file(tmp_path, Scene("a/b", when, ()), ".json") == tmp_path / "a%2Fb" / "2020-02-29.json"
    assert scene_file(tmp_path, Scene("..", when, (), 2), ".tif") == tmp_path / "%2E." / "2020-02-29_2.tif"

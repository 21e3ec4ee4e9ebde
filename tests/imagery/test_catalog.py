"""What is read back from the catalog is what was written; a scene is in it whole or not at all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Event

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest

from configs import Workspace
from configs.workspace import write_text
from imagery import catalog as catalog_module
from imagery.catalog import Catalog, SceneRecord, SceneReplaced, scene_file
from imagery.grid import Grid
from imagery.quarantine import Quarantine
from imagery.sources import Scene, SceneFile
from imagery.statistics import BandStats
from tests.catalogs import enter, files_below, scene_record, tile_frame
from tests.rasters import DAY, NORTH, UTM, WEST

BANDS = ("B02", "B08")
CONTRACT = {
    "tile_id", "location", "scene_id", "acquired", "row_off", "col_off", "height", "width", "geometry", "crs",
    "valid_fraction", "cloud_fraction", "fingerprint", "ingested_at",
    *(f"{band}_{name}" for band in BANDS for name in ("mean", "std", "p02", "p98")),
}  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(Workspace(tmp_path / "w"))


def same(one: SceneRecord, other: SceneRecord) -> bool:
    ours, theirs = ({band: stats.to_record() for band, stats in record.stats.items()} for record in (one, other))
    return one.to_json() == other.to_json() and ours == theirs


def test_a_record_is_read_back_as_it_was_written(catalog: Catalog) -> None:
    record = enter(catalog, files=(SceneFile("B02", "/a.tif", scale=1e-4), SceneFile("B08", "/b.tif", stamp="etag")))

    again = catalog.get(record.scene)

    assert again is not None
    assert same(again, record)
    assert again.acquired == record.acquired
    assert again.files == record.files
    assert again.masked == {"cloud": 0.25}
    assert (again.stats["B02"].sketch == record.stats["B02"].sketch).all()
    assert again.scene == Scene("here", DAY, record.files)
    assert [same(one, record) for one in catalog.scenes()] == [True]


def test_the_tiles_are_geoparquet_with_the_columns_of_the_contract(catalog: Catalog) -> None:
    record, tiles = enter(catalog, seed=3), tile_frame(Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 48, 48), seed=3)
    path = catalog.workspace.catalog / "here/2020-06-01.parquet"

    frame = gpd.read_parquet(path)

    assert set(frame.columns) == CONTRACT
    assert frame.crs == "EPSG:4326"
    assert frame["acquired"].dt.tz is not None
    assert (frame["acquired"] == record.acquired).all()
    assert set(frame["location"]) == {"here"}
    assert set(frame["scene_id"]) == {"here/2020-06-01"}
    assert set(frame["crs"]) == {UTM}
    assert set(frame["fingerprint"]) == {"f3"}
    assert frame["tile_id"].is_unique
    for column in tiles.columns.drop("geometry"):
        np.testing.assert_array_equal(frame[column], tiles[column], err_msg=column)
    assert frame.geometry.geom_equals(tiles.geometry).all()
    assert catalog.tiles(record).equals(frame)


def test_the_tiles_can_be_chosen_by_place_with_the_covering_of_geoparquet(catalog: Catalog) -> None:
    enter(catalog)
    path = catalog.workspace.catalog / "here/2020-06-01.parquet"
    geo = json.loads(pq.read_schema(path).metadata[b"geo"])
    centre = gpd.read_parquet(path).geometry.iloc[4].centroid

    assert geo["version"] >= "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert len(gpd.read_parquet(path, bbox=(centre.x, centre.y, centre.x, centre.y))) == 1


def test_the_same_scene_is_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("one", "other"):
        enter(Catalog(Workspace(tmp_path / name)))
        written.append({file: (tmp_path / name / file).read_bytes() for file in files_below(tmp_path / name)})

    assert written[0] == written[1]
    assert set(written[0]) >= {"catalog/here/2020-06-01.json", "catalog/here/2020-06-01.parquet"}


@pytest.mark.parametrize("location", ["../up", "a/b", "Brașov 2", ".hidden", "grid.json"])
def test_odd_names_of_places_stay_in_the_catalog(catalog: Catalog, tmp_path: Path, location: str) -> None:
    record = enter(catalog, location)

    assert [one.location for one in catalog.scenes()] == [location]
    assert set(catalog.tiles(record)["location"]) == {location}
    assert catalog.grid(location) is not None
    assert all(name.startswith("w/catalog/") for name in files_below(tmp_path))


def test_a_scene_that_is_removed_is_forgotten_and_its_location_keeps_its_grid(catalog: Catalog) -> None:
    record = enter(catalog)

    catalog.remove(record.scene)
    catalog.remove(record.scene)  # once more does no harm
    catalog.remove(Scene("elsewhere", DAY, ()))

    assert catalog.get(record.scene) is None
    assert catalog.scenes() == []
    assert catalog.query().empty
    assert catalog.grid("here") is not None
    assert catalog.locations() == ["here"]


def test_scenes_of_one_place_and_time_do_not_overwrite_each_other(catalog: Catalog) -> None:
    record = enter(catalog)

    enter(catalog, number=2, seed=1)

    assert [one.number for one in catalog.scenes()] == [1, 2]
    assert same(catalog.get(record.scene), record)  # type: ignore[arg-type]


def test_a_scene_is_in_the_catalog_only_when_both_its_files_are(catalog: Catalog) -> None:
    record = enter(catalog)
    (catalog.workspace.catalog / "here/2020-06-01.json").unlink()

    assert catalog.scenes() == []
    assert catalog.get(record.scene) is None
    assert catalog.query().empty


def test_a_run_that_is_killed_as_it_replaces_a_scene_leaves_no_half_of_it(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the old record would stand beside new tiles for good, if the settings were then set back."""
    record = enter(catalog)

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog_module, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        enter(catalog, seed=1)

    assert catalog.get(record.scene) is None
    assert catalog.query().empty
    monkeypatch.undo()
    again = enter(catalog, seed=1)
    assert same(catalog.scenes()[0], again)


def test_a_run_that_fails_to_write_the_tiles_leaves_the_scene_as_it_was(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = enter(catalog)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(catalog_module, "write_tiles", full)
    with pytest.raises(OSError, match="no space left"):
        enter(catalog, seed=1)

    assert same(catalog.get(record.scene), record)  # type: ignore[arg-type]
    assert len(catalog.tiles(record)) == 9


def test_two_who_write_the_same_scene_wait_for_each_other(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tiles of the one may end beside the record of the other."""
    between, go_on = Event(), Event()

    def slow(path: Path, text: str) -> None:
        if not between.is_set():  # the first of them, whose tiles are there and whose record is not
            between.set()
            assert go_on.wait(20)
        write_text(path, text)

    monkeypatch.setattr(catalog_module, "write_text", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(enter, catalog, seed=1)
        assert between.wait(20)
        second = pool.submit(enter, catalog, seed=2)
        finished = wait([second], timeout=0.3).done
        go_on.set()
        first.result(), second.result()

    assert finished == set()
    (record,) = catalog.scenes()
    assert record.fingerprint == "f2"
    assert set(catalog.tiles(record)["fingerprint"]) == {"f2"}


def test_an_old_record_gets_no_tiles_and_no_statistics_of_a_scene_that_was_entered_anew(catalog: Catalog) -> None:
    enter(catalog)
    (before,) = catalog.scenes()
    enter(catalog, seed=1)
    (after,) = catalog.scenes()

    for ask in (lambda: catalog.tiles(before), lambda: before.stats["B02"]):
        with pytest.raises(SceneReplaced, match="here/2020-06-01 was entered anew or taken out"):
            ask()
    assert set(catalog.tiles(after)["fingerprint"]) == {"f1"}
    catalog.remove(after.scene)
    with pytest.raises(SceneReplaced):
        catalog.tiles(after)


def test_a_record_is_written_anew_only_beside_its_own_tiles(catalog: Catalog) -> None:
    record = enter(catalog)
    touched = replace(record, stamp=("a 1 3",))

    catalog.write_record(touched)
    assert catalog.get(record.scene).stamp == ("a 1 3",)  # type: ignore[union-attr]
    assert len(catalog.tiles(touched)) == 9

    enter(catalog, seed=1)
    catalog.write_record(touched)  # of a reading that is there no more
    assert catalog.get(record.scene).fingerprint == "f1"  # type: ignore[union-attr]
    catalog.remove(record.scene)
    catalog.write_record(touched)
    assert catalog.get(record.scene) is None


def test_a_scene_without_a_grid_cannot_be_entered(catalog: Catalog) -> None:
    with pytest.raises(FileNotFoundError, match="here has no grid"):
        catalog.write(scene_record(), tile_frame(Grid(UTM, (10, 0, WEST, 0, -10, NORTH), 48, 48)))


OF_OLDER_VERSION = {
    "scene_id": "here/2020-06-01", "location": "here", "acquired": "2020-06-01T00:00:00+00:00", "number": 1,
    "files": [{"band": "", "path": "/a.tif"}], "stamp": ["a 1 2"], "fingerprint": "f0", "key": "k1", "tile_size": 16,
    "tiles": 9, "valid_fraction": 0.5, "data_fraction": 1.0, "cloud_fraction": 0.1, "stats": {},
    "ingested_at": "2020-06-02T03:00:00+00:00",
}  # fmt: skip


def changed_record(catalog: Catalog, **changes: object) -> str:
    written = json.loads(scene_record().to_json())
    return json.dumps({key: value for key, value in (written | changes).items() if value is not None})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OF_OLDER_VERSION),
        "",
        "{",
        "[]",
        "null",
        "\x00\xff",
        lambda catalog: changed_record(catalog, format=99),
        lambda catalog: changed_record(catalog, format=None),
        lambda catalog: changed_record(catalog, masked=None),
        lambda catalog: changed_record(catalog, haze=0.1),
        lambda catalog: changed_record(catalog, files=[{"band": "", "path": "a", "color": 1}]),
        lambda catalog: changed_record(catalog, acquired="yesterday"),
        lambda catalog: changed_record(catalog, stamp=5),
    ],
)
def test_a_record_of_another_version_counts_as_new_and_this_is_said_once(
    catalog: Catalog, caplog: pytest.LogCaptureFixture, text: object
) -> None:
    record = enter(catalog)
    kept = enter(catalog, "there")
    path = catalog.workspace.catalog / "here/2020-06-01.json"
    path.write_text(text(catalog) if callable(text) else str(text), encoding="latin-1")

    assert catalog.get(record.scene) is None
    assert [one.scene_id for one in catalog.scenes()] == [kept.scene_id]
    assert caplog.text.count("was written by another version of tilewatch, or is damaged") == 1
    assert str(path) in caplog.text

    enter(catalog, seed=1)
    assert {one.fingerprint for one in catalog.scenes()} == {"f0", "f1"}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"scene_id": "here/2020-06-01", "why": "?"}', "\xff"])
def test_a_quarantine_record_of_another_version_counts_as_none(
    catalog: Catalog, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    quarantine, scene = Quarantine(catalog.workspace), Scene("here", DAY, ())
    quarantine.add(scene, "ingest", "cannot be opened", (), "key")
    (catalog.workspace.quarantine / "here/2020-06-01.json").write_text(text, encoding="latin-1")

    assert quarantine.get(scene) is None
    assert quarantine.records() == []
    assert "its scene is tried again" in caplog.text


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


def test_scenes_are_listed_oldest_first(catalog: Catalog) -> None:
    for day in (3, 1, 2):
        enter(catalog, acquired=datetime(2020, 1, day, tzinfo=UTC))

    assert [record.day.day for record in catalog.scenes()] == [1, 2, 3]


def test_empty_statistics_are_kept_as_such(catalog: Catalog) -> None:
    enter(catalog, stats={"B02": BandStats()})

    (again,) = catalog.scenes()

    assert again.stats["B02"].count == 0
    assert np.isnan(again.stats["B02"].percentile(50))
    assert dict(again.stats).keys() == {"B02"}


def test_the_files_of_a_scene_lie_in_a_folder_of_their_location(tmp_path: Path) -> None:
    when = datetime(2020, 2, 29, tzinfo=UTC)

    assert scene_file(tmp_path, Scene("a/b", when, ()), ".json") == tmp_path / "a%2Fb" / "2020-02-29.json"
    assert scene_file(tmp_path, Scene("..", when, (), 2), ".tif") == tmp_path / "%2E." / "2020-02-29_2.tif"

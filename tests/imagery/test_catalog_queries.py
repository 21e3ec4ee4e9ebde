"""A query gives what was asked for, no more and no less, and opens no file of other places and times."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import box

from configs import Workspace
from imagery.catalog import Catalog, read_record
from imagery.errors import ImageryError
from imagery.grid import Grid
from imagery.quarantine import Quarantine
from imagery.sources import Scene
from tests.catalogs import enter, grid_at, tile_frame
from tests.rasters import NORTH, WEST

FIRST = datetime(2020, 5, 30, 10, tzinfo=UTC)
DAYS = [FIRST + timedelta(days=day) for day in range(4)]
PLACES = {"a": grid_at(), "b/c": grid_at(west=WEST + 2000), "Brașov": grid_at(north=NORTH + 3000)}
EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Three places that lie apart, on four days."""
    catalog = Catalog(Workspace(tmp_path_factory.mktemp("catalog")))
    for seed, ((name, grid), acquired) in enumerate(product(PLACES.items(), DAYS)):
        enter(catalog, name, acquired, grid=grid, seed=seed)
    return catalog


_watching: list[list[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watching:
        _watching[-1].append(str(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def opened(folder: Path) -> Iterator[Callable[[], list[str]]]:
    """Which files of a folder this process opens, in order."""
    names: list[str] = []
    _watching.append(names)
    try:
        yield lambda: [Path(name).relative_to(folder).as_posix() for name in names if name.startswith(f"{folder}/")]
    finally:
        _watching.remove(names)


@pytest.mark.parametrize("name", PLACES)
def test_the_days_of_a_place_are_known_without_opening_a_file(catalog: Catalog, name: str) -> None:
    with opened(catalog.workspace.root) as files:
        assert catalog.days(name) == [one.date() for one in DAYS]
        assert catalog.days("nowhere") == []
        assert files() == []


def test_all_tiles_come_by_place_and_time_as_they_are_in_the_scenes(catalog: Catalog) -> None:
    found = catalog.query()

    records = sorted(catalog.scenes(), key=lambda record: (record.location, record.acquired))
    assert found.equals(pd.concat([catalog.tiles(record) for record in records], ignore_index=True))
    assert found.crs == "EPSG:4326"
    assert len(found) == 12 * 9


@given(
    names=st.none() | st.sets(st.sampled_from([*PLACES, "elsewhere"])),
    since=st.none() | st.sampled_from(DAYS),
    until=st.none() | st.sampled_from(DAYS),
    corner=st.none() | st.tuples(st.floats(-0.01, 0.05), st.floats(-0.02, 0.04)),
)
def test_any_choice_is_what_one_would_choose_from_all(
    catalog: Catalog, names: set[str] | None, since: Any, until: Any, corner: tuple[float, float] | None
) -> None:
    everything = catalog.query()
    since, until = since and since.date(), until and until.date()
    left, _, _, top = everything.total_bounds
    place = (left + corner[0], top + corner[1] - 0.01, left + corner[0] + 0.008, top + corner[1]) if corner else None

    tiles = catalog.query(names, since, until, place)
    scenes = catalog.scenes(names, since, until, place)

    days = everything["acquired"].dt.date
    expected = everything[
        (everything["location"].isin(names) if names is not None else True)
        & (days >= since if since else True)
        & (days <= until if until else True)
        & (everything.intersects(box(*place)) if place else True)
        & everything["tile_id"].notna()
    ]
    assert tiles[expected.columns if len(tiles) else tiles.columns].equals(
        expected.reset_index(drop=True)[tiles.columns]
    )
    assert {record.scene_id for record in scenes} == set(expected["scene_id"])
    assert [record.acquired for record in scenes] == sorted(record.acquired for record in scenes)


def test_only_files_of_the_place_and_time_are_opened(catalog: Catalog) -> None:
    folder = catalog.workspace.catalog
    read_record.forget()

    with opened(folder) as files:
        assert len(catalog.scenes(["b/c"], since=date(2020, 5, 31), until=date(2020, 6, 1))) == 2
    assert files() == ["b%2Fc/2020-05-31T100000Z.json", "b%2Fc/2020-06-01T100000Z.json"]

    with opened(folder) as files:
        assert len(catalog.query(["b/c"], until=date(2020, 5, 30))) == 9
    assert files() == ["b%2Fc/2020-05-30T100000Z.parquet"]

    with opened(folder) as files:
        assert len(catalog.query(["elsewhere"])) == 0
        assert len(catalog.query(since=date(2021, 1, 1))) == 0
    assert files() == []


def test_of_other_places_only_the_grid_is_opened(catalog: Catalog) -> None:
    """A box of one tile within `a`."""
    tile = tile_frame(PLACES["a"]).geometry.iloc[4].centroid
    place = (tile.x, tile.y, tile.x, tile.y)

    with opened(catalog.workspace.catalog) as files:
        tiles = catalog.query(bbox=place, until=date(2020, 5, 31))

    assert set(tiles["location"]) == {"a"}
    assert list(tiles["tile_id"]) == ["a-r00016-c00016"] * 2
    assert sorted(files()) == [
        "Bra%C8%99ov/grid.json",
        "a/2020-05-30T100000Z.parquet",
        "a/2020-05-31T100000Z.parquet",
        "a/grid.json",
        "b%2Fc/grid.json",
    ]

    with opened(catalog.workspace.catalog) as files:
        assert catalog.query(["a"], bbox=(0, 0, 1, 1)).empty
    assert files() == ["a/grid.json"]


def test_statistics_are_not_read_before_they_are_asked_for(catalog: Catalog) -> None:
    with opened(catalog.workspace.catalog) as files:
        (record,) = catalog.scenes(["a"], until=date(2020, 5, 30))
        assert [name for name in files() if name.endswith(".parquet")] == []
        assert record.stats["B02"].count == 90
        assert set(record.stats) == {"B02", "B08"}
    assert [name for name in files() if name.endswith(".parquet")] == ["a/2020-05-30T100000Z.parquet"]


def test_only_the_columns_asked_for_are_read_and_the_footprint(catalog: Catalog) -> None:
    found = catalog.query(["a"], columns=["B08_mean", "tile_id"])

    assert list(found.columns) == ["B08_mean", "tile_id", "geometry"]
    assert found["B08_mean"].equals(catalog.query(["a"])["B08_mean"])
    assert list(catalog.query(["a"], columns=["geometry"]).columns) == ["geometry"]


def test_where_nothing_is_the_columns_are_there_with_their_types(catalog: Catalog) -> None:
    empty, found = catalog.query(["elsewhere"]), catalog.query(["a"])

    assert empty.empty
    assert empty.crs == found.crs
    assert list(empty.columns) == [name for name in found.columns if not name.startswith("B")]
    assert empty.dtypes.equals(found[empty.columns].dtypes)
    assert catalog.query(["elsewhere"], columns=["tile_id", "B02_std"]).dtypes.equals(
        found[["tile_id", "B02_std", "geometry"]].dtypes
    )


def test_a_column_that_is_nowhere_is_named_beside_those_that_are_there(catalog: Catalog) -> None:
    with pytest.raises(ImageryError, match=r"no column B99_mean: there are B02_mean, .*valid_fraction"):
        catalog.query(columns=["tile_id", "B99_mean"])


def test_scenes_that_lack_a_column_have_nothing_in_it(tmp_path: Path) -> None:
    catalog = Catalog(Workspace(tmp_path))
    enter(catalog, "a")
    record = enter(catalog, "b")
    catalog.write(record, tile_frame(grid_at(), "b").assign(B11_mean=0.5))

    found = catalog.query(columns=["location", "B11_mean"])

    assert found.groupby("location")["B11_mean"].count().to_dict() == {"a": 0, "b": 9}
    assert set(catalog.query().columns) >= {"B11_mean", "B02_mean"}


@pytest.mark.parametrize(
    "place",
    [(200, 0, 210, 1), (0, 2, 1, 1), (0, -91, 1, 0), (float("nan"), 0, 1, 1), (0, 0, 1, float("inf"))],
)
def test_a_box_that_is_none_is_refused_with_its_numbers(catalog: Catalog, place: Any) -> None:
    for ask in (catalog.query, catalog.scenes):
        with pytest.raises(
            ImageryError, match=rf"the box {place[0]:g}, {place[1]:g}, .* is not west, south, east, north"
        ):
            ask(bbox=place)


def test_a_box_across_the_180th_meridian_finds_both_sides(tmp_path: Path) -> None:
    """Taveuni, Fiji, lies on it; UTM zones 60 and 1 meet there."""
    catalog = Catalog(Workspace(tmp_path))
    enter(catalog, "west", grid=grid_at(812_000, 8_130_000, crs="EPSG:32760"))
    enter(catalog, "east", grid=grid_at(190_000, 8_130_000, crs="EPSG:32701"))
    across = grid_at(810_000, 8_140_000, crs="EPSG:32760")
    across = Grid(across.crs, (400, 0, across.transform[2], 0, -400, across.transform[5]), 48, 48)
    enter(catalog, "across", grid=across)
    enter(catalog, "far")

    def places(west: float, east: float) -> set[str]:
        box = (west, -18.0, east, -16.0)
        tiles = set(catalog.query(bbox=box)["location"])
        assert {record.location for record in catalog.scenes(bbox=box)} == tiles
        return tiles

    assert places(179.9, -179.9) == {"west", "east", "across"}
    assert places(179.9, 180) == {"west", "across"}
    assert places(-180, -179.9) == {"east", "across"}
    assert places(-170, 170) == set()
    # Of the place that is cut there, a tile counts on its own side alone.
    western = catalog.query(["across"], bbox=(179.9, -18, 180, -16))
    eastern = catalog.query(["across"], bbox=(-180, -18, -179.9, -16))
    assert 0 < len(western) < 9
    assert set(western["tile_id"]) | set(eastern["tile_id"]) == set(catalog.query(["across"])["tile_id"])


def test_locations_are_listed_by_their_real_names(tmp_path: Path) -> None:
    catalog = Catalog(Workspace(tmp_path))
    assert catalog.locations() == []
    names = sorted([*PLACES, "long " * 60, "%41", ".hidden", "x~y"])
    for name in names:
        enter(catalog, name)

    assert catalog.locations() == names
    assert catalog.near(EVERYWHERE) == names
    assert [len(catalog.query([name])) for name in names] == [9] * len(names)


def test_scenes_of_one_day_come_in_the_order_of_time_and_number(tmp_path: Path) -> None:
    catalog = Catalog(Workspace(tmp_path))
    midnight = datetime(2020, 6, 1, tzinfo=UTC)
    for number in (10, 2, 1):
        enter(catalog, acquired=midnight, number=number)
    enter(catalog, acquired=midnight.replace(hour=9, microsecond=5))

    found = catalog.query(columns=["scene_id"])["scene_id"].unique()

    numbers = ["here/2020-06-01", "here/2020-06-01/2", "here/2020-06-01/10"]
    assert list(found) == [*numbers, "here/2020-06-01T090000.000005Z"]
    assert len(catalog.scenes(since=date(2020, 6, 1), until=date(2020, 6, 1))) == 4


def test_a_file_that_is_no_scene_is_not_taken_for_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = Catalog(Workspace(tmp_path))
    enter(catalog)
    (tmp_path / "catalog/here/notes.json").write_text("{}")
    (tmp_path / "catalog/here/.2020-06-02.12.part.json").write_text("{")

    assert len(catalog.scenes()) == 1
    assert caplog.text == ""


def test_quarantined_scenes_are_chosen_by_the_names_of_their_files(tmp_path: Path) -> None:
    quarantine = Quarantine(Workspace(tmp_path))
    for name, acquired in product(PLACES, DAYS):
        quarantine.add(Scene(name, acquired, ()), "ingest", "cannot be opened", (), "key")

    with opened(tmp_path / "quarantine") as files:
        found = quarantine.records(["b/c"], since=date(2020, 6, 1))

    assert [record.scene_id for record in found] == ["b/c/2020-06-01T100000Z", "b/c/2020-06-02T100000Z"]
    assert files() == ["b%2Fc/2020-06-01T100000Z.json", "b%2Fc/2020-06-02T100000Z.json"]
    assert len(quarantine.records()) == 12
    assert quarantine.records(until=date(2020, 1, 1)) == []


def test_scenes_are_found_by_their_names_and_no_other_file_is_opened(catalog: Catalog) -> None:
    records = [record for record in catalog.scenes() if record.location != "a"][::3]
    read_record.forget()

    with opened(catalog.workspace.root) as files:
        found = catalog.named([*(one.scene_id for one in reversed(records)), "a/1999-01-01"])

        assert len(files()) == len(records)
        assert found == records  # by the statistics in other files as well

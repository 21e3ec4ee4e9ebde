"""A reference is the median of a place's clear scenes: who is chosen, what it holds, and that it is always the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import Workspace
from configs.schema import MaskSettings, ReferenceSettings
from imagery import composite
from imagery.composite import MemberUnreadable, windows
from imagery.grid import Grid, Tile
from imagery.reading import SceneReader
from imagery.records import SceneRecord
from imagery.reference import Member, Reference, build_reference, choose_members, find_reference, reference_name
from imagery.sources.scene import Scene, SceneFile
from tests.rasters import UTM, ground, open_scene, read_scene, source_settings, whole, write_raster

TODAY = date(2020, 6, 1)
BANDS = ("B02", "B08")
GRID = Grid(UTM, (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0), 50, 40)
SOURCE = source_settings(BANDS, scale=1e-4)
MASKS = MaskSettings(class_band="SCL")


def record_of(day: date, valid: float = 1.0, number: int = 1, files: tuple[SceneFile, ...] = ()) -> SceneRecord:
    acquired = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return SceneRecord(
        scene_id=Scene("here", acquired, (), number).scene_id,
        location="here",
        acquired=acquired,
        number=number,
        files=files,
        stamp=(),
        fingerprint=f"content of {day} {number}",
        key="key",
        tile_size=16,
        stride=16,
        tiles=9,
        valid_fraction=valid,
        data_fraction=1.0,
        cloud_fraction=0.0,
        masked={},
        stats={},
        ingested_at=datetime(2024, 1, 1, tzinfo=UTC),
    )


def ago(days: float, valid: float = 1.0) -> SceneRecord:
    return record_of(TODAY - timedelta(days=days), valid)


def days_of(records: Sequence[SceneRecord]) -> list[int]:
    """How many days ago they were."""
    return [(TODAY - record.day).days for record in records]


@st.composite
def archives(draw: st.DrawFn) -> list[SceneRecord]:
    """Scenes of eight years around a day, some cloudy, sometimes two on a day, in any order."""
    days = draw(st.lists(st.integers(-200, 2800), max_size=60, unique=True))
    records = [ago(day, draw(st.sampled_from([0.1, 0.49, 0.5, 0.9]))) for day in days]
    twice = [record_of(record.day, 0.8, 2) for record in records if draw(st.booleans())]
    return draw(st.permutations(records + twice))


@settings(max_examples=200)
@given(
    records=archives(),
    scenes=st.integers(0, 8),
    seasonal=st.integers(0, 5),
    season_days=st.integers(1, 60),
    max_age=st.integers(1, 900),
    picked=st.randoms(use_true_random=False),
)
def test_those_chosen_are_clear_earlier_not_too_many_and_in_order(
    records: list[SceneRecord], scenes: int, seasonal: int, season_days: int, max_age: int, picked
) -> None:
    chosen_settings = ReferenceSettings.model_construct(
        scenes=scenes, seasonal=seasonal, season_days=season_days, max_age=max_age, min_valid=0.5
    )
    excluded = {record.scene_id for record in records if picked.random() < 0.2}

    members = choose_members(records, TODAY, chosen_settings, excluded)

    ids = [record.scene_id for record in members]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & excluded
    assert all(record.day < TODAY for record in members)
    assert all(record.valid_fraction >= 0.5 for record in members)
    assert ids == [record.scene_id for record in sorted(members, key=lambda one: (one.acquired, one.scene_id))]
    assert len(members) <= scenes + seasonal
    assert members == choose_members(sorted(records, key=lambda one: one.scene_id), TODAY, chosen_settings, excluded)

    usable = [
        record
        for record in sorted(records, key=lambda one: (one.acquired, one.scene_id))
        if record.day < TODAY and record.valid_fraction >= 0.5 and record.scene_id not in excluded
    ]
    last = [record for record in usable if (TODAY - record.day).days <= max_age][-scenes:] if scenes else []
    assert {record.scene_id for record in last} <= set(ids)
    others = [record for record in members if record not in last]
    assert len(others) <= seasonal
    for record in others:
        days = (TODAY - record.day).days
        assert days > 182
        assert abs(days - 365.25 * round(days / 365.25)) <= season_days


def test_a_scene_of_the_day_itself_or_later_is_never_chosen() -> None:
    records = [ago(0), ago(-1), ago(-365), ago(1)]

    assert days_of(choose_members(records, TODAY, ReferenceSettings())) == [1]


def test_scenes_older_than_the_limit_are_chosen_only_for_their_season() -> None:
    records = [ago(10), ago(399), ago(400), ago(401), ago(730), ago(900)]

    assert days_of(choose_members(records, TODAY, ReferenceSettings(scenes=9, seasonal=9))) == [730, 400, 399, 10]


def test_of_the_season_the_nearest_of_each_year_come_first() -> None:
    last_year, before, long_ago = 365, 731, 1461
    records = [ago(last_year + off) for off in (-15, -5, 10)]
    records += [ago(before + off) for off in (-12, 3)] + [ago(long_ago + 19)]
    chosen = ReferenceSettings(scenes=1, seasonal=3, max_age=100, season_days=20)

    assert days_of(choose_members(records, TODAY, chosen)) == [long_ago + 19, before + 3, last_year - 5]
    four = chosen.model_copy(update={"seasonal": 4})
    assert days_of(choose_members(records, TODAY, four)) == [long_ago + 19, before + 3, last_year + 10, last_year - 5]


def test_a_season_reaches_over_the_turn_of_the_year() -> None:
    chosen = ReferenceSettings(scenes=1, seasonal=3, max_age=30, season_days=20)
    december = record_of(date(2018, 12, 20))

    assert choose_members([december], date(2020, 1, 5), chosen) == [december]


def scenes(folder: Path, count: int, height: int = 40, width: int = 50, locations: str = "here") -> list[SceneRecord]:
    """Random ground under random clouds; the last rows are all cloud, on every day."""
    records = []
    for seed in range(count):
        classes = np.random.default_rng(seed).choice([4, 8], (height, width), p=[0.7, 0.3])
        classes[-3:] = 9
        day = date(2020, 1, 1) + timedelta(days=seed)
        path = write_raster(folder / f"{day}.tif", ground(height, width, BANDS, seed), classes=classes)
        records.append(record_of(day, files=(SceneFile("", str(path)),)))
    return records


def opened(record: SceneRecord) -> SceneReader:
    return open_scene(record.scene, SOURCE, MASKS)


def built(workspace: Workspace, records: Sequence[SceneRecord], grid: Grid = GRID, key: str = "key") -> Reference:
    return build_reference(workspace, records, BANDS, key, grid, opened)


def stack_of(records: Sequence[SceneRecord]) -> np.ndarray:
    """(K, C, H, W) of the valid pixels, NaN for others."""
    pixels = [read_scene(record.scene, SOURCE, MASKS) for record in records]
    return np.stack([np.where(one.valid, one.values, np.float32(np.nan)) for one in pixels])


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_it_holds_the_median_of_the_valid_pixels_and_how_many_there_were(
    tmp_path: Path, workspace: Workspace, count: int
) -> None:
    records = scenes(tmp_path, count)
    expected = stack_of(records)

    reference = built(workspace, records)

    with reference.open() as reader:
        values, counts = reader.read(whole(GRID))
    np.testing.assert_array_equal(values, np.nanmedian(expected, axis=0))
    np.testing.assert_array_equal(counts, np.isfinite(expected[:, 0]).sum(axis=0))
    assert np.isnan(values[:, -3:]).all()
    assert reference.valid_fraction == pytest.approx((counts > 0).mean())


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_it_is_the_same_however_few_pixels_are_in_memory_and_files_open(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = scenes(tmp_path, 5, 300, 600)
    grid = Grid(UTM, GRID.transform, 600, 300)
    at_once = built(workspace, records, grid).path.read_bytes()
    monkeypatch.setattr(composite, "AT_ONCE", 4 * 2 * 5 * 256 * 64)
    monkeypatch.setattr(composite, "MOST_FILES", 2)

    in_parts = built(Workspace(tmp_path / "other"), records, grid)

    assert in_parts.path.read_bytes() == at_once
    with in_parts.open() as reader:
        np.testing.assert_array_equal(reader.read(whole(grid))[0], np.nanmedian(stack_of(records), axis=0))


def test_it_is_a_cog_that_says_what_it_is_made_of(tmp_path: Path, workspace: Workspace) -> None:
    records = scenes(tmp_path, 3, 700, 900)
    grid = Grid(UTM, GRID.transform, 900, 700)

    reference = built(workspace, records, grid)

    assert reference.path.parent == workspace.reference / "here"
    with rasterio.open(reference.path) as dataset:
        assert dataset.descriptions == ("B02", "B08", "count")
        assert set(dataset.dtypes) == {"float32"}
        assert (dataset.crs, dataset.transform, dataset.shape) == (grid.crs, grid.affine, (700, 900))
        assert np.isnan(dataset.nodata)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "ZSTD"
        assert dataset.overviews(1) == [2, 4]
        tags = dataset.tags()
    assert tags["scene_ids"] == "here/2020-01-01,here/2020-01-02,here/2020-01-03"
    assert (tags["location"], tags["reference"]) == ("here", reference.name)
    assert [member.scene_id for member in reference.members] == tags["scene_ids"].split(",")


def test_built_again_it_is_the_same_to_the_byte(tmp_path: Path, workspace: Workspace) -> None:
    records = scenes(tmp_path, 4)
    first = built(workspace, records)
    before = {path.name: path.read_bytes() for path in first.path.parent.iterdir()}
    for path in first.path.parent.iterdir():
        path.unlink()

    again = built(workspace, records)

    assert again == first
    assert {path.name: path.read_bytes() for path in again.path.parent.iterdir()} == before
    assert set(before) == {f"{first.name}.tif", f"{first.name}.json"}


def test_once_built_it_is_found_and_no_scene_is_opened(tmp_path: Path, workspace: Workspace) -> None:
    records = scenes(tmp_path, 4)
    first = built(workspace, records)
    for record in records:
        Path(record.files[0].path).unlink()

    assert built(workspace, records) == first
    assert find_reference(workspace, "here", first.name) == first


def test_a_half_written_one_is_made_again(tmp_path: Path, workspace: Workspace) -> None:
    records = scenes(tmp_path, 2)
    first = built(workspace, records)
    content = first.path.read_bytes()
    first.path.with_suffix(".json").unlink()
    first.path.write_bytes(b"")

    assert find_reference(workspace, "here", first.name) is None
    assert built(workspace, records).path.read_bytes() == content


def test_its_name_depends_on_all_that_it_is_made_of() -> None:
    records = [ago(3), ago(2)]
    other_content = record_of(records[0].day)
    object.__setattr__(other_content, "fingerprint", "other")
    grid = Grid(GRID.crs, GRID.transform, 51, 40)

    names = {
        reference_name(list(map(Member.of, members)), key, on)
        for members, key, on in (
            (records, "key", GRID),
            (records[:1], "key", GRID),
            ([other_content, records[1]], "key", GRID),
            (records, "other", GRID),
            (records, "key", grid),
        )
    }

    assert len(names) == 5


def test_its_name_is_what_it_was_before_tiles_could_be_left_out_unless_some_are() -> None:
    records = [ago(3), ago(2)]
    tile = Tile(0, 16, 16, 16)

    def name(without: dict[str, tuple[Tile, ...]]) -> str:
        return reference_name([Member.of(record, without) for record in records], "key", GRID)

    assert name({}) == name({"here/1999-01-01": (tile,)}) == "7e7db17a1e1bbbe6"
    assert name({records[0].scene_id: (tile,)}) != name({records[1].scene_id: (tile,)}) != name({})


@pytest.mark.parametrize("open_files", [256, 0])
def test_a_scene_that_is_gone_is_named_and_nothing_is_left_behind(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, open_files: int
) -> None:
    monkeypatch.setattr(composite, "MOST_FILES", open_files)
    records = scenes(tmp_path, 3)
    Path(records[1].files[0].path).unlink()

    with pytest.raises(MemberUnreadable, match="here/2020-01-02 can no longer be read") as error:
        built(workspace, records)

    assert error.value.scene_id == "here/2020-01-02"
    assert [path for path in workspace.root.rglob("*") if path.is_file()] == []


def test_a_scene_with_a_damaged_block_is_named(tmp_path: Path, workspace: Workspace) -> None:
    records = scenes(tmp_path, 3)
    path = Path(records[2].files[0].path)
    path.write_bytes(path.read_bytes()[:-2000])

    with pytest.raises(MemberUnreadable, match="here/2020-01-03"):
        built(workspace, records)


def test_memory_does_not_grow_with_the_scenes(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composite, "AT_ONCE", 1 << 23)
    height, width, count = 800, 900, 24
    records = scenes(tmp_path, count, height, width)
    built(Workspace(tmp_path / "warm"), records[:1], Grid(UTM, GRID.transform, width, height))

    tracemalloc.start()
    built(workspace, records, Grid(UTM, GRID.transform, width, height))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    all_of_them = 4 * len(BANDS) * count * height * width
    assert peak < 4 * composite.AT_ONCE < all_of_them / 4


@settings(max_examples=150)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    block_rows=st.sampled_from([1, 5, 64, 256, 512, 1024, 5000]),
    pixels=st.integers(1, 10**7),
)
def test_windows_cover_a_grid_once_and_are_bounded(height: int, width: int, block_rows: int, pixels: int) -> None:
    found = list(windows(Grid(UTM, GRID.transform, width, height), block_rows, pixels))

    covered = np.zeros((height, width), np.uint8)
    for window in found:
        covered[window.toslices()] += 1
    assert (covered == 1).all()
    assert max(window.height * window.width for window in found) <= max(pixels, 256)
    if pixels >= 2048 * 256:  # there is room: blocks are not cut
        step = min(max(block_rows, 64), 2048)
        assert all(window.row_off % step == 0 for window in found)

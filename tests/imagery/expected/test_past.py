"""What was to be expected is the same for a pixel however it is read, and shows an event on each date that had it."""

from __future__ import annotations

import dataclasses
import logging
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from imagery.composite import MemberUnreadable
from imagery.expected import Expectation, Past, PastReader, open_past, past
from imagery.records import SceneRecord
from imagery.tiles import read_tiles
from tests.imagery.expected.archive import LOG, MASKS, SOURCE, expected_of, land, opened, write_scene
from tests.rasters import read_scene

ARRAYS = [field.name for field in dataclasses.fields(Past)]
AGES = (40, 30, 20, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def members(folder: Path) -> list[SceneRecord]:
    return [write_scene(folder, age, clouds=True) for age in AGES]


@pytest.fixture(scope="module")
def tonight(folder: Path) -> SceneRecord:
    return write_scene(folder, 0)


@pytest.fixture(scope="module")
def expectation(tonight: SceneRecord, members: list[SceneRecord]) -> Expectation:
    return expected_of(tonight, members)


@contextmanager
def reading(expectation: Expectation, members: Sequence[SceneRecord]) -> Iterator[PastReader]:
    with opened(members[0]) as reader:
        grid = reader.grid
    with open_past(expectation, members, opened, grid) as found:
        yield found


def all_of(expectation: Expectation, members: Sequence[SceneRecord], shape: tuple[int, int] = (60, 70)) -> Past:
    with reading(expectation, members) as reader:
        return reader.read(Window(0, 0, shape[1], shape[0]))


def assert_same(found: Past, wanted: Past, rows: slice = slice(None), columns: slice = slice(None)) -> None:
    for name in ARRAYS:
        cut = getattr(wanted, name)[..., rows, columns]
        assert getattr(found, name).tobytes() == np.ascontiguousarray(cut).tobytes(), name


def test_it_is_tonights_and_the_witnesses_ground_in_the_light_of_their_dates(
    tonight: SceneRecord, members: list[SceneRecord], expectation: Expectation
) -> None:
    scene, witness = (read_scene(record.scene, SOURCE, MASKS) for record in (tonight, members[3]))

    found = all_of(expectation, members)

    assert [getattr(found, name).dtype for name in ARRAYS] == [np.float32, bool, np.float32, np.float32, bool]
    assert found.valid.mean() > 0.99  # three scenes with clouds elsewhere
    np.testing.assert_array_equal(found.witness_valid, found.valid & witness.valid)
    np.testing.assert_array_equal(found.witness[:, found.witness_valid], witness.values[:, found.witness_valid])
    assert np.abs(found.values - scene.values)[:, found.valid].mean() < 0.01
    assert np.abs(found.witness_expected - found.witness)[:, found.witness_valid].mean() < 0.01
    for values, valid in ((found.values, found.valid), (found.witness_expected, found.witness_valid)):
        assert np.isnan(values[:, ~valid]).all()
    assert np.isnan(found.witness[:, ~found.witness_valid]).all()


def test_a_third_that_was_turned_does_not_move_what_is_expected(
    tmp_path: Path, members: list[SceneRecord], expectation: Expectation
) -> None:
    there = np.zeros((60, 70), bool)
    there[10:30] = True

    event = expected_of(write_scene(tmp_path, 0, event=there), members)

    plain, found = (LOG.forward(all_of(each, members).values) for each in (expectation, event))
    moved = np.nanmean(np.abs(found - plain), axis=(1, 2))
    assert (moved < 0.3 * expectation.scene.residual).all()
    assert event.reason is None
    assert event.scene.inliers < expectation.scene.inliers - 0.2


def test_what_no_earlier_scene_shows_is_not_known(tmp_path: Path) -> None:
    records = [write_scene(tmp_path, age) for age in (20, 10, 0)]
    everywhere = expected_of(records[2], records[:2])
    clouded = [write_scene(tmp_path, age, clouds=True) for age in (20, 10)]
    seen = np.logical_or.reduce([read_scene(record.scene, SOURCE, MASKS).valid for record in clouded])

    found = all_of(everywhere, clouded)

    assert 0 < (~seen).sum() < seen.size / 4
    np.testing.assert_array_equal(found.valid, seen)
    assert np.isnan(found.values[:, ~seen]).all()
    assert found.witness is None
    assert found.witness_expected is None
    assert found.witness_valid is None


@pytest.mark.parametrize(("dates", "confirmed"), [((0, 10), True), ((0,), False), ((10,), False)])
def test_an_event_differs_on_the_dates_that_have_it(tmp_path: Path, dates: Sequence[int], confirmed: bool) -> None:
    there = np.zeros((60, 70), bool)
    there[20:35, 10:30] = True
    records = [write_scene(tmp_path, age, event=there if age in dates else None) for age in (40, 30, 20, 10, 0)]
    expectation = expected_of(records[-1], records[:-1])
    scene = read_scene(records[-1].scene, SOURCE, MASKS)

    found = all_of(expectation, records[:-1])

    assert expectation.witness_map is not None
    off = [
        np.abs(LOG.forward(seen) - LOG.forward(wanted)).mean(axis=0) / fit.residual.mean()
        for seen, wanted, fit in (
            (scene.values, found.values, expectation.scene),
            (found.witness, found.witness_expected, expectation.witness_map),
        )
    ]
    differs = [np.median(one[there]) > 10 for one in off]
    assert differs == [0 in dates, 10 in dates]
    assert all(differs) is confirmed
    assert all(np.median(one[~there]) < 2 for one in off)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.integers(0, 59),
    column=st.integers(0, 69),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    ahead=st.one_of(st.none(), st.integers(1, 60)),
    piece=st.sampled_from([1, 4 * 10 * 20 * 9, 1 << 26]),
)
def test_any_window_gives_the_bytes_that_the_whole_gives(
    members: list[SceneRecord],
    expectation: Expectation,
    row: int,
    column: int,
    height: int,
    width: int,
    ahead: int | None,
    piece: int,
) -> None:
    height, width = min(height, 60 - row), min(width, 70 - column)
    wanted = all_of(expectation, members)

    with pytest.MonkeyPatch.context() as patch, reading(expectation, members) as reader:
        patch.setattr(past, "PIECE", piece)
        found = reader.read(Window(column, row, width, height), ahead)

    assert_same(found, wanted, slice(row, row + height), slice(column, column + width))


@pytest.mark.parametrize("ahead", [1, 4 * 2 * 3 * 70 * 25, 1 << 27])
def test_strips_read_one_after_the_other_give_what_the_whole_gives(
    members: list[SceneRecord], expectation: Expectation, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    wanted = all_of(expectation, members)
    monkeypatch.setattr(past, "AHEAD", ahead)

    with reading(expectation, members) as reader:
        for row in range(0, 60 - 16, 8):
            assert_same(reader.read(Window(0, row, 70, 16), 60), wanted, slice(row, row + 16))


def test_rows_that_were_read_ahead_are_not_read_again(
    members: list[SceneRecord], expectation: Expectation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    with reading(expectation, members) as reader:
        scenes = reader._scenes
        read = scenes.read
        monkeypatch.setattr(scenes, "read", lambda window: (rows.append(int(window.height)), read(window))[1])
        for row in range(0, 60 - 16, 4):
            reader.read(Window(0, row, 70, 16), 60)

    assert rows == [60]


@pytest.mark.parametrize(("stride", "at_least"), [(None, 1), (8, 20), (4, 1000)])
def test_tiles_of_the_past_come_in_step_with_those_of_the_scene(
    tonight: SceneRecord, members: list[SceneRecord], expectation: Expectation, stride: int | None, at_least: int
) -> None:
    wanted = all_of(expectation, members)

    with opened(tonight) as scene, reading(expectation, members) as reader:
        plain = list(read_tiles(scene, 16, stride, at_least=at_least))
        found = list(read_tiles(scene, 16, stride, at_least=at_least, past=reader))

    assert [batch.tiles for batch in found] == [batch.tiles for batch in plain]
    for batch, bare in zip(found, plain, strict=True):
        assert bare.past is None
        assert batch.values.tobytes() == bare.values.tobytes()
        assert batch.past is not None
        assert batch.past.values.shape == batch.values.shape
        for index, tile in enumerate(batch.tiles):
            window = tile.window.toslices()
            for name in ARRAYS:
                square = getattr(batch.past, name)[index]
                inside = square[..., : tile.height, : tile.width]
                np.testing.assert_array_equal(inside, getattr(wanted, name)[..., *window])
                beyond = np.ones((16, 16), bool)
                beyond[: tile.height, : tile.width] = False
                padding = square[..., beyond]
                assert not padding.any() if padding.dtype == bool else np.isnan(padding).all()


def test_only_the_rows_of_wanted_tiles_are_read(
    tonight: SceneRecord, members: list[SceneRecord], expectation: Expectation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, int]] = []
    with opened(tonight) as scene, reading(expectation, members) as reader:
        read = reader._read
        monkeypatch.setattr(
            reader, "_read", lambda window: (rows.append((int(window.row_off), int(window.height))), read(window))[1]
        )
        found = list(read_tiles(scene, 16, only={(0, 16), (32, 0), (48, 0)}, past=reader))

    assert [len(batch.tiles) for batch in found] == [1, 1, 1]
    assert rows == [(0, 16), (32, 28)]


def test_a_witness_that_cannot_be_compared_bears_no_witness(tmp_path: Path) -> None:
    records = [write_scene(tmp_path, age, seed=7 if age == 10 else 0) for age in (30, 20, 10, 0)]
    expectation = expected_of(records[-1], records[:-1])

    found = all_of(expectation, records[:-1])

    assert expectation.reason is None
    assert not expectation.confirms
    assert found.witness is None
    assert found.valid.all()


def test_an_earlier_scene_that_is_gone_is_named(tmp_path: Path) -> None:
    records = [write_scene(tmp_path, age) for age in (*AGES, 0)]
    expectation = expected_of(records[-1], records[:-1])
    Path(records[1].files[0].path).unlink()

    with pytest.raises(MemberUnreadable, match=records[1].scene_id), reading(expectation, records[:-1]):
        pass
    with pytest.raises(MemberUnreadable, match=f"{records[1].scene_id} .*not in the catalog"):
        all_of(expectation, [records[0], *records[2:]])


@pytest.mark.parametrize("age", [30, 10])
def test_an_earlier_scene_that_breaks_off_is_masked_there_and_named(
    tmp_path: Path, age: int, caplog: pytest.LogCaptureFixture
) -> None:
    records = [write_scene(tmp_path, each, (64, 64), block=16) for each in (*AGES, 0)]
    expectation = expected_of(records[-1], records[:-1])
    sound = all_of(expectation, records[:-1], (64, 64))
    broken = tmp_path / f"{age}.tif"
    broken.write_bytes(broken.read_bytes()[:-4000])

    with caplog.at_level(logging.WARNING):
        found = all_of(expectation, records[:-1], (64, 64))

    assert f"{records[AGES.index(age)].scene_id} can no longer be read" in caplog.text
    assert found.valid.all()
    assert found.witness_valid is not None
    assert found.witness_valid.any() is np.bool_(age == 30)
    assert np.abs(found.values - sound.values).mean() < 0.01


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "PIECE", 1 << 21)
    monkeypatch.setattr(past, "AHEAD", 1 << 21)
    peaks = []
    for height in (300, 1200):
        folder = tmp_path / str(height)
        records = [write_scene(folder, age, (height, 600), block=64) for age in (*AGES, 0)]
        expectation = expected_of(records[-1], records[:-1])
        land.cache_clear()
        with opened(records[-1]) as scene, reading(expectation, records[:-1]) as reader:
            tracemalloc.start()
            for _ in read_tiles(scene, 32, past=reader):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 8 * (1 << 21)

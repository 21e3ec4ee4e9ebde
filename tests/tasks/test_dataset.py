"""Which dates train, stop and calibrate, and the tiles that are gathered from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.errors import ImageryError
from imagery.tiles import read_tiles
from tasks.dataset import NothingToTrain, Split, gathered, split_scenes
from tasks.ingest import ingest_scene, open_scene, plan_ingest, settle_grids
from tasks.tile_cache import TileCache, whole_numbers
from tests.rasters import BANDS, ground, read_scene, watch_settings, write_raster
from vae.conditions import UNKNOWN

FIRST = date(2020, 1, 1)
# Days since the first, several scenes of one day among them.
DAYS = st.lists(st.integers(0, 60), min_size=1, max_size=40)


def record(day: int | date, location: str = "here", valid: float = 0.9) -> SceneRecord:
    day = day if isinstance(day, date) else FIRST + timedelta(days=day)
    acquired = datetime(day.year, day.month, day.day, 10, 50, tzinfo=UTC)
    return SceneRecord(
        f"{location}/{day}",
        location,
        acquired,
        1,
        (),
        (),
        f"{location}{day}",
        "key",
        16,
        16,
        4,
        valid,
        1.0,
        0.1,
        {},
        {},
        acquired,
    )


def watch(**split: Any) -> Settings:
    return watch_settings(Path("."), split=split)


def days(records: tuple[SceneRecord, ...]) -> set[date]:
    return {one.day for one in records}


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@given(
    numbers=DAYS,
    places=st.integers(1, 3),
    fraction=st.floats(0, 0.95),
    train_end=st.integers(0, 60),
    calibrate=st.none() | st.tuples(st.integers(0, 60), st.integers(0, 30)),
)
def test_no_date_is_used_for_two_purposes_and_none_is_lost(
    numbers: list[int], places: int, fraction: float, train_end: int, calibrate: tuple[int, int] | None
) -> None:
    scenes = [record(number, f"place{place}") for number in numbers for place in range(places)]
    period = {"start": day(calibrate[0]), "end": day(sum(calibrate))} if calibrate else None
    asked = watch(
        train={"end": day(train_end)}, calibrate=period, validation_fraction=fraction, allow_training_dates=True
    )
    try:
        split = split_scenes(asked, scenes)
    except NothingToTrain:
        nothing_in_time = all(number > train_end for number in numbers)
        none_to_calibrate = period is not None and not any(
            period["start"] <= day(number) <= period["end"] and number > train_end for number in numbers
        )
        assert nothing_in_time or none_to_calibrate
        return

    train, validation, held_out = days(split.train), days(split.validation), days(split.calibrate)
    assert not train & validation
    assert not train & held_out
    assert not validation & held_out
    assert train | validation == {day(number) for number in numbers if number <= train_end}
    assert train, "there is always a date to train on"
    assert len(split.train) + len(split.validation) == sum(places * (number <= train_end) for number in numbers)
    if period:
        assert held_out == {day(n) for n in numbers if period["start"] <= day(n) <= period["end"] and n > train_end}
    assert {one.scene_id for one in split.scenes} == {
        one.scene_id for one in (*split.train, *split.validation, *split.calibrate)
    }
    assert list(split.scenes) == sorted(split.scenes, key=lambda one: (one.acquired, one.scene_id))


@given(number=st.integers(2, 200), fraction=st.floats(0, 0.95))
def test_validation_dates_are_as_many_as_asked_for_and_spread_over_the_period(number: int, fraction: float) -> None:
    split = split_scenes(
        watch(validation_fraction=fraction, allow_training_dates=True), [record(n) for n in range(number)]
    )

    held = sorted((one.day - FIRST).days for one in split.validation)

    assert len(held) == min(round(number * fraction), number - 1)
    if len(held) >= 2:
        gaps = np.diff([-1, *held, number])
        assert gaps[1:-1].max() - gaps[1:-1].min() <= 1, "evenly spread"
        assert max(gaps[0], gaps[-1]) <= gaps[1:-1].max(), "from one end of the period to the other"


def test_dates_that_were_held_out_are_calibrated_on_when_there_are_any() -> None:
    scenes = [record(number) for number in range(20)]

    held_out = split_scenes(watch(train={"end": day(9)}, calibrate={"start": day(10), "end": day(14)}), scenes)
    validation = split_scenes(watch(train={"end": day(9)}), scenes)
    training = split_scenes(watch(train={"end": day(9)}, validation_fraction=0, allow_training_dates=True), scenes)

    assert [split.basis for split in (held_out, validation, training)] == ["held_out", "validation", "training"]
    assert held_out.calibration_scenes == held_out.calibrate != ()
    assert validation.calibration_scenes == validation.validation != ()
    assert training.calibration_scenes == training.train != ()
    assert days(held_out.calibrate) == {day(number) for number in range(10, 15)}


def test_a_calibration_period_that_overlaps_training_keeps_to_what_is_outside() -> None:
    split = split_scenes(
        watch(train={"end": day(9)}, calibrate={"start": day(5), "end": day(12)}), [record(n) for n in range(20)]
    )

    assert days(split.calibrate) == {day(10), day(11), day(12)}
    assert split.basis == "held_out"


def test_scenes_without_a_usable_pixel_are_left_out() -> None:
    split = split_scenes(watch(), [record(n, valid=0.0 if n % 2 else 0.5) for n in range(10)])

    assert all(one.valid_fraction > 0 for one in split.scenes)
    assert len(split.scenes) == 5


def refusal(asked: Settings, scenes: list[SceneRecord]) -> str:
    with pytest.raises(NothingToTrain) as caught:
        split_scenes(asked, scenes)
    return str(caught.value)


def test_an_empty_catalog_is_said_to_be_empty() -> None:
    assert "the catalog is empty" in refusal(watch(), [])


def test_a_training_period_without_a_scene_is_named_together_with_what_there_is() -> None:
    message = refusal(watch(train={"start": "2025-01-01", "end": "2025-02-01"}), [record(0), record(9)])

    assert "2025-01-01 … 2025-02-01" in message
    assert "2 scenes from 2020-01-01 to 2020-01-10" in message
    assert "split.train" in message


def test_a_calibration_period_without_a_scene_is_named() -> None:
    asked = watch(train={"end": day(9)}, calibrate={"start": "2025-01-01"})

    message = refusal(asked, [record(number) for number in range(20)])

    assert "2025-01-01 … today" in message
    assert "split.calibrate" in message


def test_training_dates_are_calibrated_on_only_when_that_is_allowed() -> None:
    message = refusal(watch(validation_fraction=0), [record(number) for number in range(4)])

    assert "4 training dates" in message
    assert "split.allow_training_dates=true" in message
    assert "optimistic" in message


def test_a_single_date_cannot_be_split() -> None:
    assert "1 training dates" in refusal(watch(validation_fraction=0.5), [record(0, "a"), record(0, "b")])


# Gathered tiles


def archive(tmp_path: Path, scenes: int = 3, **sections: Any) -> tuple[Settings, Workspace, Split]:
    """Scenes of 40 × 40 px: nine tiles of 16 px, five of them clipped at the edge, one of them masked."""
    settings = watch_settings(
        tmp_path / "scenes",
        masks={"class_band": "SCL"},
        split={"validation_fraction": 0, "allow_training_dates": True},
        **sections,
    )
    classes = np.full((40, 40), 4)
    classes[:16, :14] = 9
    for number in range(scenes):
        write_raster(tmp_path / f"scenes/here/2020-06-0{number + 1}.tif", ground(40, 40, seed=number), classes=classes)
    workspace = Workspace(tmp_path / "workspace")
    plan = plan_ingest(settings, workspace)
    settle_grids(plan.scenes, settings, workspace)
    for scene in plan.scenes:
        ingest_scene(scene, settings, workspace)
    return settings, workspace, split_scenes(settings, Catalog(workspace).scenes())


def test_all_usable_tiles_are_gathered_with_their_pixels(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path)
    seen: list[tuple[int, int]] = []

    with gathered(split.train, asked, workspace, None, lambda *done: seen.append(done)) as tiles:
        values, valid = tiles.physical(np.arange(len(tiles))), np.array(tiles.valid)

    assert values.shape == (3 * 8, len(BANDS), 16, 16), "all but the tile under cloud"
    assert seen == [(1, 3), (2, 3), (3, 3)]
    expected = set()
    for scene in split.train:
        pixels = read_scene(scene.scene, asked.source, asked.masks)
        for row in range(0, 40, 16):
            for column in range(0, 40, 16):
                part = pixels.values[:, row : row + 16, column : column + 16]
                if pixels.valid[row : row + 16, column : column + 16].mean() >= asked.train.min_valid:
                    expected.add(part.tobytes())
    found = set()
    for tile, usable in zip(values, valid, strict=True):
        rows, columns = usable.any(axis=1).sum(), usable.any(axis=0).sum()
        found.add(np.ascontiguousarray(tile[:, :rows, :columns]).tobytes())
    assert found == expected


def test_the_files_are_gone_afterwards_even_when_the_work_fails(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path)

    with gathered(split.train, asked, workspace, None):
        assert len(list(workspace.cache.rglob("*.npy"))) == 3
    assert list(workspace.cache.iterdir()) == []

    with pytest.raises(RuntimeError, match="power cut"), gathered(split.train, asked, workspace, None):
        raise RuntimeError("power cut")
    assert list(workspace.cache.iterdir()) == []


def test_thinning_depends_on_the_seed_alone(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path)

    def drawn(seed: int, limit: int = 10) -> np.ndarray:
        with gathered(split.train, asked.model_copy(update={"seed": seed}), workspace, limit) as tiles:
            assert len(tiles) == limit
            return tiles.physical(np.arange(limit))

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2), equal_nan=True)


def test_there_are_never_more_tiles_than_asked_for_and_none_comes_twice(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path)

    for limit in (1, 7, 23, 24, 25, 1000):
        with gathered(split.train, asked, workspace, limit) as tiles:
            assert len(tiles) == min(limit, 24)
            assert len({tile.tobytes() for tile in tiles.values}) == len(tiles)


@pytest.mark.parametrize(("min_valid", "expected"), [(0.0, 9), (0.1, 9), (0.13, 8), (1.0, 8)])
def test_how_much_of_a_tile_must_be_usable_is_for_the_settings_to_say(
    tmp_path: Path, min_valid: float, expected: int
) -> None:
    asked, workspace, split = archive(tmp_path, scenes=1, train={"min_valid": min_valid})

    with gathered(split.train, asked, workspace, None) as tiles:
        assert len(tiles) == expected


def test_no_usable_tile_is_refused_with_how_many_there_are(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path, scenes=1)
    classes = np.indices((40, 40)).sum(axis=0) % 2 * 5 + 4  # every other pixel is cloud
    write_raster(tmp_path / "scenes/here/2020-06-01.tif", ground(40, 40), classes=classes)
    for scene in plan_ingest(asked, workspace).scenes:
        ingest_scene(scene, asked, workspace)
    split = split_scenes(asked, Catalog(workspace).scenes())

    with pytest.raises(NothingToTrain) as caught, gathered(split.train, asked, workspace, None):
        pass
    assert "none of the 9 tiles of 1 scenes is at least 70% usable" in str(caught.value)
    assert "train.min_valid" in str(caught.value)


def test_a_scene_that_can_no_longer_be_read_is_named(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path)
    (tmp_path / "scenes/here/2020-06-02.tif").unlink()

    with pytest.raises(ImageryError, match=r"2020-06-02\.tif"), gathered(split.train, asked, workspace, None):
        pass
    assert list(workspace.cache.iterdir()) == []


def test_scenes_of_whole_numbers_are_kept_as_such_and_give_the_very_same_values(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path, source={"scale": 1e-4, "offset": -0.1})

    with gathered(split.train, asked, workspace, None) as tiles:
        assert tiles.values.dtype == np.uint16
        found = {tile.tobytes() for tile in np.where(tiles.valid[:, None], tiles.physical(np.arange(24)), 0)}

    expected = set()
    for scene in split.train:
        with open_scene(scene.scene, asked, workspace) as reader:
            for batch in read_tiles(reader, 16):
                expected |= {tile.tobytes() for tile in np.where(batch.valid[:, None], batch.values, np.float32(0))}
    assert found <= expected
    assert len(found) == 24


def test_values_that_are_no_whole_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    whole = (draw.integers(0, 9000, (4, 2, 8, 8)) * 1e-4 - 0.1).astype(np.float32)
    other = draw.random((4, 2, 8, 8), np.float32)
    valid = draw.random((4, 8, 8)) > 0.2
    scaling = np.array([[1e-4, -0.1], [1e-4, -0.1]])
    cache = TileCache(tmp_path, (8, 2, 8, 8), ())

    cache.put([1, 3, 5, 7], np.where(valid[:, None], whole, np.float32(np.nan)), valid, scaling)
    assert cache.tiles().values.dtype == np.uint16
    cache.put([0, 2, 4, 6], other, valid, scaling)

    tiles = cache.tiles()
    assert tiles.values.dtype == np.float32
    assert tiles.scaling is None
    kept = np.where(valid[:, None], tiles.values[[1, 3, 5, 7]], 0)
    np.testing.assert_array_equal(kept, np.where(valid[:, None], whole, 0))
    np.testing.assert_array_equal(tiles.values[[0, 2, 4, 6]], other)
    assert not (tmp_path / "numbers.npy").exists()


@pytest.mark.parametrize("values", [[0.00005], [-0.2], [7.0], [np.nan], [np.inf]])
def test_what_a_sixteen_bit_number_cannot_hold_is_no_whole_number(values: list[float]) -> None:
    scaling = np.array([[1e-4, -0.1]])
    made = np.array(values, np.float32).reshape(1, 1, 1, 1)

    assert whole_numbers(made, np.ones((1, 1, 1), bool), scaling) is None
    assert whole_numbers(made, np.zeros((1, 1, 1), bool), scaling) is not None, "what is masked may hold anything"


def test_tiles_come_with_what_the_network_is_told(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path, model={"condition": ["season", "place"]})

    with gathered(split.train, asked, workspace, None) as tiles:
        assert tiles.conditions is not None
        assert tiles.conditions.season is not None
        seasons = np.unique(tiles.conditions.season)
        assert tiles.conditions.reference is None
        assert set(np.asarray(tiles.conditions.place)) == {0}
    np.testing.assert_allclose(seasons, [(152 + day) / 366 for day in range(3)], rtol=1e-6)


def test_places_are_told_apart_by_those_of_the_scenes_that_train(tmp_path: Path) -> None:
    asked, workspace, split = archive(tmp_path, model={"condition": ["place"]})
    elsewhere = tuple(replace(scene, location="elsewhere") for scene in split.train)

    with gathered(split.train, asked, workspace, None, learned=elsewhere) as tiles:
        assert tiles.conditions is not None
        assert set(np.asarray(tiles.conditions.place)) == {UNKNOWN}

"""The way of tiles from disk to the network: which, how they are turned, moved and read."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import TrainSettings
from tests.vae.conftest import make_normalisation, make_tiles
from vae.conditions import Conditions
from vae.errors import ShapeError
from vae.networks import Given
from vae.tiles import TileArrays
from vae.training import turn
from vae.training.batches import (
    Batch,
    Loader,
    Noise,
    Plan,
    moved,
    plan_epoch,
    plan_in_order,
    prepare,
    share_of,
    turned_given,
)

CPU = torch.device("cpu")
SETTINGS = TrainSettings(batch_size=16, device="cpu")


def mapped(folder: Path, tiles: TileArrays) -> TileArrays:
    """The same tiles in files."""
    np.save(folder / "values.npy", tiles.values)
    np.save(folder / "valid.npy", tiles.valid)
    return TileArrays(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("values", "valid")))


def raw_tiles(count: int = 20, scaling: tuple[float, float] = (1e-4, -0.1)) -> TileArrays:
    """Raw integers with a scaling."""
    draw = np.random.default_rng(0)
    values = draw.integers(1500, 6000, (count, 3, 16, 16), dtype=np.uint16)
    return TileArrays(values, draw.random((count, 16, 16)) > 0.1, scaling=np.tile(scaling, (count, 3, 1)))


@pytest.mark.parametrize("shift", [0, 3])
def test_an_epoch_shows_every_tile_once_and_depends_on_seed_and_epoch_alone(shift):
    settings = SETTINGS.model_copy(update={"shift": shift})
    plans = plan_epoch(50, settings, 1, 4)
    assert sorted(np.concatenate([plan.rows for plan in plans])) == list(range(50))
    assert [plan.step for plan in plans] == [0, 1, 2, 3]

    def drawn(seed: int, epoch: int) -> list:
        return [(plan.rows.tolist(), plan.symmetry, plan.shift) for plan in plan_epoch(50, settings, seed, epoch)]

    assert drawn(1, 4) == drawn(1, 4)
    assert drawn(1, 4) != drawn(1, 5)
    assert drawn(1, 4) != drawn(2, 4)


def test_shifts_reach_as_far_as_is_asked_for_both_ways_and_no_farther():
    settings = SETTINGS.model_copy(update={"shift": 2})
    shifts = {plan.shift for epoch in range(40) for plan in plan_epoch(64, settings, 0, epoch)}
    assert {down for down, _ in shifts} == {right for _, right in shifts} == {-2, -1, 0, 1, 2}


def test_processes_share_each_batch_without_overlap():
    plans = plan_epoch(50, SETTINGS, 1, 0)
    shares = [share_of(plans, rank, 3) for rank in range(3)]
    for whole, *parts in zip(plans, *shares, strict=True):
        assert sorted(np.concatenate([part.rows for part in parts])) == whole.rows.tolist()
        assert {part.symmetry for part in parts} == {whole.symmetry}


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (-3, 1), (0, -2), (5, 5)])
def test_a_shift_moves_tile_and_mask_together_and_what_comes_in_is_masked(shift):
    x = torch.arange(1.0, 37.0).view(1, 1, 6, 6)
    found, mask = moved(x, shift), moved(torch.ones(1, 6, 6, dtype=torch.bool), shift)
    down, right = shift
    for row in range(6):
        for column in range(6):
            inside = 0 <= row - down < 6 and 0 <= column - right < 6
            assert bool(mask[0, row, column]) == inside
            assert found[0, 0, row, column] == (x[0, 0, row - down, column - right] if inside else 0)


@pytest.mark.parametrize("symmetry", range(8))
def test_the_sun_turns_with_the_tile(symmetry):
    """A bright pixel where the sun stands is there after the turn, too."""
    north, east = 0, 2  # row and column of the top edge's and the right edge's middle, of 5 × 5
    for azimuth, (row, column) in {0: (north, 2), 90: (2, 4), 180: (4, east), 270: (2, 0)}.items():
        tile = torch.zeros(1, 1, 5, 5)
        tile[0, 0, row, column] = 1
        turned = turn(tile, symmetry)[0, 0]
        given = turned_given(Given(sun=torch.tensor([[40.0, float(azimuth)]])), symmetry, (0, 0))
        angle = torch.deg2rad(given.sun[0, 1])
        at = round(2 - 2 * float(torch.cos(angle))), round(2 + 2 * float(torch.sin(angle)))
        assert turned[at] == 1
        assert given.sun[0, 0] == 40


def test_what_is_not_known_of_the_sun_stays_unknown():
    given = turned_given(Given(sun=torch.full((2, 2), torch.nan)), 5, (0, 0))
    assert given.sun.isnan().all()


def test_the_reference_is_turned_and_moved_as_the_tile_is():
    tiles = make_tiles(4, masked=0.2)
    told = Conditions(reference=tiles.values, reference_valid=tiles.valid)
    tiles = TileArrays(tiles.values, tiles.valid, told)
    ready = Batch.read(tiles, Plan(0, np.arange(4), 6, (2, -1))).ready(make_normalisation(), CPU)
    assert torch.equal(ready.given.reference, ready.x)
    assert torch.equal(ready.given.reference_valid, ready.valid)


@pytest.mark.parametrize("scaling", [(1e-4, -0.1), (2.75e-5, -0.2), (1.0, 0.0)])
def test_raw_integers_become_the_very_values_that_a_scene_is_read_as(scaling):
    raw = raw_tiles(scaling=scaling)
    physical = (raw.values * np.float64(scaling[0]) + np.float64(scaling[1])).astype(np.float32)
    floats = TileArrays(physical, raw.valid)
    rows = np.array([3, 7, 8])
    np.testing.assert_array_equal(raw.physical(rows), physical[rows])
    one, other = (prepare(tiles, rows, make_normalisation(), CPU) for tiles in (raw, floats))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.valid, other.valid)


def test_numbers_that_do_not_fit_their_scaling_or_conditions_are_refused():
    raw = raw_tiles(4)
    with pytest.raises(ShapeError, match="uint16 need a scaling"):
        TileArrays(raw.values, raw.valid)
    with pytest.raises(ShapeError, match="float32 need no scaling"):
        TileArrays(raw.values.astype(np.float32), raw.valid, scaling=raw.scaling)
    with pytest.raises(ShapeError, match=r"need a scaling \(4, 3, 2\)"):
        TileArrays(raw.values, raw.valid, scaling=raw.scaling[:, :2])
    with pytest.raises(ShapeError, match="4 tiles come with season of 3"):
        TileArrays(raw.values, raw.valid, Conditions(season=np.zeros(3, np.float32)), raw.scaling)


@pytest.mark.parametrize("ahead", [0, 2])
def test_batches_come_in_order_whether_they_are_read_ahead_or_not(tmp_path, ahead):
    tiles = mapped(tmp_path, make_tiles(50))
    loader = Loader(tiles, plan_in_order(50, SETTINGS), ahead)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 4
        np.testing.assert_array_equal(np.concatenate([batch.values.numpy() for batch in batches]), tiles.values)


def test_what_goes_wrong_while_reading_ahead_is_raised_where_batches_are_asked_for():
    loader = Loader(make_tiles(20), [Plan(0, np.arange(4)), Plan(1, np.array([99]))], 2)
    batches = iter(loader)
    next(batches)
    with pytest.raises(IndexError, match="99"):
        next(batches)


def test_a_loader_that_is_left_early_leaves_no_thread_behind():
    import threading

    before = threading.active_count()
    batches = iter(Loader(make_tiles(64), plan_in_order(64, SETTINGS), 1))
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system gives no pages back")
def test_pages_that_were_read_are_given_back_and_changes_are_not_lost(tmp_path):
    tiles = make_tiles(512, side=32)
    found = mapped(tmp_path, tiles)
    rows = np.arange(512)
    assert _resident(found.values) == 0
    float(found.values.sum())
    assert _resident(found.values) > 0.9 * found.values.nbytes
    found.rows(rows[:4])
    assert _resident(found.values) == 0

    private = np.load(tmp_path / "valid.npy", mmap_mode="c")
    private[:] = False
    changed = TileArrays(np.load(tmp_path / "values.npy", mmap_mode="r+"), private)
    changed.values[5] = 7
    assert not changed.rows(rows).valid.any()
    assert not changed.rows(rows).valid.any()
    assert (changed.rows(rows).values[5] == 7).all()


def _resident(array: np.memmap) -> int:
    """Bytes of a mapped file that this process holds."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    held = 0
    for line in lines:
        if line.endswith(str(array.filename)):
            held += next(int(found.split()[1]) for found in lines if found.startswith("Rss:")) * 1024
    return held


def test_noise_depends_on_seed_epoch_and_process():
    first = Noise(1, 2, CPU)((3, 4))
    assert torch.equal(first, Noise(1, 2, CPU)((3, 4)))
    for other in (Noise(2, 2, CPU), Noise(1, 3, CPU), Noise(1, 2, CPU, rank=1)):
        assert not torch.equal(first, other((3, 4)))

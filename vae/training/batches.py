"""Batches: which tiles, how they are turned and moved, and their way from disk to the device."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from configs.schema import TrainSettings
from vae.conditions import Conditions
from vae.networks import Given, given_of
from vae.normalisation import Normalisation
from vae.tiles import TileArrays

AHEAD = 3  # batches that are read while a GPU works
HELD_OUT_NOISE = 1_000_003  # stands where an epoch's number stands, so that every epoch is judged by the same noise


class Plan(NamedTuple):
    """One batch: its number in the epoch, the tiles, and what is done to all of them."""

    step: int
    rows: np.ndarray
    symmetry: int = 0
    shift: tuple[int, int] = (0, 0)  # pixels down and right


class Ready(NamedTuple):
    """A batch on the device: x (B, C, H, W) normalised, valid (B, H, W) bool, and what the network is told."""

    x: Tensor
    valid: Tensor
    given: Given | None


def steps_of(tiles: int, settings: TrainSettings) -> int:
    """Batches of an epoch."""
    return math.ceil(tiles / settings.batch_size)


def plan_epoch(tiles: int, settings: TrainSettings, seed: int, epoch: int) -> list[Plan]:
    """The batches of an epoch; they depend on seed and epoch alone.

    One symmetry and one shift serve a whole batch: the next epoch draws other batches.
    """
    draw = np.random.default_rng([seed, epoch])
    plans = []
    for step, rows in enumerate(np.array_split(draw.permutation(tiles), steps_of(tiles, settings))):
        symmetry = int(draw.integers(8))
        down, right = draw.integers(-settings.shift, settings.shift + 1, 2) if settings.shift else (0, 0)
        plans.append(Plan(step, np.sort(rows), symmetry, (int(down), int(right))))
    return plans


def plan_in_order(tiles: int, settings: TrainSettings) -> list[Plan]:
    """All tiles as they are, one after another."""
    starts = range(0, tiles, settings.batch_size)
    return [Plan(n, np.arange(start, min(start + settings.batch_size, tiles))) for n, start in enumerate(starts)]


def share_of(plans: Sequence[Plan], rank: int, processes: int) -> list[Plan]:
    """The part of each batch that one of several processes works on."""
    return [plan._replace(rows=plan.rows[rank::processes]) for plan in plans]


@dataclass(frozen=True)
class Batch:
    """A batch as it was read: values (B, C, H, W) as they are stored, valid (B, H, W) bool."""

    plan: Plan
    values: Tensor
    valid: Tensor
    conditions: Conditions | None
    scaling: Tensor | None  # (B, C, 2), of raw integers

    @classmethod
    def read(cls, tiles: TileArrays, plan: Plan, pin: bool = False) -> Batch:
        """From disk; `pin` puts it where a GPU can fetch it by itself."""
        rows = tiles.rows(plan.rows)
        values, valid = torch.from_numpy(rows.values), torch.from_numpy(rows.valid)
        if pin:
            values, valid = values.pin_memory(), valid.pin_memory()
        scaling = None if rows.scaling is None else torch.from_numpy(rows.scaling)
        return cls(plan, values, valid, rows.conditions, scaling)

    def ready(self, normalisation: Normalisation, device: torch.device) -> Ready:
        """On the device, normalised there, turned and moved. A pixel that is not finite in a band is not valid."""
        values = self.values.to(device, non_blocking=True)
        if self.scaling is not None:
            # In float64, as scenes are read: the result is the same to the bit.
            scale, offset = self.scaling.to(device)[..., None, None].unbind(dim=2)
            values = values.double() * scale + offset
        values = values.float()
        valid = self.valid.to(device, non_blocking=True)
        valid = valid & torch.isfinite(values).all(dim=1)
        x = normalisation.apply(values, valid)
        given = given_of(self.conditions, normalisation, device)
        symmetry, shift = self.plan.symmetry, self.plan.shift
        x, valid = moved(turn(x, symmetry), shift), moved(turn(valid, symmetry), shift)
        return Ready(x, valid, None if given is None else turned_given(given, symmetry, shift))


def prepare(tiles: TileArrays, rows: np.ndarray, normalisation: Normalisation, device: torch.device) -> Ready:
    """Some tiles as the network sees them, neither turned nor moved."""
    return Batch.read(tiles, Plan(0, rows)).ready(normalisation, device)


def turn(x: Tensor, symmetry: int) -> Tensor:
    """One of the eight symmetries of the square, over the last two axes: quarter turns, and a flip from 4 on."""
    turned = torch.rot90(x, symmetry % 4, dims=(-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def moved(x: Tensor, shift: tuple[int, int]) -> Tensor:
    """(…, H, W) moved down and right by some pixels; what comes in at the edges is 0, or False: masked."""
    down, right = shift
    if not (down or right):
        return x
    height, width = x.shape[-2:]
    found = torch.zeros_like(x)
    to_rows, from_rows = _overlap(down, height)
    to_columns, from_columns = _overlap(right, width)
    found[..., to_rows, to_columns] = x[..., from_rows, from_columns]
    return found


def turned_given(given: Given, symmetry: int, shift: tuple[int, int]) -> Given:
    """What the network is told of a tile that was turned and moved: its reference alike, and the sun from elsewhere."""
    if given.sun is not None:
        elevation, azimuth = given.sun.unbind(dim=1)
        azimuth = azimuth - 90 * (symmetry % 4)  # a quarter turn brings north to the west
        azimuth = -azimuth if symmetry >= 4 else azimuth
        given = given._replace(sun=torch.stack([elevation, azimuth % 360], dim=1))
    if given.reference is not None and given.reference_valid is not None:
        given = given._replace(
            reference=moved(turn(given.reference, symmetry), shift),
            reference_valid=moved(turn(given.reference_valid, symmetry), shift),
        )
    return given


class Loader:
    """The batches of an epoch, read from disk one by one; for a GPU some are read ahead by a thread.

    Args:
        tiles: Where they are.
        plans: Of the epoch; may be replaced between epochs.
        ahead: How many are read ahead, into pinned memory; 0 reads each when it is asked for.
    """

    def __init__(self, tiles: TileArrays, plans: list[Plan], ahead: int = 0) -> None:
        self.tiles, self.plans, self.ahead = tiles, plans, ahead

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, since Lightning asks for an iterator before an epoch begins, and so before its plans are made.
        if self.ahead:
            yield from self._ahead()
            return
        for plan in self.plans:
            yield Batch.read(self.tiles, plan)

    def _ahead(self) -> Iterator[Batch]:
        found: queue.Queue[Batch | BaseException | None] = queue.Queue(self.ahead)
        stopped = threading.Event()

        def put(item: Batch | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    return found.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def read() -> None:
            try:
                for plan in self.plans:
                    if stopped.is_set():
                        return
                    put(Batch.read(self.tiles, plan, pin=torch.cuda.is_available()))
                put(None)
            except BaseException as error:  # whatever it is, the loop that waits must learn of it
                put(error)

        reader = threading.Thread(target=read, name="tiles", daemon=True)
        reader.start()
        try:
            while (item := found.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            reader.join()


class Noise:
    """Standard normal numbers that depend on the seed, the epoch and the process alone.

    On a GPU they are drawn there, and are others than on a CPU.
    """

    def __init__(self, seed: int, epoch: int, device: torch.device, rank: int = 0) -> None:
        key = [seed, epoch, rank] if rank else [seed, epoch]
        (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
        self._source = torch.Generator(device).manual_seed(int(state) >> 1)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """So many of them, in this shape."""
        return torch.randn(tuple(shape), generator=self._source, device=self._source.device)


def _overlap(by: int, length: int) -> tuple[slice, slice]:
    """Where what stays inside comes to lie, and where it was."""
    return slice(max(by, 0), min(length + by, length)), slice(max(-by, 0), min(length - by, length))

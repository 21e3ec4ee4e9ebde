"""Write a simulation: GeoTIFFs as a satellite archive would hold them, and the truth beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_origin

from imagery.simulate.plan import Location, Plan
from imagery.simulate.scenes import Scene, World, build_world, event_pixels, render
from imagery.simulate.seasons import BANDS
from imagery.simulate.truth import COLUMNS, TABLE, Truth, mask_path

MARKER = "simulation.json"
_KEPT = 0.6  # share of the bytes that is left of the corrupt file


def simulate(folder: Path, plan: Plan, on_scene: Callable[[Path], None] | None = None) -> Truth:
    """Write all scenes of a plan to `<folder>/<location>/<YYYY-MM-DD>.tif`, and the truth about them.

    The same plan gives the same bytes. A finished simulation is left alone; one that was interrupted is continued.

    Args:
        folder: Where to write; made when it is not there.
        plan: What to simulate, e.g. `demo_plan()`.
        on_scene: Called with the path of every scene once it is there, in the plan's order; not called when the
            simulation had been finished before.

    Returns:
        The truth, also written to `<folder>/truth.parquet` and `<folder>/truth/<location>/<date>.mask.tif`.

    Raises:
        FileExistsError: When the folder holds a simulation of another plan.
    """
    folder = Path(folder)
    if _claimed(folder, plan):
        return Truth.load(folder)
    worlds = {location.name: build_world(plan, location) for location in plan.locations}

    def write(scene: tuple[Location, date]) -> tuple[Path, list[dict[str, object]]]:
        return _write_scene(folder, plan, worlds[scene[0].name], scene[1])

    rows: list[dict[str, object]] = []
    pool = ThreadPoolExecutor(2)
    try:
        for path, seen in pool.map(write, plan.scenes()):
            rows += seen
            if on_scene is not None:
                on_scene(path)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not go on behind the error
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    _replace(folder / TABLE, lambda path: table.to_parquet(path, index=False))
    _mark(folder, plan, finished=True)
    return Truth(folder, table)


def _claimed(folder: Path, plan: Plan) -> bool:
    """Take the folder for a plan; whether the plan is finished there."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER
    if marker.is_file():
        found = json.loads(marker.read_text())
        if found["fingerprint"] != plan.fingerprint():
            raise FileExistsError(
                f"{folder} holds the simulation {found['fingerprint']}, not {plan.fingerprint()}: "
                "delete that folder, or simulate into another one"
            )
        if found["finished"] and all((folder / _name(location, day)).is_file() for location, day in plan.scenes()):
            return (folder / TABLE).is_file()
    _mark(folder, plan, finished=False)
    return False


def _mark(folder: Path, plan: Plan, finished: bool) -> None:
    text = json.dumps({"fingerprint": plan.fingerprint(), "seed": plan.seed, "finished": finished}) + "\n"
    _replace(folder / MARKER, lambda path: path.write_text(text))


def _name(location: Location, day: date) -> str:
    return f"{location.name}/{day:%Y-%m-%d}.tif"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let a function write a file, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _write_scene(folder: Path, plan: Plan, world: World, day: date) -> tuple[Path, list[dict[str, object]]]:
    """Write a scene unless it is there, its mask first; and the rows of truth about it."""
    location = world.location
    path, mask = folder / _name(location, day), mask_path(folder, location.name, day)
    corrupt = plan.corrupt == (location.name, day)
    happening = [] if corrupt else plan.events_on(location.name, day)
    if path.is_file() and (mask.is_file() or not happening):
        marks = _read_mask(mask) if happening else None
    else:
        scene = render(plan, world, day)
        marks = scene.marks if happening else None
        if marks is not None:
            _replace(mask, lambda to: _write_mask(to, location, scene.marks))
        _replace(path, lambda to: _write_bands(to, location, day, scene, corrupt))
    rows: list[dict[str, object]] = []
    if marks is None:
        return path, rows
    for number, event in happening:
        pixels = int((marks == number).sum())
        if pixels:
            share = pixels / event_pixels(world, number, day)
            acquired, start = pd.Timestamp(day, tz="UTC"), pd.Timestamp(event.start, tz="UTC")
            values = (location.name, acquired, event.kind, number, start, pixels, share)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return path, rows


def _profile(location: Location, count: int, dtype: str) -> dict[str, object]:
    return {
        "driver": "GTiff", "width": location.size, "height": location.size, "count": count, "dtype": dtype,
        "crs": f"EPSG:{location.epsg}",
        "transform": from_origin(location.west, location.north, location.resolution, location.resolution),
        "tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band",
        "compress": "deflate", "zlevel": 4,
    }  # fmt: skip


def _write_bands(path: Path, location: Location, day: date, scene: Scene, corrupt: bool) -> None:
    profile = _profile(location, len(BANDS) + 1, "uint16") | {"nodata": 0, "predictor": 2}
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.concatenate([scene.bands, scene.classes[None]]))
        target.descriptions = (*BANDS, "SCL")
        target.update_tags(TIFFTAG_DATETIME=f"{day:%Y:%m:%d} 10:50:00", SOURCE="simulated")
    if corrupt:  # as when a download broke off
        os.truncate(path, int(_KEPT * path.stat().st_size))


def _write_mask(path: Path, location: Location, marks: np.ndarray) -> None:
    with rasterio.open(path, "w", **_profile(location, 1, "uint8")) as target:
        target.write(marks, 1)


def _read_mask(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        marks: np.ndarray = source.read(1)
    return marks

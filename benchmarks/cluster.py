"""How much faster scenes are scored side by side: threads of one process, and processes of a Dask cluster.

    python benchmarks/cluster.py [--quick] [--json] [--out DIR]

The same scenes are scored through the same Prefect flow with one thread, with two, and on a cluster of two processes of
this machine that is started for it. Starting the cluster is timed apart: a run does it once. All three must give the
same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from prefect import flow

from benchmarks.machine import machine, versions
from benchmarks.year import prefect_server
from configs import Settings, Workspace
from configs.schema import ComputeSettings
from imagery.catalog import Catalog
from imagery.simulate import Location, Plan, simulate
from tasks import engines, steps
from tasks.calibrate import calibrate_detector
from tasks.ingest import ingest_scene, plan_ingest, settle_grids
from tasks.train import train_detector

TRAINING, CALIBRATION = 8, 8  # dates
WAYS = {
    "one thread": ComputeSettings(workers=1, threads=1),
    "two threads": ComputeSettings(workers=2, threads=1),
    "two processes of Dask": ComputeSettings(engine="dask", workers=2, threads=1, batch=4),
}


@dataclass(frozen=True)
class Ready:
    """A workspace in which everything is ready to be scored."""

    settings: Settings
    workspace: Workspace
    detector: Path


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller scenes; the same work")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    arguments = parser.parse_args()
    scenes, side = (24, 64) if arguments.quick else (100, 256)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), scenes, side)
    text = json.dumps(result, indent=1)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "cluster.json").write_text(text + "\n", encoding="utf-8")
    if not arguments.json:
        for row in result["results"]:
            print(
                f"{row['way']:<22} {row['seconds']:8.2f} s  {row['scenes_per_second']:7.2f} scenes/s  "
                f"speed-up {row['speed_up']:5.2f}  started in {row['start_seconds']:5.2f} s"
            )
    print(text if not arguments.json else json.dumps(result))


def measure(folder: Path, scenes: int, side: int) -> dict[str, Any]:
    """Score so many scenes of `side` × `side` pixels in each way."""
    ready = prepared(folder, scenes, side)
    rows, found = [], []
    with prefect_server(folder / "prefect"):
        for way, compute in WAYS.items():
            shutil.copytree(ready.workspace.root, folder / way)
            settings = ready.settings.model_copy(update={"compute": compute})
            mine = replace(ready, settings=settings, workspace=Workspace(folder / way))
            starting = time.perf_counter()
            score(mine, 2 * compute.batch)  # the cluster starts; every worker imports, and loads the detector
            started = time.perf_counter()
            score(mine, scenes)
            seconds = time.perf_counter() - started
            rows.append({"way": way, "seconds": round(seconds, 2), "start_seconds": round(started - starting, 2)})
            found.append(digest(mine.workspace))
        engines.leave()
    for row in rows:
        row["scenes_per_second"] = round(scenes / row["seconds"], 2)
        row["speed_up"] = round(rows[0]["seconds"] / row["seconds"], 2)
    return {
        "benchmark": "cluster",
        "machine": machine(),
        "versions": versions("tilewatch", "torch", "prefect", "prefect-dask", "distributed"),
        "scenes": {"count": scenes, "side": side, "tiles": scenes * (side // ready.settings.grid.tile_size) ** 2},
        "results": rows,
        "same_bytes": len(set(found)) == 1,
    }


def prepared(folder: Path, scenes: int, side: int) -> Ready:
    """Simulated scenes in the catalog, and a detector that was trained on the first ones."""
    dates = tuple(date(2024, 3, 1) + timedelta(days=3 * number) for number in range(scenes))
    place = Location("tisza-plain", "river", 32634, west=463_200, north=5_218_600, size=side)
    last = dates[TRAINING - 1], dates[TRAINING + CALIBRATION - 1]
    clear = tuple((place.name, day) for day in dates)  # so that every scene is the same work
    simulate(folder / "scenes", Plan(3, (place,), dates, *last, clear_scenes=clear))
    settings = Settings.model_validate(
        {
            "source": {"root": folder / "scenes", "bands": ["B02", "B03", "B04", "B08"]},
            "masks": {"class_band": "SCL"},
            "grid": {"tile_size": 16 if side < 256 else 32},
            "split": {"train": {"end": last[0]}, "calibrate": {"start": dates[TRAINING], "end": last[1]}},
            "train": {"epochs": 2},
            "calibration": {"min_tiles": 20, "false_alarm_rate": 0.05},
            "compute": {"threads": 1},
        }
    )
    workspace = Workspace(folder / "workspace")
    found = plan_ingest(settings, workspace).scenes
    settle_grids(found, settings, workspace)
    for scene in found:
        ingest_scene(scene, settings, workspace)
    trained = train_detector(settings, workspace)
    calibrate_detector(trained.detector, trained.split, settings, workspace).detector.save(folder / "detector")
    return Ready(settings, workspace, folder / "detector")


@flow(name="score", persist_result=False)
def score(ready: Ready, scenes: int) -> None:
    """Score the first scenes of the catalog, as a night scores its own."""
    settings, workspace = ready.settings, ready.workspace
    common = {"detector": ready.detector, "detector_version": "v1", "settings": settings, "workspace": workspace}
    parameters = [{"record": record, **common} for record in Catalog(workspace).scenes()[:scenes]]
    reasons = steps.for_each(steps.score_scene, parameters, settings, lambda one, failure: f"{failure}")
    if any(reasons):
        raise RuntimeError(f"scenes could not be scored: {reasons}")


def digest(workspace: Workspace) -> str:
    """Of everything that scoring wrote."""
    found = hashlib.sha256()
    for path in sorted(path for top in (workspace.scores, workspace.latents) for path in top.rglob("*.*")):
        if path.is_file():
            found.update(path.relative_to(workspace.root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    logging.getLogger("prefect").setLevel(logging.WARNING)
    main()

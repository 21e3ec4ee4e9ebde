"""What a night costs, step by step, beside the bare work of the libraries underneath, in one run.

    python benchmarks/night.py [--quick] [--json] [--out DIR]

A scene of four bands and a classification is simulated, written as a tiled GeoTIFF, and then read bare with rasterio,
ingested (masks, statistics, catalog), passed bare through the network, and scored (p-values, heatmap, latents, files).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch

from configs import Settings, Workspace
from configs.schema import GridSettings, MaskSettings, NormaliseSettings, ScoreSettings, SourceSettings
from imagery.catalog import Catalog
from imagery.normalise import band_limits
from imagery.sources import find_scenes
from tasks.ingest import ingest_scene, reading_key, settle_grids
from tasks.score import score_files, score_scene
from vae.detector import BATCH, Detector
from vae.networks import build
from vae.normalisation import Normalisation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.machine import machine, versions

BANDS = ("B02", "B03", "B04", "B08")
GOALS = {"ingest beside bare read": 0.7, "score beside bare network": 0.7}


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller scene and fewer repetitions; the same work")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    arguments = parser.parse_args()
    side, repetitions = (1024, 3) if arguments.quick else (4096, 5)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), side, repetitions)
    text = json.dumps(result, indent=1)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "night.json").write_text(text + "\n", encoding="utf-8")
    if not arguments.json:
        for row in result["results"]:
            print(f"{row['step']:<20} {row['seconds']:8.3f} s  {row['tiles_per_second']:9.0f} tiles/s")
    print(text if not arguments.json else json.dumps(result))


def measure(folder: Path, side: int, repetitions: int) -> dict[str, object]:
    """Time each step on one scene of `side` × `side` pixels; medians over the repetitions."""
    settings = Settings(
        name="benchmark",
        source=SourceSettings(root=folder, pattern="{location}/{date:%Y-%m-%d}.tif", bands=BANDS),
        masks=MaskSettings(class_band="SCL"),
        grid=GridSettings(tile_size=64),
        normalise=NormaliseSettings(),
        score=ScoreSettings(name="reconstruction", without_past="reconstruction", also=()),
    )
    path = write_scene(folder / "here" / "2024-06-01.tif", side)
    (scene,) = find_scenes(settings.source, settings.locations).scenes
    workspace = Workspace(folder / "workspace")
    settle_grids([scene], settings, workspace)
    tiles = (side // 64) ** 2

    def bare_read() -> None:
        with rasterio.open(path, sharing=False, num_threads=2) as dataset:
            for row in range(0, side, 64):
                dataset.read(window=rasterio.windows.Window(0, row, side, 64))

    def ingest() -> None:
        Catalog(workspace).remove(scene)
        ingest_scene(scene, settings, workspace)

    ingest()
    (record,) = Catalog(workspace).scenes()
    limits = band_limits(record.stats, settings.normalise)
    network = build(len(BANDS), settings.model, seed=0)
    network.sigma.fill_(0.3)
    normalisation = Normalisation.from_limits(limits, log=True, clip=3.0)
    about = {"reading_key": reading_key(settings)}
    plain = Detector((network,), normalisation, settings.model, settings.score, 64, metadata=about)
    usual = np.random.default_rng(0).lognormal(size=1000)
    nights = [f"2024-01-{number % 10 + 1:02d}" for number in range(len(usual))]
    places = [f"there-{number}" for number in range(len(usual))]
    detector = plain.with_calibration(
        settings.score.name, usual, nights, nights, places, settings.calibration, "held_out"
    )
    batch, valid = torch.zeros(BATCH, len(BANDS), 64, 64), torch.ones(BATCH, 64, 64, dtype=torch.bool)

    @torch.inference_mode()
    def bare_network() -> None:
        for _ in range(-(-tiles // BATCH)):
            network(batch, valid)

    def score() -> None:
        files = score_files(workspace, "v0", record)
        files.profile.unlink(missing_ok=True)
        score_scene(record, detector, "v0", settings, workspace)

    megabytes = side * side * (len(BANDS) + 1) * 2 / 1e6
    steps = {"bare read": bare_read, "ingest": ingest, "bare network": bare_network, "score": score}
    seconds = {name: median_time(step, repetitions) for name, step in steps.items()}
    rows = [
        {
            "step": name,
            "seconds": round(taken, 4),
            "tiles_per_second": round(tiles / taken, 1),
            "megabytes_per_second": round(megabytes / taken, 1),
        }
        for name, taken in seconds.items()
    ]
    reached = {
        "ingest beside bare read": seconds["bare read"] / seconds["ingest"],
        "score beside bare network": seconds["bare network"] / seconds["score"],
    }
    return {
        "benchmark": "night",
        "machine": machine(),
        "versions": versions("tilewatch", "torch", "numpy", "rasterio"),
        "scene": {"side": side, "bands": len(BANDS) + 1, "tiles": tiles, "megabytes": round(megabytes, 1)},
        "repetitions": repetitions,
        "results": rows,
        "goals": {
            name: {"value": round(value, 3), "goal": GOALS[name], "met": value >= GOALS[name]}
            for name, value in reached.items()
        },
    }


def median_time(step: Callable[[], None], repetitions: int) -> float:
    """Seconds of one call, the median after a warm-up."""
    step()
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def write_scene(path: Path, side: int) -> Path:
    """Ground with structure, and a tenth of it under cloud."""
    draw = np.random.default_rng(0)
    coarse = draw.random((len(BANDS), side // 32, side // 32)).repeat(32, axis=1).repeat(32, axis=2)
    values = (500 + 2500 * coarse + draw.normal(0, 40, (len(BANDS), side, side))).astype(np.uint16)
    cloud = draw.random((side // 64, side // 64)).repeat(64, axis=0).repeat(64, axis=1) < 0.1
    profile = {"driver": "GTiff", "dtype": "uint16", "count": len(BANDS) + 1, "width": side, "height": side}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "ZSTD", "nodata": 0}
    transform = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    path.parent.mkdir(parents=True)
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile, **layout) as dataset:
        dataset.write(values, range(1, len(BANDS) + 1))
        dataset.write(np.where(cloud, 9, 4).astype(np.uint16), len(BANDS) + 1)
        for index, band in enumerate((*BANDS, "SCL"), start=1):
            dataset.set_band_description(index, band)
    return path


if __name__ == "__main__":
    main()

"""What ingest costs beside the bare read of the same file, for the formats that scenes come in.

    python benchmarks/ingest.py [--quick] [--json] [--out DIR]

A scene of 10 980 × 10 980 pixels and four bands is put together from real Sentinel-2 tiles (the OSCD cities of the
shared data), and written as a tiled ZSTD COG, as a striped deflate GeoTIFF, and as JPEG 2000, one file a band. Each is
read bare with rasterio, in two ways, and ingested (masks, statistics, fingerprint, catalog), each in processes of their
own that take turns. The files are in the page cache: this is about arithmetic, not about the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.machine import machine, peak_megabytes, versions

SHARED = Path(os.environ.get("TILEWATCH_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
BANDS = ("B02", "B03", "B04", "B08")
PATCH, TILE = 256, 64
GOAL, MEMORY_GOAL = 0.7, 1500
WAYS = ("blocks", "rows", "ingest")
FORMATS: dict[str, dict[str, Any]] = {
    "cog": {"driver": "COG", "compress": "ZSTD", "blocksize": 512, "num_threads": "ALL_CPUS", "overviews": "NONE"},
    "striped": {"driver": "GTiff", "compress": "DEFLATE", "num_threads": "ALL_CPUS"},
    "jp2": {"driver": "JP2OpenJPEG", "quality": "100", "reversible": "YES", "blockxsize": 1024, "blockysize": 1024},
}


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller scene and fewer repetitions; the same work")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FOLDER", "REPETITIONS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, folder, repetitions = arguments.one
        print(json.dumps(measure_here(way, Path(folder), int(repetitions))))
        return
    side, repetitions = (2745, 2) if arguments.quick else (10_980, 3)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), side, repetitions)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "ingest.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        plot(result, arguments.out / "ingest.png")
    if not arguments.json:
        for row in result["results"]:
            print(
                f"{row['format']:<8} {row['way']:<7} {row['seconds']:8.3f} s {row['tiles_per_second']:8.0f} tiles/s "
                f"{row['megabytes_per_second']:7.0f} MB/s  peak {row['peak_megabytes']:5.0f} MB"
            )
    print(json.dumps(result))


def measure(folder: Path, side: int, repetitions: int) -> dict[str, Any]:
    """Time each way of reading each format; medians over the repetitions."""
    plain = write_plain(folder / "plain.tif", side)
    tiles, megabytes = (-(-side // TILE)) ** 2, side * side * len(BANDS) * 2 / 1e6
    rows = []
    for name, options in FORMATS.items():
        place = folder / name
        written = write(plain, place, options)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        peaks: dict[str, float] = dict.fromkeys(WAYS, 0.0)
        for _ in range(1 if name == "jp2" else repetitions):  # JPEG 2000 takes minutes, beside which nothing varies
            for way in WAYS:
                measured = run_one(way, place, 1 if name == "jp2" else 4)
                times[way] += measured["seconds"]
                peaks[way] = max(peaks[way], measured["peak_megabytes"])
        for way in WAYS:
            seconds = statistics.median(times[way])
            rows.append(
                {
                    "format": name,
                    "way": way,
                    "seconds": round(seconds, 3),
                    "tiles_per_second": round(tiles / seconds, 1),
                    "megabytes_per_second": round(megabytes / seconds, 1),
                    "peak_megabytes": round(peaks[way], 1),
                    "file_megabytes": round(written / 1e6, 1),
                }
            )
    return {
        "benchmark": "ingest",
        "machine": machine(),
        "versions": versions("tilewatch", "numpy", "numba", "rasterio") | {"gdal": rasterio.__gdal_version__},
        "scene": {"side": side, "bands": len(BANDS), "tiles": tiles, "megabytes": round(megabytes, 1)},
        "repetitions": repetitions,
        "ways": {
            "blocks": "rasterio, block by block, one thread",
            "rows": "rasterio, rows of blocks, decoded by all cores",
            "ingest": "tilewatch: masks, statistics, fingerprint, catalog",
        },
        "results": rows,
        "goals": goals(rows),
    }


def goals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Throughput beside both bare reads, and memory, with what was asked for."""
    seconds = {(row["format"], row["way"]): row["seconds"] for row in rows}
    found: dict[str, Any] = {}
    for name in FORMATS:
        for way in ("blocks", "rows"):
            value = seconds[name, way] / seconds[name, "ingest"]
            goal = GOAL if name == "cog" else None
            found[f"{name}: share of the bare read by {way}"] = {
                "value": round(value, 3),
                "goal": goal,
                "met": value >= goal if goal else None,
            }
    peak = max(row["peak_megabytes"] for row in rows if row["way"] == "ingest")
    found["peak memory of ingest, MB"] = {"value": peak, "goal": MEMORY_GOAL, "met": peak < MEMORY_GOAL}
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Throughput of each way of reading each format; ingest beside the bare reads."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for offset, way in enumerate(WAYS):
        rows = [row for row in result["results"] if row["way"] == way]
        places = [index - 0.25 * (offset - 1) for index in range(len(rows))]
        values = [row["megabytes_per_second"] for row in rows]
        bars = axes.barh(
            places, values, 0.23, label=result["ways"][way], color=("#b8c4cc", "#8496a4", "#d9730d")[offset]
        )
        axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(FORMATS)), list(FORMATS))
    axes.set_xscale("log")
    axes.set_xlabel(f"MB/s of stored numbers, {result['machine']['cores']} cores")
    axes.set_xlim(left=10)
    figure.legend(fontsize=7, loc="outside upper center", ncols=1, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def run_one(way: str, folder: Path, repetitions: int) -> dict[str, Any]:
    """Measure in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--one", way, str(folder), str(repetitions)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{way} of {folder.name} failed: {ran.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def measure_here(way: str, folder: Path, repetitions: int) -> dict[str, Any]:
    """Seconds of each repetition but the first (unless it is the only one), and the peak memory of this process."""
    files = sorted(folder.glob("*/*"))
    step = {"blocks": read_blocks, "rows": read_rows, "ingest": ingest}[way]
    seconds = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        step(files)
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds[1:] or seconds, "peak_megabytes": peak_megabytes()}


def read_blocks(files: list[Path]) -> None:
    """Read block by block, one thread: the plain way."""
    with rasterio.Env(GDAL_CACHEMAX=256):
        for path in files:
            with rasterio.open(path) as dataset:
                height, width = dataset.block_shapes[0]
                side = max(height, 512)
                for row in range(0, dataset.height, side):
                    rows = min(side, dataset.height - row)
                    step = width if height > 1 else dataset.width
                    for col in range(0, dataset.width, step):
                        dataset.read(window=Window(col, row, min(step, dataset.width - col), rows))


def read_rows(files: list[Path]) -> None:
    """Read rows of blocks, decoded by all cores: the fastest way that is known."""
    with rasterio.Env(GDAL_CACHEMAX=256, GDAL_NUM_THREADS="ALL_CPUS"):
        for path in files:
            with rasterio.open(path, num_threads="ALL_CPUS") as dataset:
                side = max(dataset.block_shapes[0][0], 512)
                for row in range(0, dataset.height, side):
                    dataset.read(window=Window(0, row, dataset.width, min(side, dataset.height - row)))


def ingest(files: list[Path]) -> None:
    """Enter the scene in a catalog that does not know it."""
    from configs import Workspace
    from configs.schema import GridSettings, Settings, SourceSettings
    from imagery.sources import find_scenes
    from tasks.ingest import ingest_scene, settle_grids

    folder = files[0].parents[1]
    pattern = "{date:%Y-%m-%d}/{band}.jp2" if files[0].suffix == ".jp2" else "{date:%Y-%m-%d}/scene.tif"
    settings = Settings(
        source=SourceSettings(root=folder, pattern=pattern, location="here", bands=BANDS),
        grid=GridSettings(tile_size=TILE),
    )
    (scene,) = find_scenes(settings.source).scenes
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace(Path(place))
        settle_grids([scene], settings, workspace)
        done = ingest_scene(scene, settings, workspace)
    if done.reason:
        raise RuntimeError(done.reason)


def write_plain(path: Path, side: int) -> Path:
    """A scene of real tiles as a plain GeoTIFF, row by row of patches."""
    patches = list(real_patches())
    if not patches:
        raise SystemExit(f"no imagery in {SHARED / 'oscd'}: set TILEWATCH_SHARED_DATA")
    draw = np.random.default_rng(0)
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(BANDS),
        "width": side,
        "height": side,
        "nodata": 0,
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 499_980, 0, -10, 5_200_020),
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.descriptions = BANDS
        for row in range(0, side, PATCH):
            strip = np.concatenate(
                [turned(patches[draw.integers(len(patches))], int(draw.integers(8))) for _ in range(0, side, PATCH)],
                axis=2,
            )
            rows = min(PATCH, side - row)
            dataset.write(strip[:, :rows, :side], window=Window(0, row, side, rows))
    return path


def real_patches() -> Iterator[NDArray[np.uint16]]:
    """(4, PATCH, PATCH) patches of the first dates of the OSCD cities, stored numbers."""
    for city in sorted(path for path in (SHARED / "oscd").glob("*") if path.is_dir()):
        date = sorted(path for path in city.iterdir() if path.is_dir())[0]
        bands = []
        for band in BANDS:
            with rasterio.open(date / f"{band}.tif") as dataset:
                bands.append(dataset.read(1))
        image = np.maximum(np.stack(bands), 1)  # 0 means no data in the benchmark's file
        for row in range(0, image.shape[1] - PATCH + 1, PATCH):
            for col in range(0, image.shape[2] - PATCH + 1, PATCH):
                yield image[:, row : row + PATCH, col : col + PATCH]


def turned(patch: NDArray[np.uint16], way: int) -> NDArray[np.uint16]:
    """One of the eight ways to lay a square, so that few patches repeat."""
    patch = np.rot90(patch, way % 4, axes=(1, 2))
    return patch[:, :, ::-1] if way >= 4 else patch


def write(plain: Path, folder: Path, options: dict[str, Any]) -> int:
    """Write a format of the scene, and return its size in bytes."""
    place = folder / "2024-06-01"
    place.mkdir(parents=True)
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
        if options["driver"] == "JP2OpenJPEG":
            for index, band in enumerate(BANDS, start=1):
                single = folder / f"{band}.tif"
                with rasterio.open(plain) as dataset:
                    profile = dataset.profile | {"count": 1}
                    with rasterio.open(single, "w", **profile) as target:
                        for _, window in dataset.block_windows(1):
                            target.write(dataset.read(index, window=window), 1, window=window)
                rasterio.shutil.copy(single, place / f"{band}.jp2", **options)
                single.unlink()
        else:
            rasterio.shutil.copy(plain, place / "scene.tif", **options)
    for sidecar in place.glob("*.aux.xml"):
        sidecar.unlink()
    return sum(path.stat().st_size for path in place.iterdir())


if __name__ == "__main__":
    main()

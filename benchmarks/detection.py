"""How well anomalies are found, and at what cost: tilewatch and its peers on the same tiles, in one run.

    python benchmarks/detection.py [--part oscd single widespread romania] [--peers plain ravaen anomalib pyod | --all]
                                   [--quick] [--json] [--out DIR]

- `oscd`: two dates of ten cities, urban change marked; what is learned is learned on the other nine, without labels.
- `widespread`: the same with 5 to 35 % of the later image turned on purpose.
- `single`: single dates with injected anomalies.
- `romania`: five years of one place, events injected at known dates (`benchmarks/series.py`).

PatchCore, PaDiM and PyOD need an environment of their own, which is made in a cache folder outside the repository
(TILEWATCH_BENCHMARK_CACHE). Peers that know single images only are shown the later date and the aligned difference of
both; both stand in the table, so the better one counts. Times are those of the threads that OMP_NUM_THREADS allows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.harness import Measured, leave_one_out, measure
from benchmarks.machine import machine, versions
from benchmarks.peers import elsewhere, linear, ravaen
from benchmarks.problems import injected, oscd
from benchmarks.problems.common import Method, Pair
from benchmarks.summaries import (
    costs,
    markdown,
    plot_cost,
    plot_widespread,
    rows_of,
    widespread_markdown,
    widespread_rows,
)

PARTS = ("oscd", "single", "widespread", "romania")
PEERS = ("plain", "ravaen", "anomalib", "pyod")
STAND_IN = {True: "aligned CVA, p90", False: "RX (after)"}  # what is compared with while there is nothing of ours
GOALS = {
    "oscd: AP": 0.45,
    "oscd: AUROC": 0.89,
    "single: AP": 0.60,
    "widespread 20 %: AUROC": 0.90,
    "widespread 35 %: AUROC": 0.80,
}


def main() -> None:
    """Measure, print tables, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS[:3])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS[:2], help="beside our own methods")
    parser.add_argument("--all", action="store_true", help="all parts and all peers")
    parser.add_argument("--quick", action="store_true", help="three cities and little training; the same work")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object and the plots are kept")
    arguments = parser.parse_args()
    parts, peers = (PARTS, PEERS) if arguments.all else (arguments.part, arguments.peers)
    result = run(parts, peers, arguments.quick)
    if arguments.out:
        keep(result, arguments.out)
    if not arguments.json:
        print(tables(result))
    print(json.dumps(result))


def run(parts: Sequence[str], peers: Sequence[str], quick: bool) -> dict[str, Any]:
    """Everything that is asked for, as one JSON object."""
    pairs = oscd.cities(oscd.QUICK if quick else None)
    result: dict[str, Any] = {
        "benchmark": "detection",
        "quick": quick,
        "cities": [pair.name for pair in pairs],
        "parts": {},
        "goals": {},
    }
    begin = time.perf_counter()
    if {"oscd", "widespread"} & set(parts):
        two_dates(pairs, parts, peers, quick, result)
    if "single" in parts:
        single_date(pairs, peers, quick, result)
    if "romania" in parts:
        from benchmarks import series

        result["parts"]["romania"] = series.measure(quick)
    about = {
        "machine": machine(),
        "versions": versions("tilewatch", "numpy", "scipy", "scikit-learn", "torch"),
        "seconds": round(time.perf_counter() - begin),
        "with": [*parts, *peers],
    }
    for part in result["parts"].values():
        part["run"] = about
    return result


def two_dates(
    pairs: Sequence[Pair], parts: Sequence[str], peers: Sequence[str], quick: bool, result: dict[str, Any]
) -> None:
    """The parts `oscd` and `widespread`: one fit a city serves both."""
    tests = list(pairs) if "oscd" in parts else []
    turned, refused = injected.widespread(pairs) if "widespread" in parts else ([], [])
    tests += turned
    methods, default = chosen(True, peers, quick)
    measured = measured_all(methods, pairs, tests)
    failed = {one.name: one.failed for one in measured if one.failed}
    if "oscd" in parts:
        rows = rows_of(measured, tests, oscd.CONDITION, default)
        result["parts"]["oscd"] = {"tiles": _tiles(pairs), "default": default, "failed": failed, "results": rows}
        result["goals"] |= goals_of("oscd", rows, default)
    if turned:
        rows = widespread_rows(measured, turned)
        result["parts"]["widespread"] = {
            "tiles": _tiles(turned),
            "default": default,
            "cities": {kind: sorted({one.name for one in turned if kind in one.condition}) for kind in injected.TURNED},
            "refused": refused,
            "failed": failed,
            "results": rows,
        }
        reached = next((row["auroc"] for row in rows if row["score"] == default), {})
        for share, name in (("0.20", "widespread 20 %: AUROC"), ("0.35", "widespread 35 %: AUROC")):
            result["goals"][name] = _goal(name, reached.get(share))


def single_date(pairs: Sequence[Pair], peers: Sequence[str], quick: bool, result: dict[str, Any]) -> None:
    """The part `single`."""
    tests = injected.single_date(pairs)
    methods, default = chosen(False, peers, quick)
    measured = measured_all(methods, injected.single_images(pairs), tests)
    rows = rows_of(measured, tests, tests[0].condition, default)
    failed = {one.name: one.failed for one in measured if one.failed}
    result["parts"]["single"] = {"tiles": _tiles(tests), "default": default, "failed": failed, "results": rows}
    result["goals"] |= goals_of("single", rows, default)


def chosen(pairs: bool, peers: Sequence[str], quick: bool) -> tuple[list[Method], str]:
    """The methods, ours first, and the name of the score that the others are compared with."""
    methods, default = own(pairs, quick)
    if "plain" in peers:
        methods += linear.methods(pairs)
    if "ravaen" in peers:
        methods += ravaen.methods(pairs, quick)
    if "anomalib" in peers:
        methods += elsewhere.feature_banks(pairs, quick)
    if "pyod" in peers:
        methods += elsewhere.outliers(pairs, quick)
    return methods, default


def own(pairs: bool, quick: bool) -> tuple[list[Method], str]:
    """Our methods and the name of the default's score."""
    try:
        from benchmarks import ours
    except ImportError:
        return [], STAND_IN[pairs]
    return ours.methods(pairs, quick), ours.DEFAULT[pairs]


def measured_all(methods: Sequence[Method], train: Sequence[Pair], tests: Sequence[Pair]) -> list[Measured]:
    """Run them, and say so on the way."""
    found = []
    for one in measure(methods, leave_one_out(train, tests)):
        found.append(one)
        print(f"{one.name}: {one.failed or costs(one)}", file=sys.stderr, flush=True)
    return found


def goals_of(part: str, rows: Sequence[dict[str, Any]], default: str) -> dict[str, Any]:
    """What the default reached of what was asked for, and whether it is ahead of every peer."""
    reached = next((row for row in rows if row["score"] == default), None)
    if reached is None:
        return {}
    found = {
        name: _goal(name, reached[metric.lower()]["value"])
        for metric in ("AP", "AUROC")
        if (name := f"{part}: {metric}") in GOALS
    }
    peers = [row for row in rows if row["family"] != reached["family"]]
    close = [row["score"] for row in peers if not (row["ap_behind_default"]["low"] or 0) > 0]
    found[f"{part}: peers it is not clearly ahead of"] = {"value": close, "goal": [], "met": not close}
    return found


def tables(result: dict[str, Any]) -> str:
    """All parts in Markdown."""
    parts = []
    for name, part in result["parts"].items():
        if name == "romania":
            continue
        table = widespread_markdown if name == "widespread" else markdown
        parts.append(f"\n### {name}, {part['tiles']} tiles\n\n{table(part['results'])}\n")
    goals = (f"- {name}: {goal['value']} (goal {goal['goal']})" for name, goal in result["goals"].items())
    return "\n".join([*parts, *goals])


def keep(result: dict[str, Any], folder: Path) -> None:
    """Write the JSON object, the tables and the plots; parts that were kept before and not measured now stay."""
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / "detection.json"
    if before.exists():
        kept = json.loads(before.read_text(encoding="utf-8"))
        if kept["quick"] == result["quick"] and kept["cities"] == result["cities"]:
            result = result | {name: kept[name] | result[name] for name in ("parts", "goals")}
    (folder / "detection.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "detection.md").write_text(tables(result) + "\n", encoding="utf-8")
    for name, part in result["parts"].items():
        if name in ("oscd", "single"):
            plot_cost(part["results"], part["default"], folder / f"detection_{name}.png")
        elif name == "widespread":
            plot_widespread(part["results"], part["default"], folder / "detection_widespread.png")


def _goal(name: str, value: float | None) -> dict[str, Any]:
    return {"value": value, "goal": GOALS[name], "met": value is not None and value >= GOALS[name]}


def _tiles(pairs: Sequence[Pair]) -> int:
    return sum(len(pair.tiles) for pair in pairs)


if __name__ == "__main__":
    main()

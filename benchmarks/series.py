"""Five years of real dates, events of known place and date: what is found when, and how often the alarm is false.

    python benchmarks/series.py [--quick] [--json] [--out DIR] [--without-nrt]

The series and the events are those of `benchmarks.problems.romania`. Every method scores each date by earlier ones.
Ours are calibrated by `vae.calibration` on the dates before 2019 alone, and their false alarms counted on the later
ones. Beside that, all methods are compared at equal false alarms: each gets the threshold that flags at most a share of
the untouched test tiles. What chance would find is told by the same places and dates in the untouched series. nrt needs
an environment of its own, which is made once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks.machine import machine, versions
from benchmarks.problems.romania import Altered, Series, altered, read_series
from benchmarks.series_judging import AFTER, RATES, Run, calibrated_row, equal_row, paired, percent
from benchmarks.series_methods import Expected, Method
from benchmarks.series_product import DEFAULT, Product

SEEDS, QUICK_SEEDS = 36, 6
FIRST_SEED = 1000  # the method was chosen on other events
GOALS = {
    "false alarms at 1 %, multiple of nominal": ("at most", 1.3),
    "false alarms at 5 %, multiple of nominal": ("at most", 1.3),
    "dates above 5 x nominal at 1 % without a scene alarm": ("at most", 0.0),
    "recall of strong events at 1 % within 3 clear dates": ("at least", 0.6),
    "recall of subtle events at 1 % within 3 clear dates": ("at least", 0.3),
    "recall ahead of the best nrt at equal false alarms, lower end": ("above", 0.0),
}


def main() -> None:
    """Measure, print a table, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few events; the same work")
    parser.add_argument("--without-nrt", action="store_true", help="our methods alone: no environment is made")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the JSON object is kept")
    arguments = parser.parse_args()
    result = measure(arguments.quick, nrt=not arguments.without_nrt)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "series.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not arguments.json:
        print(markdown(result))
    print(json.dumps(result))


def measure(quick: bool, nrt: bool = True) -> dict[str, Any]:
    """Everything, as one JSON object."""
    begin = time.perf_counter()
    series = read_series()
    copies = [altered(series, FIRST_SEED + seed) for seed in range(QUICK_SEEDS if quick else SEEDS)]
    methods: list[Method] = [
        Product(),
        Expected("median", recent=6, median=True),
        Expected("regression", recent=4, seasonal=6),
    ]
    if nrt:
        from benchmarks.peers.nrt import Nrt  # makes an environment

        methods.insert(0, Nrt())
    runs: dict[str, Run] = {}
    cost = {}
    for method in methods:
        found, seconds, dates = scored(method, series, copies)
        runs |= found
        cost[method.name] = {
            "seconds": round(seconds, 1),
            "dates_per_second": round(dates / seconds, 1),
        }
    calibrated = [calibrated_row(name, run, series, copies) for name, run in runs.items() if run.family == "ours"]
    equal = [equal_row(name, run, series, copies, rate) for name, run in runs.items() for rate in RATES]
    ahead = paired(runs, DEFAULT, series, copies) if nrt else {}
    return {
        "benchmark": "series",
        "quick": quick,
        "machine": machine(),
        "versions": versions("tilewatch", "numpy", "scipy"),
        "series": {
            "dates": len(series.days),
            "looked_at": len(series.looked_at),
            "calibrating": int((~series.tested[series.looked_at]).sum()),
            "tested": int(series.tested[series.looked_at].sum()),
            "years": round(series.years, 2),
            "square_kilometres": round(series.area, 3),
        },
        "events": _counts(copies),
        "cost": cost,
        "calibrated": calibrated,
        "equal_false_alarms": equal,
        "ahead_of_nrt": ahead,
        "goals": goals(calibrated, ahead),
        "seconds": round(time.perf_counter() - begin),
    }


def scored(method: Method, series: Series, copies: Sequence[Altered]) -> tuple[dict[str, Run], float, int]:
    """Scores of the series and all copies, the seconds that took, and how many dates were scored."""
    begin = time.perf_counter()
    runs = {name: Run(method.family, scores) for name, scores in method.learn(series).items()}
    dates = _scored_dates(next(iter(runs.values())).untouched)
    for copy in copies:
        for name, scores in method.scores(copy).items():
            runs[name].copies.append(scores)
        dates += _scored_dates(next(iter(runs.values())).copies[-1][copy.since :])
    method.close()
    return runs, time.perf_counter() - begin, dates


def _scored_dates(scores: np.ndarray) -> int:
    return int(np.isfinite(scores).any(axis=1).sum())


def goals(calibrated: Sequence[Mapping[str, Any]], ahead: Mapping[str, Any]) -> dict[str, Any]:
    """What the default reached."""
    row = next(row for row in calibrated if row["score"] == DEFAULT)
    low, high = (row[percent(rate)] for rate in RATES)
    values = [
        low["false_alarm_rate"]["value"] / RATES[0],
        high["false_alarm_rate"]["value"] / RATES[1],
        low["of_these_without_alarm"],
        low["strong"]["within_3"]["value"],
        low["subtle"]["within_3"]["value"],
        ahead["difference_of_recall_within_3"]["low"] if ahead else None,
    ]
    compare = {"at most": lambda a, b: a <= b, "at least": lambda a, b: a >= b, "above": lambda a, b: a > b}
    return {
        name: {
            "value": None if value is None else round(value, 3),
            "goal": f"{how} {goal:g}",
            "met": value is not None and compare[how](value, goal),
        }
        for (name, (how, goal)), value in zip(GOALS.items(), values, strict=True)
    }


def _counts(copies: Sequence[Altered]) -> dict[str, int]:
    kinds = [event.kind for copy in copies for event in copy.events]
    return {"series": len(copies), "all": len(kinds)} | {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def markdown(result: Mapping[str, Any]) -> str:
    """The tables, the cost and the goals in Markdown."""
    lines = [f"Events: {result['events']}. Series: {result['series']}.", "", "Calibrated before the tests:", ""]
    lines += [
        "| score | rate | false alarms | worst date | tiles a year and km² | strong 1/3/5 | subtle 1/3/5 | chance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["calibrated"]:
        for rate in map(percent, RATES):
            part = row[rate]
            alarm = part["false_alarm_rate"]
            lines.append(
                f"| {row['score']} | {rate} | {alarm['value']:.3f} [{alarm['low']:.3f}, {alarm['high']:.3f}] "
                f"| {part['worst_date_rate']:.2f} on {part['worst_date']} | {part['false_tiles_per_year_km2']:.1f} "
                f"| {_three(part['strong'])} | {_three(part['subtle'])} | {part['subtle']['by_chance_within_3']:.2f} |"
            )
    lines += ["", "At equal false alarms:", ""]
    lines += ["| score | rate | strong 1/3/5 | subtle 1/3/5 | chance |", "|---|---|---|---|---|"]
    for row in sorted(result["equal_false_alarms"], key=lambda row: (row["rate"], -_both(row))):
        lines.append(
            f"| {row['score']} | {percent(row['rate'])} | {_three(row['strong'])} | {_three(row['subtle'])} "
            f"| {row['subtle']['by_chance_within_3']:.2f} |"
        )
    lines += ["", f"Ahead of nrt: {result['ahead_of_nrt']}", f"Cost: {result['cost']}", ""]
    lines += [f"- {name}: {goal['value']} (goal {goal['goal']})" for name, goal in result["goals"].items()]
    return "\n".join(lines)


def _three(found: Mapping[str, Any]) -> str:
    return " / ".join(f"{found[f'within_{dates}']['value']:.2f}" for dates in AFTER)


def _both(row: Mapping[str, Any]) -> float:
    return float(row["strong"]["within_3"]["value"] + row["subtle"]["within_3"]["value"])


if __name__ == "__main__":
    main()

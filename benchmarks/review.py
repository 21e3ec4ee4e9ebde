"""A simulated month with a reviewer: what verdicts do to false alarms at restless tiles, and what they cost in recall.

    python benchmarks/review.py [--stressed] [--seed N] [--quick] [--work DIR] [--json] [--out DIR]

Six places are simulated, with tiles that are restless once the watch begins: a car park, a greenhouse, a quarry.
Events are put anywhere, and some look like what is restless; `--stressed` puts more of them on restless tiles than
chance would, which tells more of those. The flow `nightly` reports the month without any
reviewer, and then once more, night by night: each night's questions are traces in MLflow, a scripted reviewer who knows
the truth and errs in one of twenty answers gives feedback on them, once for each event, and the next night's run reads
it. Both months have the same scenes and the same scores. What other settings would have done is worked out from the
same scores, by the same code but for the flow.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when it is run as a script

from benchmarks import restless
from benchmarks.machine import machine, versions
from benchmarks.restless import Happening, alter, settle
from benchmarks.review_judging import KEY, Month, by_night, compared, goals, precisions, said, suppressed
from benchmarks.reviewer import Reviewer, give_feedback
from benchmarks.year import prefect_server
from configs import Settings, Workspace, load_settings
from flows.nightly import nightly
from flows.parameters import NightRequest, TrainRequest, Watch
from flows.train import train
from imagery.catalog import Catalog
from imagery.simulate import Location, Plan, simulate
from tasks import registry
from tasks.evidence import Scored, read_scores
from tasks.review.answers import collect
from tasks.review.asking import choose
from tasks.review.heeding import heed
from tasks.review.verdicts import Verdict, read_verdicts, write_verdicts
from vae.detector import Detector

PLACES = (
    ("tisza-plain", "river", 32634, 463_200, 5_218_600),
    ("black-forest", "forest", 32632, 441_500, 5_309_400),
    ("vendee-coast", "coast", 32630, 589_700, 5_154_900),
    ("po-plain", "river", 32632, 531_200, 4_987_400),
    ("ardennes", "forest", 32631, 688_300, 5_537_700),
    ("algarve", "coast", 32629, 541_900, 4_102_600),
)
FIRST = date(2025, 5, 1)  # night
STRESSED = 0.15  # share of the events that are put on restless tiles
WITHOUT, WITH = "without verdicts", "with verdicts"


@dataclass(frozen=True)
class Size:
    """How much is simulated.

    Attributes:
        places: How many, the first of `PLACES`.
        nights: How many are reviewed.
        side: Of a place, pixels.
        training: Dates of each place to train on, nine days apart.
        calibration: Dates after them.
        epochs: Of the training.
        restless: Tiles of each place.
        events: That begin at each place on each night.
        on_restless: Share of the events that lie on restless tiles; None: what chance has it, the same for all tiles.
        questions: Flags of a night that are asked about, at most.
        mistakes: Share of the answers that are wrong.
        seed: Of all that is drawn.
    """

    places: int = 6
    nights: int = 30
    side: int = 160
    training: int = 30
    calibration: int = 12
    epochs: int = 15
    restless: int = 4
    events: int = 1
    on_restless: float | None = None
    questions: int = 40
    mistakes: float = 0.05
    seed: int = 5
    tile: int = 16

    @property
    def learned(self) -> tuple[date, ...]:
        """Dates that the detector learns from."""
        count = self.training + self.calibration
        return tuple(FIRST - timedelta(days=9 * (count - number) + 12) for number in range(count))

    @property
    def watched(self) -> tuple[date, ...]:
        """The nights."""
        return tuple(FIRST + timedelta(days=number) for number in range(self.nights))

    @property
    def plan(self) -> Plan:
        """What is simulated."""
        places = tuple(Location(*place, size=self.side) for place in PLACES[: self.places])
        return Plan(21, places, (*self.learned, *self.watched), self.learned[self.training - 1], self.learned[-1])

    @property
    def settings(self) -> dict[str, Any]:
        """Of the watch."""
        learned = self.learned
        return {
            "name": "review",
            "source": {"root": "scenes", "bands": list(restless.BANDS)},
            "masks": {"class_band": "SCL"},
            "grid": {"tile_size": self.tile},
            "reference": {"scenes": 5},
            "split": {
                "train": {"end": learned[self.training - 1]},
                "calibrate": {"start": learned[self.training], "end": learned[-1]},
            },
            "model": {"depth": 2, "width": 8, "latent_channels": 4},
            "train": {"epochs": self.epochs},
            "calibration": {"min_tiles": 20, "false_alarm_rate": 0.01},
            "injections": {"enabled": False},
            "report": {"max_flags": 1},
            "review": {"flags": self.questions, "sample": 1, "suppressed": 1},
            "compute": {"threads": 1},
        }


QUICK = Size(places=3, nights=4, side=64, training=8, calibration=6, epochs=2, restless=2, events=1, questions=3)


def main() -> None:
    """Run the month in all ways, print what changed, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stressed", action="store_true", help=f"put {STRESSED:.0%} of the events on restless tiles")
    parser.add_argument("--seed", type=int, default=Size.seed, help=f"of another month than {Size.seed}")
    parser.add_argument("--quick", action="store_true", help="a few nights of small places: the figures mean nothing")
    parser.add_argument("--work", type=Path, help="folder in which scenes and workspace are kept, and gone on from")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--out", type=Path, help="folder in which the record and the plot are kept")
    arguments = parser.parse_args()
    size = replace(QUICK if arguments.quick else Size(), seed=arguments.seed)
    name = "review-stressed" if arguments.stressed else "review"
    if arguments.stressed:
        size = replace(size, on_restless=STRESSED)
    with tempfile.TemporaryDirectory() as folder:
        months, happened, seconds = run(arguments.work or Path(folder), size)
    result = record(months, happened, size, seconds)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        draw(months, happened, arguments.out / f"{name}.png")
    if not arguments.json:
        for row in result["results"]:
            before, now, change = (_shown(row[name]) for name in ("rate_without", "rate", "difference"))
            print(f"{row['way']:<22} {row['what']:<50} {row['tiles']:5d} tiles  {before} → {now}  {change}")
    print(json.dumps(result))


def _shown(found: dict[str, float | None]) -> str:
    value, low, high = (math.nan if found[name] is None else found[name] for name in ("value", "low", "high"))
    return f"{value:6.3f} [{low:6.3f}, {high:6.3f}]"


def run(folder: Path, size: Size) -> tuple[list[Month], list[Happening], dict[str, float]]:
    """Simulate, train, and judge the month in all ways.

    Args:
        folder: Empty, or what an earlier run of the same size has left there.
        size: How much.

    Returns:
        The months, without verdicts first and through the flow second; what the tiles show; seconds by step.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = step()
        seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)
        return found

    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "review.yaml"
    asking = size.settings["review"] | {"experiment": f"review {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"}
    config.write_text(yaml.safe_dump(size.settings | {"review": asking}), encoding="utf-8")
    unasked = folder / "without.yaml"
    unasked.write_text(yaml.safe_dump(size.settings | {"review": asking | {"flags": 0, "sample": 0, "suppressed": 0}}))
    watch = Watch(config=str(config), workspace=str(folder / "workspace"))
    alone = Watch(config=str(unasked), workspace=str(folder / "workspace"))
    settings, workspace = load_settings(config), Workspace(folder / "workspace")
    happened = timed("simulate", lambda: prepare(folder, size))
    with prefect_server(folder / "prefect" / datetime.now(UTC).strftime("%H%M%S")):
        if not (folder / "trained").exists():
            timed("train", lambda: train(watch, TrainRequest(reason="before the month")))
            (folder / "trained").touch()
        for place, *_ in PLACES[: size.places]:
            for day in size.watched:
                link(folder / "restless" / place / f"{day}.tif", folder / "scenes" / place)
        for left in (workspace.verdicts, *workspace.reports.glob("*/questions.json")):
            left.unlink(missing_ok=True)  # of an earlier run
        timed("nights without verdicts", lambda: nightly(alone))
        bundle, version = registry.champion(settings, workspace)
        detector = Detector.load(bundle)
        nights = scored_nights(size, version, workspace)
        with_verdicts = timed(
            "nights with verdicts", lambda: reviewed(watch, settings, workspace, detector, nights, happened, size)
        )
    months = [Month(WITHOUT, table([one for _, scored in nights for one in unheeded(scored)]), []), with_verdicts]
    for name, changed in WAYS.items():
        of = Workspace(folder / "ways" / name)
        only = settings.model_copy(update={"review": settings.review.model_copy(update=changed)})
        again = partial(replayed, name, only, of, workspace, detector, nights, happened, size)
        months.append(timed(name, again))
    return months, happened, seconds


WAYS: dict[str, dict[str, Any]] = {
    "bars, repeats 2": {},  # the defaults again, without the flow
    "bars, repeats 1": {"repeats": 1},
    "bars, repeats 3": {"repeats": 3},
    "look-alikes 0.2": {"look_alike": 0.2, "repeats": None},
    "look-alikes 0.3": {"look_alike": 0.3, "repeats": None},
    "bars, look-alikes 0.3": {"look_alike": 0.3},
}
DRAWN = {WITHOUT: "0.55", WITH: "tab:blue", "look-alikes 0.3": "tab:orange"}


def prepare(folder: Path, size: Size) -> list[Happening]:
    """Write the scenes: those to learn from into the source, those of the nights, with what happens, beside it."""
    simulate(folder / "simulated", size.plan)
    happened = []
    for place, *_ in PLACES[: size.places]:
        scenes = folder / "simulated" / place
        for day in size.learned:
            link(scenes / f"{day}.tif", folder / "scenes" / place)
        clearest = [scenes / f"{day}.tif" for day in size.learned[size.training :]]
        draw = size.restless, size.events, size.on_restless, size.seed
        doings = settle(clearest, size.watched, size.tile, *draw)
        for day in size.watched:
            to = folder / "restless" / place / f"{day}.tif"
            happened += alter(scenes / f"{day}.tif", to, doings, size.seed, size.tile)
    return happened


def link(path: Path, folder: Path) -> None:
    """Put a scene into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / path.name).exists():
        os.link(path, folder / path.name)


def scored_nights(size: Size, version: str, workspace: Workspace) -> list[tuple[date, list[Scored]]]:
    """The scored scenes of each night."""
    records = Catalog(workspace).scenes(since=size.watched[0])
    return [
        (day, read_scores([one for one in records if one.day == day], {}, version, workspace)) for day in size.watched
    ]


def unheeded(scored: Sequence[Scored]) -> list[pd.DataFrame]:
    """The tables of a night as they were scored."""
    nothing = pd.Series(dtype="str")
    return [one.scores.assign(suppressed=nothing, alike=nothing) for one in scored]


def table(scores: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The scored tiles of some scenes; see `Month`."""
    together = pd.concat([pd.DataFrame(one.drop(columns="geometry")) for one in scores], ignore_index=True)
    together = together[together["score"].notna()].assign(night=together["acquired"].dt.date)
    return together[[*KEY, "flagged", "suppressed", "alike"]].reset_index(drop=True)


def reviewed(
    watch: Watch, settings: Settings, workspace: Workspace, detector: Detector,
    nights: Sequence[tuple[date, list[Scored]]], happened: Sequence[Happening], size: Size,
) -> Month:  # fmt: skip
    """The month through the flow, reviewed in MLflow after each night."""
    reviewer, tables = Reviewer.of(happened, size.mistakes, size.seed), []
    for day, scored in nights:
        summary = nightly(watch, NightRequest(night=day, force=True))
        heeded = [one.scores for one in heed(scored, detector, settings, workspace)]
        flags = int(sum(one["flagged"].sum() for one in heeded))
        if [(one.night, one.flags) for one in summary.nights] != [(day, flags)]:
            raise RuntimeError(f"the run of {day} reported {summary.nights}, and {flags} flags were to be expected")
        tables += heeded
        give_feedback(day, reviewer, settings, workspace)
    collect(settings, workspace)
    return Month(WITH, table(tables), read_verdicts(workspace))


def replayed(
    name: str, settings: Settings, of: Workspace, workspace: Workspace, detector: Detector,
    nights: Sequence[tuple[date, list[Scored]]], happened: Sequence[Happening], size: Size,
) -> Month:  # fmt: skip
    """The month judged by the same code from the same scores, with verdicts written into the table at once."""
    of.root.mkdir(parents=True, exist_ok=True)
    of.verdicts.unlink(missing_ok=True)
    for there in (workspace.scores, workspace.latents, workspace.catalog):
        if not (of.root / there.name).exists():
            (of.root / there.name).symlink_to(there, target_is_directory=True)
    reviewer, tables, verdicts = Reviewer.of(happened, size.mistakes, size.seed), [], []
    for day, scored in nights:
        heeded = heed(scored, detector, settings, of)
        tables += [one.scores for one in heeded]
        said = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        known = {(row.scene_id, row.tile_id): row for one in heeded for row in one.scores.itertuples()}
        for asked in choose(heeded, settings, of).itertuples():
            row = known[asked.scene_id, asked.tile_id]
            answer = reviewer.answer(row.location, day, row.tile_id)
            if answer is not None:
                verdicts.append(Verdict(
                    asked.scene_id, asked.tile_id, answer[0], said, "scripted", answer[1], asked=asked.asked,
                    share=asked.share, detector_version=row.detector_version, score=float(row.score),
                    p_value=float(row.p_value),
                ))  # fmt: skip
        write_verdicts(verdicts, of)
    return Month(name, table(tables), read_verdicts(of))


def record(
    months: Sequence[Month], happened: Sequence[Happening], size: Size, seconds: dict[str, float]
) -> dict[str, Any]:
    """The benchmark's result."""
    without, *ways = months
    rows = [row for month in ways for row in compared(month, without, happened, size.seed)]
    return {
        "benchmark": "review",
        "machine": machine(),
        "versions": versions("tilewatch", "mlflow", "prefect", "torch"),
        "size": asdict(size),
        "results": rows,
        "goals": goals(rows, WITH),
        "verdicts": {month.name: said(month) for month in ways},
        "suppressed": {month.name: suppressed(month, happened) for month in ways},
        "precision": {month.name: precisions(month.verdicts, size.watched[0]) for month in ways},
        "seconds": seconds,
    }


def draw(months: Sequence[Month], happened: Sequence[Happening], path: Path) -> None:
    """False alarms at restless tiles and recall, night by night."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, sharex=True)
    for month in [one for one in months if one.name in DRAWN]:
        nightly_rates = by_night(month, happened).rolling(3, min_periods=1).mean()
        numbers = range(1, len(nightly_rates) + 1)
        above.plot(numbers, nightly_rates["restless"], label=month.name, color=DRAWN[month.name])
        below.plot(numbers, nightly_rates["recall"], label=month.name, color=DRAWN[month.name])
    above.set_ylabel("false alarms at restless tiles,\nshare of their nights")
    below.set_ylabel("events found, share")
    below.set_xlabel("night (mean of three)")
    for axes in (above, below):
        axes.set_ylim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    logging.getLogger("prefect").setLevel(logging.WARNING)
    main()

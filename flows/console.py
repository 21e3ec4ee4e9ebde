"""Results as a person reads them on a terminal."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.demo import DemoSummary
from flows.drift import NightDrift
from flows.ingest import IngestSummary
from flows.models import Models, Promoted
from flows.nightly import NightlySummary
from flows.prune import PruneSummary
from flows.review import Reviews
from tasks.evaluate import Detection
from tasks.evaluation import Evaluation
from tasks.nights import NightRecord
from tasks.review.answers import Collected

MOST_VERDICTS = 20  # that are listed
FEW_GROUPS = 10  # with fewer, a percentile bootstrap covers clearly less than it says


@singledispatch
def show(result: Any, out: Console) -> None:
    """Show a result: by default, one line a field."""
    table = Table(show_header=False, box=None)
    for name, value in vars(result).items():
        empty = value is None or value == "" or value == [] or value == {}
        text = "\n".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), "–" if empty else text)
    out.print(table)


@show.register
def _(result: IngestSummary, out: Console) -> None:
    out.print(
        f"{result.ingested} scenes ingested ({result.tiles} tiles), {result.unchanged} unchanged, "
        f"{len(result.quarantined)} quarantined now, {result.quarantined_before} before, {len(result.skipped)} skipped"
    )
    for name, reason in (*result.quarantined.items(), *result.skipped.items()):
        out.print(f"  {name}: {reason}", markup=False, soft_wrap=True)


@show.register
def _(result: PruneSummary, out: Console) -> None:
    if result.dry_run:
        for one in result.removals:
            out.print(f"{one.night}  {one.kind:<8}  {one.what}  {one.size} bytes", markup=False, soft_wrap=True)
    for kind, (count, size) in result.by_kind.items():
        out.print(f"{kind}: {count}, {size / 1e6:.1f} MB")
    did = "Would delete" if result.dry_run else "Deleted"
    out.print(f"{did} {len(result.removals)} things, {sum(one.size for one in result.removals)} bytes.")


@show.register
def _(result: NightlySummary, out: Console) -> None:
    if result.ingested:
        show(result.ingested, out)
    if not result.nights:
        out.print(f"No night is due; detector {result.detector_version}.")
        return
    out.print(_night_table(result.nights))
    for record in result.nights:
        for line in (*record.drift_reasons, *(f"quarantined {key}: {why}" for key, why in record.quarantined.items())):
            out.print(f"  {record.night}: {line}", markup=False, soft_wrap=True)
    out.print(f"Open {result.nights[-1].report} in the workspace.", soft_wrap=True)
    for training in result.trainings:
        now = "is the champion now" if training.promoted else "does not become the champion"
        out.print(f"Retrained: {training.detector_version} {now}. {training.verdict}", markup=False, soft_wrap=True)
    if result.not_in_mlflow:
        nights = ", ".join(map(str, result.not_in_mlflow))
        waiting = "Not in MLflow yet, or nobody could be asked about them"
        out.print(f"{waiting}: {nights}. The next run makes up for it.", soft_wrap=True)
    for night, reason in result.failed_trainings.items():
        out.print(f"Retraining after {night} failed: {reason}", markup=False, soft_wrap=True)


@show.register
def _(result: Collected, out: Console) -> None:
    for words, found in (("new", result.new), ("changed", result.changed)):
        named = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()))
        out.print(f"{sum(found.values())} verdicts {words}{f': {named}' if named else ''}")
    out.print(f"{result.withdrawn} withdrawn; {result.verdicts} tiles have a verdict")
    for reason in result.skipped:
        out.print(f"  left out: {reason}", markup=False, soft_wrap=True)


@show.register
def _(result: Reviews, out: Console) -> None:
    if result.verdicts:
        named = ", ".join(f"{count} {verdict}" for verdict, count in result.by_verdict.items())
        out.print(f"{len(result.verdicts)} tiles have a verdict: {named}. The newest:")
        table = Table("tile", "night", "verdict", "kind", "severity", "reviewer", "when", "comment", box=None)
        for one in result.verdicts[:MOST_VERDICTS]:
            when = f"{one.reviewed_at:%Y-%m-%d %H:%M}" if one.reviewed_at else ""
            severity = "" if one.severity is None else f"{one.severity:g}"
            texts = (one.tile_id, str(one.night), one.verdict, one.kind, severity, one.reviewer, when, one.comment)
            table.add_row(*(escape(" ".join(text.split())) for text in texts))
        out.print(table)
    else:
        out.print("Nobody has said anything yet, or it was not read: tilewatch review sync")
    if result.waiting:
        table = Table("night", "asked", "answered", "", box=None)
        for night in result.waiting:
            table.add_row(
                str(night.night), str(night.asked), str(night.answered), "" if night.in_mlflow else "not in MLflow yet"
            )
        out.print(table)
    else:
        out.print("No question waits for an answer.")


@show.register
def _(result: Models, out: Console) -> None:
    if not result.models:
        out.print(f"No detector of {result.name} is registered yet: run `tilewatch train` first.", markup=False)
        return
    table = Table("version", "alias", "made", "why", "promoted", "instead of", "compared with", "AP", "", box=None)
    for one in result.models:
        found = one.compared
        table.add_row(
            one.version,
            ", ".join(one.aliases),
            one.made[:16],
            escape(one.reason),
            (one.promoted or "")[:16],
            one.instead_of,
            found.get("against", ""),
            f"{_share(found['ap'], 3)} against {_share(found['ap_champion'], 3)}" if "ap" in found else "",
            f"{found['low']:+.3f} to {found['high']:+.3f}" if found.get("low") is not None else "",
        )
    out.print(table)
    for one in result.models:
        words = one.compared.get("words") or one.promoted_why
        out.print(f"  {one.version}: {words}", markup=False, soft_wrap=True)


@show.register
def _(result: Promoted, out: Console) -> None:
    if result.moved:
        out.print(f"{result.champion} is the champion now, instead of {result.instead_of or 'none'}.")
    else:
        out.print(f"{result.champion} is the champion already.")


@show.register
def _(result: list, out: Console) -> None:
    table = Table("night", "alarm", "drift since", "reasons", box=None)
    for one in result:
        if isinstance(one, NightDrift):
            table.add_row(str(one.night), _yes_no(one.alarmed), str(one.began or ""), "\n".join(one.reasons))
    out.print(table if result else "No night is finished yet.")


@show.register
def _(result: DemoSummary, out: Console) -> None:
    out.print()
    out.print(
        f"[bold]{result.nights} nights, {result.tiles_scored} tiles scored, {result.flags} flagged.[/] "
        f"{result.events_found} of {result.events} events were found."
    )
    table = Table("", "tiles", "flags", "precision", "recall", "AUROC", "false alarms", box=None, pad_edge=False)
    for name, found in result.periods.items():
        table.add_row(name, *_numbers(found))
    out.print(table)
    out.print(
        f"All nights: precision {_share(result.precision)}, recall {_share(result.recall)}, AUROC "
        f"{_share(result.auroc, 3)}; false alarms {_share(result.false_alarm_rate, 4)} where "
        f"{result.nominal_false_alarm_rate:.4f} were asked for."
    )
    out.print("Found, by kind: " + "; ".join(f"{kind.replace('_', ' ')} {text}" for kind, text in result.kinds.items()))
    out.print(
        f"The sensor drifted from {result.drift_started} on; it was noticed on {result.drift_noticed or 'no night'}, "
        f"and the detector retrained on {result.retrained or 'no night'}."
    )
    for scene, reason in result.quarantined.items():
        out.print(f"Set aside {scene}: {reason}", markup=False, soft_wrap=True)
    out.print(f"{result.seconds:.0f} s, at most {result.peak_memory_gb:.1f} GB of memory.")
    out.print(f"[bold]Where to look next:[/] open {result.report}", soft_wrap=True)


@show.register
def _(result: Evaluation, out: Console) -> None:
    left = result.left_out
    out.print(
        f"{result.score} of {result.detector_version}: {result.positives} of {result.tiles} tiles show an event, in "
        f"{result.scenes} scenes of {result.locations} locations."
    )
    out.print(
        f"Left out: {left.no_score} tiles without a score, {left.no_truth} without truth, {left.between} with too "
        f"little of an event; {left.scenes} scenes without truth."
    )
    if result.regions:
        masked = _share(result.regions.masked_share)
        out.print(
            f"Regions: {result.regions.counted}, and {result.regions.unseen} without a scored pixel; {masked} of their "
            "pixels have no score."
        )
    table = Table("", "metric", "value (95 % interval)", box=None, pad_edge=False)
    parts = {"": result.estimates} | {f"{name} ({one.positives})": one.estimates for name, one in result.kinds.items()}
    if result.comparison:
        parts[f"minus {result.comparison.against}"] = result.comparison.differences
    for part, estimates in parts.items():
        for name, estimate in estimates.items():
            table.add_row(part, name.replace("_", " "), str(estimate))
    out.print(table)
    out.print(f"Intervals: {_drawn(result)}.")


def _drawn(result: Evaluation) -> str:
    """How the intervals came about, and what they are worth."""
    if result.groups < 2:
        return "none, since there is one date only"
    few = "; so few give intervals that are too narrow" if result.groups < FEW_GROUPS else ""
    return f"95 %, by drawing from {result.groups} {result.interval_by}s{few}"


def _night_table(nights: list[NightRecord]) -> Table:
    table = Table("night", "detector", "scenes", "scored", "flags", "drift", "quarantined", box=None)
    for one in nights:
        drift = f"since {one.drift_began}" if one.drift_began else _yes_no(one.alarmed, "alarm", "no", "no verdict")
        table.add_row(
            str(one.night),
            one.detector_version,
            str(len(one.scenes)),
            f"{one.scored}/{one.tiles}",
            str(one.flags),
            drift,
            str(len(one.quarantined)),
        )
    return table


def _numbers(found: Detection) -> list[str]:
    rates = [_share(value) for value in (found.precision, found.recall)]
    return [str(found.tiles), str(found.flags), *rates, _share(found.auroc, 3), _share(found.false_alarm_rate, 4)]


def _share(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _yes_no(value: bool | None, yes: str = "yes", no: str = "no", unknown: str = "–") -> str:
    return unknown if value is None else yes if value else no

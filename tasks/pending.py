"""Nights that are worked out, and not yet told everywhere: the journal that a kill or an outage of MLflow leaves.

All files of a night but its record are written first. Then the journal gets an entry; from here on the night is
decided, and whatever happens, what remains is done from the entry: MLflow, Prefect's artifacts and event, and the
record. The entry goes last. A run that is killed in between leaves the entry, and the next one begins with it. When
MLflow does not answer, the rest is done and the entry stays until it does.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from uuid import UUID

import geopandas as gpd
from prefect.settings import PREFECT_API_URL

from configs import Settings, Workspace
from configs.workspace import write_text
from tasks import tracking
from tasks.artifacts import night_artifacts
from tasks.events import NobodyListens, send
from tasks.nights import NightRecord, read_nights, write_night
from tasks.notify import tell_of_night
from tasks.review.queue import ask
from tasks.tracked_night import NightLog, log_night

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A night of the journal.

    Attributes:
        night: What is told of it.
        told: Whether Prefect was told; only MLflow is missing then.
        run_id: Its MLflow run; '' when that is missing, else what people are asked is.
    """

    night: NightLog
    told: bool = False
    run_id: str = ""

    def to_json(self) -> str:
        """As one JSON object."""
        content = asdict(self.night) | {"record": json.loads(self.night.record.to_json())}
        content |= {"told": self.told, "run_id": self.run_id}
        return json.dumps(content, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """The inverse of `to_json`."""
        content = json.loads(text)
        record = NightRecord.from_json(json.dumps(content["record"]))
        files = tuple((name, folder) for name, folder in content["files"])
        night = NightLog(record, content["metrics"], files, content["texts"])
        return cls(night, content["told"], content.get("run_id", ""))


def entries(workspace: Workspace) -> list[Entry]:
    """What is in the journal, the oldest night first."""
    paths = sorted(workspace.pending.glob("[!.]*.json"))
    return [Entry.from_json(path.read_text(encoding="utf-8")) for path in paths]


def keep(entry: Entry, workspace: Workspace) -> None:
    """Enter a night: it is decided now."""
    write_text(_file(workspace, entry.night.record.night), entry.to_json())


def finish(entry: Entry, settings: Settings, workspace: Workspace) -> NightRecord:
    """Tell MLflow and Prefect of a night in the journal, ask people about it, and write its record.

    Returns:
        The record; without a run when MLflow does not answer. The night then stays in the journal, as it does when
        people could not be asked.
    """
    record = replace(entry.night.record, run_id=entry.run_id or _logged(entry.night, settings, workspace))
    asked = bool(record.run_id) and _asked(record, settings, workspace)
    if not entry.told:
        report = workspace.root / record.report
        night_artifacts(record, gpd.read_parquet(report.with_name("flags.parquet")), report)
        _send(record, settings)
        earlier = read_nights(workspace, record.detector_version, before=record.night)
        tell_of_night(record, earlier[-1] if earlier else None, settings)
    if not asked:
        keep(replace(entry, told=True, run_id=record.run_id), workspace)
    write_night(workspace, record)
    if asked:
        _file(workspace, record.night).unlink()
    return record


def finish_all(settings: Settings, workspace: Workspace) -> list[NightRecord]:
    """Finish what earlier runs have left in the journal.

    Returns:
        Their records, oldest first; without a run where MLflow still does not answer.
    """
    waiting = entries(workspace)
    if waiting and not _answers(settings, workspace):
        waiting = [entry for entry in waiting if not entry.told]
    return [finish(entry, settings, workspace) for entry in waiting]


def _answers(settings: Settings, workspace: Workspace) -> bool:
    try:
        tracking.connect(settings, workspace)
    except tracking.TrackingUnreachable as error:
        log.warning("%s. What it is to be told is kept in %s", error, workspace.pending)
        return False
    return True


def _logged(night: NightLog, settings: Settings, workspace: Workspace) -> str:
    """The run of a night, '' when MLflow does not answer or refuses it: it stops no night."""
    try:
        return log_night(night, settings, workspace)
    except Exception as error:
        log.warning(
            "the night of %s is not in MLflow (%s: %s). It is kept in %s, and the next run logs it",
            night.record.night,
            type(error).__name__,
            str(error).strip().partition("\n")[0],
            workspace.pending,
        )
        return ""


def _asked(record: NightRecord, settings: Settings, workspace: Workspace) -> bool:
    """Whether MLflow's review queues have what the night asks; if not, it stops no night."""
    try:
        ask(record.night, record.run_id, settings, workspace)
    except Exception as error:
        log.warning(
            "nobody is asked about the night of %s (%s: %s). The next run asks again; with review.flags, "
            "review.sample and review.suppressed at 0 none does",
            record.night,
            type(error).__name__,
            str(error).strip().partition("\n")[0],
        )
        return False
    return True


def _send(record: NightRecord, settings: Settings) -> None:
    """The event `tilewatch.night`; of the same outcome it has the same id, and counts once however often it is sent."""
    if PREFECT_API_URL.value() is None:
        return  # a run without a server: nobody could act on it
    payload = {
        "night": record.night.isoformat(),
        "detector_version": record.detector_version,
        "flags": record.flags,
        "scored": record.scored,
        "quarantined": len(record.quarantined),
        "drift": record.drift_began is not None,
    }
    outcome = f"{settings.name} {replace(record, run_id='').to_json()}"
    event_id = UUID(bytes=hashlib.sha256(outcome.encode()).digest()[:16], version=4)
    try:
        send("tilewatch.night", event_id, payload, settings)
    except NobodyListens as error:
        log.warning("%s", error)


def _file(workspace: Workspace, night: date) -> Path:
    return workspace.pending / f"{night.isoformat()}.json"

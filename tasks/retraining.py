"""Which training a lasting drift asks for: once a drift of a detector, and never soon after another.

Three kinds of small files in `<workspace>/drift/` say what became of each drift, which is named by the detector and the
night it began on, e.g. `v3/2025-07-31`:

`asked`: an event was made for it, with an id of its own. The file is there before the event is sent and says afterwards
that it was, so that after a kill the same event is sent again, which the server knows by its id. So an event comes at
least once, and counts once.
`trained`: a training answered it. It is written by the training, whoever started it, and keeps every other from being
made for the same drift or within the cool-down.
`failed`: the training of a nightly run failed; the next one waits for another night of the drift.

Days of the cool-down are counted between nights, not between runs: nights that are caught up all at once ask for what
they would have asked for one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from configs import Settings, Workspace
from configs.workspace import safe_name, write_first, write_text
from tasks.events import send
from tasks.nights import NightRecord

EVENT = "tilewatch.drift"
MOST_LETTERS = 500  # of a reason, as the form of a training takes it


@dataclass(frozen=True)
class Retraining:
    """A training that a drift asks for.

    Attributes:
        drift: The drift, e.g. "v3/2025-07-31".
        detector_version: The detector whose input has drifted.
        night: The last night of the drift so far.
        reason: In words.
        train_end: Last date to learn from.
        calibrate_start: First date to set the threshold on.
        calibrate_end: Last such date.
    """

    drift: str
    detector_version: str
    night: date
    reason: str
    train_end: date
    calibrate_start: date
    calibrate_end: date

    @property
    def request(self) -> dict[str, Any]:
        """The fields of a `TrainRequest`."""
        names = ("reason", "train_end", "calibrate_start", "calibrate_end", "drift")
        return {name: getattr(self, name) for name in names}

    @property
    def payload(self) -> dict[str, str]:
        """Of the event."""
        return {name: str(value) for name, value in asdict(self).items()}


def wanted(nights: Sequence[NightRecord], settings: Settings) -> Retraining | None:
    """The training that a lasting drift asks for, once enough nights of the new kind are there to learn from.

    Of the nights since the drift began the earlier half is learned from, together with all before, and the later half
    sets the threshold, so that calibration is of the new kind only.

    Args:
        nights: Finished nights of one detector, oldest first.
        settings: `drift.retrain_after`.
    """
    if not nights or nights[-1].drift_began is None:
        return None
    last, began = nights[-1], nights[-1].drift_began
    usable = [one.night for one in nights if one.night >= began and one.alarmed is not None]
    if len(usable) < settings.drift.retrain_after:
        return None
    start = usable[len(usable) // 2]
    why = last.drift_reasons[0] if last.drift_reasons else "lasting alarm"
    return Retraining(
        drift=f"{last.detector_version}/{began}",
        detector_version=last.detector_version,
        night=last.night,
        reason=f"drift since {began}: {why}"[:MOST_LETTERS],
        train_end=start - timedelta(days=1),
        calibrate_start=start,
        calibrate_end=last.night,
    )


def due(nights: Sequence[NightRecord], settings: Settings, workspace: Workspace) -> Retraining | None:
    """The training that is to be asked for, or made, now; None when there is none, or it was before.

    Args:
        nights: As of `wanted`.
        settings: `drift`.
        workspace: What became of earlier drifts.
    """
    found = None if settings.drift.retrain == "never" else wanted(nights, settings)
    if found is None or refusal(found.drift, found.night, settings, workspace):
        return None
    if settings.drift.retrain == "nightly":
        failed = _read(_file(workspace, found.drift, "failed"))
        return None if failed and failed["night"] == str(found.night) else found
    asked = _read(_file(workspace, found.drift, "asked"))
    if asked:
        return None if asked["sent"] else found
    soon = _cooling(found.drift, found.night, _others(workspace, found.drift, "asked"), settings)
    return None if soon else found


def ask(retraining: Retraining, settings: Settings, workspace: Workspace) -> None:
    """Send the event of a drift.

    Raises:
        NobodyListens: No server took it; the next run sends it again.
    """
    path = _file(workspace, retraining.drift, "asked")
    content: dict[str, Any] = {"event": str(uuid4()), "sent": False, **retraining.payload}
    if not write_first(path, json.dumps(content, indent=1)):
        content = json.loads(path.read_text(encoding="utf-8"))
    payload = {name: content[name] for name in retraining.payload}
    send(EVENT, UUID(content["event"]), payload, settings)
    write_text(path, json.dumps(content | {"sent": True}, indent=1))


def refusal(drift: str, night: date | None, settings: Settings, workspace: Workspace) -> str | None:
    """Why a drift gets no training, in words; None when it does.

    Args:
        drift: Such as "v3/2025-07-31".
        night: The night that asks; None: the one it began on.
        settings: `drift.cool_down`.
        workspace: What became of earlier drifts.
    """
    own = _read(_file(workspace, drift, "trained"))
    if own:
        return f"the drift {drift} was trained for: {own['detector_version']}"
    return _cooling(drift, night or _began(drift), _others(workspace, drift, "trained"), settings)


def trained(drift: str, night: date | None, detector_version: str, workspace: Workspace) -> None:
    """Keep that a training answered a drift.

    Args:
        drift: Such as "v3/2025-07-31".
        night: The night that asked; None: the one it began on.
        detector_version: What the training gave.
        workspace: Takes the record.
    """
    content = {"drift": drift, "night": str(night or _began(drift)), "detector_version": detector_version}
    write_first(_file(workspace, drift, "trained"), json.dumps(content, indent=1))


def failed(retraining: Retraining, workspace: Workspace) -> None:
    """Keep that the training of a nightly run failed, so that the same one is not made again before another night."""
    content = {"drift": retraining.drift, "night": str(retraining.night)}
    write_text(_file(workspace, retraining.drift, "failed"), json.dumps(content, indent=1))


def _cooling(drift: str, night: date, earlier: Iterator[dict[str, Any]], settings: Settings) -> str | None:
    """Why it is too soon after another drift's training, or asking for one."""
    for one in earlier:
        days = (night - date.fromisoformat(one["night"])).days
        if days < settings.drift.cool_down:
            return (
                f"the drift {drift} of {night} comes {days} days after the training for the drift {one['drift']}; "
                f"drift.cool_down asks for {settings.drift.cool_down}"
            )
    return None


def _began(drift: str) -> date:
    return date.fromisoformat(drift.partition("/")[2])


def _others(workspace: Workspace, drift: str, what: str) -> Iterator[dict[str, Any]]:
    """What is known of all other drifts."""
    own = _file(workspace, drift, what)
    for path in sorted(workspace.drift.glob(f"[!.]*.{what}.json")):
        if path != own:
            yield json.loads(path.read_text(encoding="utf-8"))


def _file(workspace: Workspace, drift: str, what: str) -> Path:
    return workspace.drift / f"{safe_name(drift)}.{what}.json"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

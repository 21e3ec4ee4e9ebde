"""The frozen set: the scenes, tiles and anomalies on which two detectors are compared, written down to the last tile.

It is made of recent clear dates, of anomalies that are injected there, and of all that people have said of tiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from heapq import nsmallest

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.inject import KINDS
from tasks.injected import kinds_of
from tasks.nights import read_night
from tasks.review.verdicts import Verdict, read_verdicts
from tasks.train import trainable_scenes
from vae.detector import Detector

FEWEST_DATES = 2  # below that, dates that a detector learned from are taken as well
ROLES = ("calibration_dates", "validation_dates", "training_dates")  # of a detector's dates, the least harmful first


class NothingToCompare(ValueError):
    """There is nothing on which two detectors could be compared."""


@dataclass(frozen=True)
class FrozenScene:
    """A scene of the set.

    Attributes:
        scene_id: Its name.
        fingerprint: Of the content of its files.
        clean: Whether its tiles count as normal, and take anomalies.
        hosts: Tiles that anomalies are put into.
        verdicts: By tile: whether people say that it shows an anomaly; null where its data are bad.
    """

    scene_id: str
    fingerprint: str
    clean: bool
    hosts: tuple[str, ...] = ()
    verdicts: Mapping[str, bool | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FrozenSet:
    """All that decides the comparison of two detectors, but for the scenes' files and the detectors.

    Attributes:
        seed: Of what is injected, which clean tiles count, and the bootstrap.
        kinds: Strength of what is injected, by kind.
        scenes: Oldest first.
    """

    seed: int
    kinds: Mapping[str, float]
    scenes: tuple[FrozenScene, ...]

    def to_json(self) -> str:
        """As one JSON object; the same set gives the same text."""
        return json.dumps({"format": 1, **asdict(self)}, sort_keys=True, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> FrozenSet:
        """The inverse of `to_json`.

        Raises:
            ValueError: Not such a text, or of a newer version.
        """
        content = json.loads(text)
        if content.pop("format") != 1:
            raise ValueError("the frozen set was written by a newer version: update tilewatch")
        scenes = tuple(FrozenScene(**scene | {"hosts": tuple(scene["hosts"])}) for scene in content.pop("scenes"))
        return cls(**content, scenes=scenes)

    @property
    def digest(self) -> str:
        """Short digest of the content."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def lot(seed: int, *names: str) -> bytes:
    """A draw that depends on names alone."""
    return hashlib.blake2b("\0".join([str(seed), *names]).encode(), digest_size=16).digest()


def freeze(detectors: Sequence[Detector], until: date | None, settings: Settings, workspace: Workspace) -> FrozenSet:
    """Choose what detectors are compared on.

    Clean are the `promotion.dates` most recent dates with a clear scene on which nobody has seen an anomaly; a date on
    which one of the detectors was trained, or its training stopped, is taken only where fewer than two others are
    there. Tiles that were flagged, and that nobody has looked at, are *not* left out: whoever flagged them would have
    its false alarms forgiven.

    Args:
        detectors: Those that will be compared.
        until: Last date that was checked for a training. Later scenes count once their night was reported, since only
            then they were checked; so a night that is caught up compares what it would have compared in its time.
        settings: How many dates and tiles, which anomalies.
        workspace: The catalog, the nights and the verdicts.

    Raises:
        NothingToCompare: No clear date, or nothing that could be found there.
        VerdictError: Verdicts that cannot be understood.
    """
    records = {record.scene_id: record for record in trainable_scenes(settings, workspace)}
    told = _by_scene(read_verdicts(workspace), records)
    events = {scene for scene, verdicts in told.items() if any(verdicts.values())}
    clear = [
        record
        for record in records.values()
        if record.valid_fraction >= settings.reference.min_valid and record.scene_id not in events
    ]
    days = _days(clear, detectors, until, settings.promotion.dates, workspace)
    kinds = {name: settings.injections.strengths.get(name, KINDS[name].strength) for name in _events(settings)}
    scenes = []
    for record in sorted(records.values(), key=lambda one: (one.acquired, one.scene_id)):
        clean = record.day in days and record in clear
        verdicts = told.get(record.scene_id, {})
        if clean or verdicts:
            hosts = _hosts(record, verdicts, settings, workspace) if clean and kinds else ()
            scenes.append(FrozenScene(record.scene_id, record.fingerprint, clean, hosts, verdicts))
    if not days:
        raise NothingToCompare("no clear date has been checked on which the detectors could be compared")
    if not any(scene.hosts for scene in scenes) and not events:
        raise NothingToCompare(
            "nothing can be injected into the clear dates, and nobody has seen an anomaly: let injections.kinds name "
            "an event"
        )
    return FrozenSet(settings.seed, kinds, tuple(scenes))


def learned(detector: Detector, day: date) -> str:
    """What a detector did on a date: the most harmful of `ROLES`; '' where it has not seen it."""
    roles = [role for role in ROLES if day.isoformat() in detector.metadata[role]]
    return roles[-1] if roles else ""


def _by_scene(verdicts: Iterable[Verdict], records: Mapping[str, SceneRecord]) -> dict[str, dict[str, bool | None]]:
    """Verdicts by scene and tile, of scenes that are still there."""
    found: dict[str, dict[str, bool | None]] = {}
    for one in verdicts:
        if one.scene_id in records:
            found.setdefault(one.scene_id, {})[one.tile_id] = one.anomaly
    return found


def _days(
    clear: Iterable[SceneRecord],
    detectors: Sequence[Detector],
    until: date | None,
    most: int,
    workspace: Workspace,
) -> set[date]:
    """The dates to compare on: those that the fewest detectors learned from, and of these the most recent."""
    days = {record.day for record in clear}
    checked = [day for day in days if until is None or day <= until or read_night(workspace, day) is not None]
    chosen: list[date] = []
    for worst in (ROLES[0], ROLES[1], ROLES[2]):
        allowed = {"", *ROLES[: ROLES.index(worst) + 1]}
        chosen = [day for day in checked if all(learned(detector, day) in allowed for detector in detectors)]
        if len(chosen) >= FEWEST_DATES:
            break
    return set(sorted(chosen)[-most:])


def _events(settings: Settings) -> list[str]:
    """The kinds of events that are injected; weather and faults of the data are nothing that is to be found."""
    return [name for name in kinds_of(settings.injections) if KINDS[name].event]


def _hosts(
    record: SceneRecord, verdicts: Mapping[str, bool | None], settings: Settings, workspace: Workspace
) -> tuple[str, ...]:
    """The tiles of a scene that take anomalies."""
    tiles = Catalog(workspace).tiles(record)
    usable = tiles.loc[tiles["valid_fraction"] >= settings.train.min_valid, "tile_id"]
    free = [tile_id for tile_id in usable if tile_id not in verdicts]
    seed = settings.seed
    return tuple(sorted(nsmallest(settings.promotion.tiles, free, key=lambda one: lot(seed, record.scene_id, one))))

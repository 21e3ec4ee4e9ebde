"""What a scene is compared with: the reference of its place, and what the scenes that made it let expect of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from configs import Settings, Workspace
from configs.workspace import write_text
from imagery.alignment import Alignment, align_pixels
from imagery.catalog import Catalog, SceneRecord, scene_file
from imagery.composite import MemberUnreadable, Without
from imagery.errors import ImageryError
from imagery.expected import Expectation, PastReader, Transform, expect, open_past, split_witness
from imagery.grid import Grid, Tile
from imagery.reading import SceneReader
from imagery.reference import Member, Reference, build_reference, choose_members
from imagery.registration import ChipPair, Registration, chip_windows, register, sample_windows
from imagery.robust import evenly
from tasks.ingest import open_scene, reading_key
from tasks.review.verdicts import VerdictError
from tasks.suspects import Judged, judgement_files, read_judged, read_judgement

log = logging.getLogger(__name__)

EXPECTATION_FORMAT = 1  # of how one is fitted and kept; another number, and it is fitted again


@dataclass(frozen=True)
class SceneAlignment:
    """How a scene lies to the reference of its place.

    Attributes:
        scene_id: The scene.
        fingerprint: Digest of its content.
        reference: Name of the reference.
        key: Digest of the settings that it depends on.
        registration: The shift between them.
        alignment: The map of the reference to the scene's radiometry, fitted after the shift was corrected.
    """

    scene_id: str
    fingerprint: str
    reference: str
    key: str
    registration: Registration
    alignment: Alignment

    def to_json(self) -> str:
        """As one JSON object."""
        record = self.__dict__ | {
            "registration": self.registration.to_record(),
            "alignment": self.alignment.to_record(),
        }
        return json.dumps(record, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SceneAlignment:
        """The inverse of `to_json`."""
        record: dict[str, Any] = json.loads(text)
        return cls(
            **record
            | {
                "registration": Registration.from_record(record["registration"]),
                "alignment": Alignment.from_record(record["alignment"]),
            }
        )


@dataclass(frozen=True)
class Usual:
    """The reference of a scene's place on the day before, and how the scene follows from it.

    Attributes:
        record: The scene.
        reference: What the place looked like.
        alignment: How the scene lies to it.
        expectation: What the scenes of the reference, one by one, let expect of the scene.
    """

    record: SceneRecord
    reference: Reference
    alignment: SceneAlignment
    expectation: Expectation

    @contextmanager
    def open_past(self, settings: Settings, workspace: Workspace) -> Iterator[PastReader | None]:
        """Open what was to be expected of the scene; None when the expectation is not to be trusted.

        A scene of the past that can no longer be opened is left out, and the others fitted again; when none is left, or
        one cannot be reached just now, nothing is opened and the log says why.
        """
        with ExitStack() as stack:
            try:
                past = self._opened(stack, settings, workspace)
            except ImageryError as error:
                log.warning("%s is not compared with what was expected: %s", self.record.scene_id, error)
                past = None
            yield past

    def _opened(self, stack: ExitStack, settings: Settings, workspace: Workspace) -> PastReader | None:
        expectation, gone = self.expectation, set[str]()
        while expectation.reason is None:
            members = _records(expectation.members, workspace)
            past = open_past(expectation, members, _opens(settings, workspace), self.reference.grid)
            try:
                return stack.enter_context(past)
            except MemberUnreadable as error:
                log.warning("%s", error)
                gone.add(error.scene_id)
            registration = self.alignment.registration
            expectation = expect_scene(self.record, self.reference, registration, settings, workspace, gone)
        return None


def usual_of(record: SceneRecord, settings: Settings, workspace: Workspace) -> Usual | None:
    """What a scene is to be compared with; None when its place has no earlier clear scene that can be read.

    A scene that cannot be compared is none the worse for it, so this never fails because of one.
    """
    try:
        reference = reference_for(record.location, record.day, settings, workspace)
        if reference is None:
            return None
        alignment = align_scene(record, reference, settings, workspace)
        expectation = expect_scene(record, reference, alignment.registration, settings, workspace)
        return Usual(record, reference, alignment, expectation)
    except ImageryError as error:
        log.warning("%s is not compared with its reference: %s", record.scene_id, error)
        return None


def reference_for(location: str, day: date, settings: Settings, workspace: Workspace) -> Reference | None:
    """What a location normally looks like on a day: found, or built of its scenes in the catalog.

    A scene that was flagged as a whole is left out, and one that can no longer be read. Tiles that people judged to
    show an event, cloud or bad data are left out of their scene, here and in all that is expected from it; a scene of
    which too little is left is not chosen.

    Returns:
        The reference; None when no scene is there to make it of.

    Raises:
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """
    if not settings.reference.scenes:
        return None
    catalog, key = Catalog(workspace), reading_key(settings)
    grid, records = catalog.grid(location), catalog.scenes([location])
    if grid is None:
        return None
    judged = _judged(location, workspace)
    without = judged_tiles(records, grid, judged)
    excluded = {one.scene_id for one in records if _left_of(one, without, grid) < settings.reference.min_valid}
    while True:
        members = choose_members(records, day, settings.reference, excluded)
        odd = {record.scene_id for record in members if _flagged_as_whole(record, settings, workspace, judged)}
        if odd:
            excluded |= odd
        elif not members:
            return None
        else:
            try:
                return build_reference(
                    workspace,
                    members,
                    settings.source.bands,
                    key,
                    grid,
                    _opens(settings, workspace),
                    {record.scene_id: without[record.scene_id] for record in members if record.scene_id in without},
                )
            except MemberUnreadable as error:
                log.warning("%s", error)
                excluded.add(error.scene_id)


def _judged(location: str, workspace: Workspace) -> Judged:
    """What people have said; nothing when it cannot be read, so that a night is scored all the same."""
    try:
        return read_judged(workspace)
    except VerdictError as error:
        log.warning("%s is compared with all that it showed, confirmed events too: %s", location, error)
        return Judged()


def judged_tiles(records: Iterable[SceneRecord], grid: Grid, judged: Judged) -> Without:
    """The tiles of some scenes of a place that people judged to show anything but normal ground, by `scene_id`.

    A tile has the size of those that the scene is catalogued with.
    """
    found = {}
    for record in records:
        _, other = judged.of(record)
        named = (grid.named_tile(tile_id, record.location, record.tile_size) for tile_id in other)
        tiles = sorted((tile for tile in named if tile), key=lambda tile: (tile.row_off, tile.col_off))
        if tiles:
            found[record.scene_id] = tuple(tiles)
    return found


def _left_of(record: SceneRecord, without: Without, grid: Grid) -> float:
    """The share of a scene's pixels that at least count when some tiles are left out."""
    tiles = without.get(record.scene_id)
    if not tiles:
        return record.valid_fraction
    edges = np.array([(tile.col_off, tile.row_off, tile.width, tile.height) for tile in tiles])
    boxes = shapely.box(*edges[:, :2].T, *(edges[:, :2] + edges[:, 2:]).T)
    return record.valid_fraction - shapely.union_all(boxes).area / (grid.width * grid.height)


def flagged_as_whole(record: SceneRecord, settings: Settings, workspace: Workspace) -> bool:
    """Whether any version of the detector flagged more than `split.max_flagged` of the tiles that it scored.

    Flags that people judged to be false alarms do not count.
    """
    return _flagged_as_whole(record, settings, workspace, _judged(record.location, workspace))


def _flagged_as_whole(record: SceneRecord, settings: Settings, workspace: Workspace, judged: Judged) -> bool:
    normal, _ = judged.of(record)
    files = judgement_files(record, workspace)
    return any(read_judgement(path).less(normal).as_whole(settings) for path in files)


def align_scene(record: SceneRecord, reference: Reference, settings: Settings, workspace: Workspace) -> SceneAlignment:
    """Register and align a scene with a reference, unless that was done; it is kept beside the reference.

    Both are measured on chips spread over the scene, so memory and time do not grow with its size.

    Args:
        record: The scene, from the catalog.
        reference: The reference of its location.
        settings: How the scene is read, and what is trusted and corrected.
        workspace: Where the scene is catalogued.

    Raises:
        ImageryError: The scene or the reference cannot be read, or do not fit each other.
    """
    key = reading_key(settings) + settings.alignment.model_dump_json()
    path = scene_file(workspace.reference, record, ".json")
    known = _known(path)
    if known and (known.fingerprint, known.reference, known.key) == (record.fingerprint, reference.name, key):
        return known
    if reference.bands != settings.source.bands:
        raise ImageryError(
            f"the reference {reference.path} has the bands {', '.join(reference.bands)}, source.bands are "
            f"{', '.join(settings.source.bands)}: it is another one's"
        )
    chips, samples = chip_windows(reference.grid), sample_windows(reference.grid)
    with reference.open() as before:
        with open_scene(record.scene, settings, workspace) as scene:
            registration = register(before.beside(scene, chips), settings.alignment)
        with open_scene(record.scene, settings, workspace, registration.correction) as scene:
            alignment = _aligned(before.beside(scene, samples), len(samples), settings)
    found = SceneAlignment(record.scene_id, record.fingerprint, reference.name, key, registration, alignment)
    write_text(path, found.to_json())
    return found


def last_correction(record: SceneRecord, workspace: Workspace) -> tuple[float, float]:
    """(rows, columns) that a scene was moved by when it was last compared; 0 when it never was as it is now."""
    known = _known(scene_file(workspace.reference, record, ".json"))
    return known.registration.correction if known and known.fingerprint == record.fingerprint else (0.0, 0.0)


def expect_scene(
    record: SceneRecord,
    reference: Reference,
    registration: Registration,
    settings: Settings,
    workspace: Workspace,
    without: Collection[str] = (),
) -> Expectation:
    """Fit what the scenes of a reference let expect of a scene, unless that was done; it is kept beside the reference.

    A scene that can no longer be read is left out, and of the others what is left out of the reference. But for events
    in the newest scene, which only bears witness: it predicts nothing, and what lasts is what it confirms.

    Args:
        record: The scene, from the catalog.
        reference: The reference of its location.
        registration: How far the scene lies off; it is moved by the correction.
        settings: How scenes are read and compared.
        workspace: Where the scenes are catalogued.
        without: `scene_id` of scenes that are left out.

    Raises:
        ImageryError: The scene cannot be read, or none of the others can.
    """
    path = scene_file(workspace.reference, record, "_expected.json")
    bands, transform = settings.source.bands, Transform.of(settings.normalise)
    chosen = [member for member in reference.members if member.scene_id not in without]
    members = _records(chosen, workspace)
    tiles, judged = {member.scene_id: member.without for member in chosen}, _judged(record.location, workspace)
    while members:
        _, witness = split_witness(members)
        if witness:
            tiles[witness.scene_id] = _unseen(witness, reference, judged)
        made_of = [
            EXPECTATION_FORMAT,
            record.fingerprint,
            [Member.of(member, tiles).to_record() for member in members],
            reading_key(settings),
            settings.alignment.model_dump_json(),
            asdict(transform),
            list(registration.correction),
        ]
        known = _known_expectation(path, made_of)
        if known:
            return known
        try:
            with open_scene(record.scene, settings, workspace, registration.correction) as scene:
                found = expect(scene, members, _opens(settings, workspace), bands, transform, settings.alignment, tiles)
        except MemberUnreadable as error:
            log.warning("%s", error)
            members = [member for member in members if member.scene_id != error.scene_id]
            continue
        content = {"scene_id": record.scene_id, "made_of": made_of, "expectation": found.to_record()}
        write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False))
        return found
    raise ImageryError(f"no scene of the reference {reference.path} can be read any more")


def _unseen(witness: SceneRecord, reference: Reference, judged: Judged) -> tuple[Tile, ...]:
    """The tiles of a witness in which it sees nothing: those left out of the reference, but for confirmed events."""
    left_out = next((one.without for one in reference.members if one.scene_id == witness.scene_id), ())
    events = judged_tiles([witness], reference.grid, Judged(events=judged.events)).get(witness.scene_id, ())
    return tuple(tile for tile in left_out if tile not in events)


def _known_expectation(path: Path, made_of: list[Any]) -> Expectation | None:
    """What was found before; nothing when it was made of anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Expectation.from_record(content["expectation"]) if content["made_of"] == made_of else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _records(members: Collection[Member], workspace: Workspace) -> list[SceneRecord]:
    """What the catalog has of some scenes, oldest first."""
    return Catalog(workspace).named(member.scene_id for member in members)


def _opens(settings: Settings, workspace: Workspace) -> Callable[[SceneRecord], SceneReader]:
    return lambda record: open_scene(record.scene, settings, workspace)


def _known(path: Path) -> SceneAlignment | None:
    """What was found before; nothing when another version of tilewatch wrote it."""
    try:
        return SceneAlignment.from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _aligned(pairs: Iterator[ChipPair], chips: int, settings: Settings) -> Alignment:
    """The map from reference to scene, fitted on some pixels of each chip."""
    most = max(settings.alignment.max_pixels // chips, 1)
    before, after = [], []
    for pair in pairs:
        common = np.flatnonzero(pair.reference_valid & pair.scene_valid)
        some = common[evenly(len(common), most)]
        before.append(pair.reference.reshape(len(pair.reference), -1)[:, some])
        after.append(pair.scene.reshape(len(pair.scene), -1)[:, some])
    bands = settings.source.bands
    return align_pixels(np.concatenate(before, axis=1), np.concatenate(after, axis=1), bands, settings.alignment)

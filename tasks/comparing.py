"""What detectors say of the tiles of a frozen set, scene by scene: as they are, and with anomalies put into them.

As in the smoke alarm (`tasks/smoke.py`), tonight's level is that of the untouched scene, and what is put into a tile is
put into its witness as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import Settings, Workspace
from imagery.catalog import SceneRecord
from imagery.errors import ImageryError
from imagery.expected import Past
from imagery.inject import CannotInject, inject
from imagery.tiles import read_tiles
from tasks.frozen import FrozenScene, FrozenSet, lot
from tasks.observe import OpenScene, conditions_for, observe, opened
from tasks.reference import Usual, usual_of
from tasks.train import usable_scenes
from vae.conditions import Conditions
from vae.detector import BATCH, Detector
from vae.judgement import SceneJudgement

log = logging.getLogger(__name__)

STRENGTHS = (1.0, 0.5, 0.25)  # shares of a kind's strength, in turn: at full strength two good detectors find all
MOST_CLEAN = 500  # clean tiles of a scene that enter the average precision; of false alarms, all are counted
KEYS = ["scene_id", "block", "tile_id", "kind", "positive"]


@dataclass(frozen=True)
class Seen:
    """What two detectors say of a frozen set.

    Attributes:
        tiles: One row a tile that at least one of them scores: `scene_id`, `block` (location and date), `tile_id`,
            `kind` (what was injected; `verdict`; '' for a clean tile), `positive`, and of each detector `p_value_0`,
            `score_0` and `flagged_0`, `p_value_1` … What it has no score for has p-value 1: it finds nothing there.
        clean: Clean tiles that each detector scores, all of them.
        flagged: How many of those each flags.
        unread: Scenes that could not be read, with the reason.
    """

    tiles: pd.DataFrame
    clean: tuple[int, int]
    flagged: tuple[int, int]
    unread: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Hosts:
    """(N, …) tiles of a scene that take anomalies, and their rows among the tiles of the scene."""

    index: NDArray[np.int64]
    places: list[str]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    area: NDArray[np.int64]
    past: Past | None
    conditions: Conditions | None


def see(
    frozen: FrozenSet,
    detectors: tuple[Detector, Detector],
    settings: Settings,
    workspace: Workspace,
    on_scene: Callable[[int, int], None] | None = None,
) -> Seen:
    """Let two detectors look at a frozen set. Memory is that of one scene, and of the rows that are returned.

    Args:
        frozen: The set.
        detectors: Both calibrated, for scenes as they are read now.
        settings: How scenes are read.
        workspace: Where they are catalogued.
        on_scene: Called with (scenes done, scenes in all).
    """
    records = {record.scene_id: record for record in usable_scenes(settings, workspace)}
    tables, unread = [], {}
    clean, flagged = np.zeros(2, dtype=int), np.zeros(2, dtype=int)
    for done, scene in enumerate(frozen.scenes, start=1):
        record = records.get(scene.scene_id)
        try:
            if record is None or record.fingerprint != scene.fingerprint:
                raise ImageryError("it is no longer in the catalog as it was")
            found = [_looked(scene, record, one, detectors, frozen, settings, workspace) for one in detectors]
        except ImageryError as error:
            log.warning("detectors are not compared on %s: %s", scene.scene_id, error)
            unread[scene.scene_id] = str(error)
            continue
        for number, table in enumerate(found):
            counted = table[(table["kind"] == "") & table["score"].notna()] if scene.clean else table[:0]
            clean[number] += len(counted)
            flagged[number] += int(counted["flagged"].sum())
        tables.append(_side_by_side(found, scene, frozen.seed))
        if on_scene:
            on_scene(done, len(frozen.scenes))
    columns = [*KEYS, *(f"{name}_{number}" for number in (0, 1) for name in ("p_value", "score", "flagged"))]
    tiles = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return Seen(tiles[columns], (int(clean[0]), int(clean[1])), (int(flagged[0]), int(flagged[1])), unread)


def _side_by_side(found: Sequence[pd.DataFrame], scene: FrozenScene, seed: int) -> pd.DataFrame:
    """Both detectors' rows of a scene beside each other, the clean ones thinned by lot."""
    both = found[0].merge(found[1], how="outer", on=KEYS, suffixes=("_0", "_1"))
    both = both[both["score_0"].notna() | both["score_1"].notna()]
    normal = both.loc[both["kind"] == "", "tile_id"]
    chosen = set(nsmallest(MOST_CLEAN, normal, key=lambda one: lot(seed, scene.scene_id, one)) if scene.clean else ())
    both = both[(both["kind"] != "") | both["tile_id"].isin(chosen)].sort_values(KEYS)
    for number in (0, 1):
        unscored = both[f"score_{number}"].isna()
        both[f"p_value_{number}"] = both[f"p_value_{number}"].astype(float).mask(unscored, 1.0)
        both[f"score_{number}"] = both[f"score_{number}"].astype(float).mask(unscored, 0.0)
        both[f"flagged_{number}"] = both[f"flagged_{number}"].mask(unscored, False).astype(bool)
    return both


def _looked(
    scene: FrozenScene,
    record: SceneRecord,
    detector: Detector,
    detectors: Sequence[Detector],
    frozen: FrozenSet,
    settings: Settings,
    workspace: Workspace,
) -> pd.DataFrame:
    """Every row that a scene gives, by one detector; none of a location that it does not know."""
    rows = pd.DataFrame({"tile_id": [], "kind": [], "positive": [], "p_value": [], "score": [], "flagged": []})
    if record.location in detector.metadata["locations"]:
        # Both see the scene equally registered, though one of them may not look back.
        usual = usual_of(record, settings, workspace) if any(one.looks_back for one in detectors) else None
        rows = _rows(scene, record, detector, usual, frozen, settings, workspace)
    types = {"tile_id": object, "kind": object, "positive": bool, "p_value": float, "score": float, "flagged": object}
    return rows.astype(types).assign(scene_id=record.scene_id, block=f"{record.location} {record.day}")


def _rows(
    scene: FrozenScene,
    record: SceneRecord,
    detector: Detector,
    usual: Usual | None,
    frozen: FrozenSet,
    settings: Settings,
    workspace: Workspace,
) -> pd.DataFrame:
    stride, kind, raw, places = settings.grid.stride, [], [], []
    windows: dict[str, tuple[int, int]] = {}
    with opened(record, detector, usual, settings, workspace) as open_scene:
        for batch, scores in observe(detector, open_scene, stride):
            kind += scores.kind.tolist()
            raw += scores.score.tolist()
            for tile in batch.tiles:
                places.append(tile.tile_id(record.location))
                if places[-1] in scene.hosts:
                    windows[places[-1]] = (tile.row_off, tile.col_off)
        judged = detector.judge(np.array(kind, dtype=object), np.array(raw), places)
        tables = [_untouched(scene, places, judged)]
        if windows:
            hosts = _hosts(open_scene, detector, set(windows.values()), places, stride)
            tables += [
                _injected(name, hosts, judged, open_scene, detector, frozen, settings) for name in sorted(frozen.kinds)
            ]
    return pd.concat(tables, ignore_index=True)


def _untouched(scene: FrozenScene, places: Sequence[str], judged: SceneJudgement) -> pd.DataFrame:
    """The tiles as they are: those with a verdict, and in a clean scene all others as well; bad data are left out."""
    found = [scene.verdicts.get(place, False) for place in places]
    about = {"tile_id": places, "kind": ["verdict" if place in scene.verdicts else "" for place in places]}
    table = pd.DataFrame(about | {"positive": [bool(anomaly) for anomaly in found]})
    table = table.assign(p_value=judged.p_value, score=judged.score, flagged=judged.flagged)
    known = np.array([anomaly is not None for anomaly in found], dtype=bool)
    return table[known & (scene.clean | (table["kind"] == "verdict").to_numpy())]


def _hosts(
    scene: OpenScene, detector: Detector, only: set[tuple[int, int]], places: Sequence[str], stride: int | None
) -> _Hosts:
    """Read the tiles that take anomalies once more; there are few of them."""
    batches = list(read_tiles(scene.reader, detector.tile_size, stride, only, at_least=BATCH, past=scene.past))
    row = {place: number for number, place in enumerate(places)}
    names = [tile.tile_id(scene.record.location) for batch in batches for tile in batch.tiles]
    pasts = [batch.past for batch in batches if batch.past is not None]
    told = [one for batch in batches if (one := conditions_for(detector, scene, batch)) is not None]
    return _Hosts(
        np.array([row[name] for name in names]),
        names,
        np.concatenate([batch.values for batch in batches]),
        np.concatenate([batch.valid for batch in batches]),
        np.concatenate([batch.area for batch in batches]),
        Past.joined(pasts, axis=0) if pasts else None,
        Conditions.joined(told) if told else None,
    )


def _injected(
    name: str,
    hosts: _Hosts,
    judged: SceneJudgement,
    scene: OpenScene,
    detector: Detector,
    frozen: FrozenSet,
    settings: Settings,
) -> pd.DataFrame:
    """The hosts that can take a kind, with it."""
    changed, taken = [], []
    turn = sorted(frozen.kinds).index(name)
    for number, place in enumerate(hosts.places):
        key = f"{place} {scene.record.scene_id}"
        donor = _donor(number, hosts, frozen.seed, key)
        values, valid, bands = hosts.values[number], hosts.valid[number], settings.source.bands
        strength = frozen.kinds[name] * STRENGTHS[(number + turn) % len(STRENGTHS)]
        try:
            found = inject(
                values, valid, bands, name, frozen.seed, key=key, strength=strength, donor=donor
            )  # fmt: skip
        except CannotInject:
            continue
        changed.append(found.values)
        taken.append(number)
    p_value, score = np.full(len(taken), np.nan), np.full(len(taken), np.nan)
    flagged = np.zeros(len(taken), dtype=bool)
    if taken:
        rows, values = np.array(taken), np.stack(changed)
        past = (
            None
            if hosts.past is None
            else _lasting(hosts.past.each(lambda one: one[rows]), values - hosts.values[rows])
        )
        told = None if hosts.conditions is None else hosts.conditions.rows(rows)
        given = detector.score(
            values, hosts.valid[rows], past=past, scene=scene.stats, area=hosts.area[rows], conditions=told
        )
        for row, index in enumerate(hosts.index[rows].tolist()):
            made = detector.calibrations.get(str(given.kind[row]))
            if made is not None and given.kind[row] == judged.kind[index]:
                score[row] = judged.relative(given.score[row : row + 1], index)[0]
                p_value[row] = made.null.p_values(score[row : row + 1])[0]
                flagged[row] = score[row] > judged.threshold[index]
    about = {"tile_id": [hosts.places[number] for number in taken], "kind": name, "positive": True}
    return pd.DataFrame(about | {"p_value": p_value, "score": score, "flagged": flagged})


def _lasting(past: Past, change: NDArray[np.float32]) -> Past:
    """The past of tiles, their witness changed as they are: an event that lasts is there on the next clear date."""
    if past.witness is None:
        return past
    witness = past.witness + np.nan_to_num(change)
    return Past(past.values, past.valid, witness, past.witness_expected, past.witness_valid)


def _donor(number: int, hosts: _Hosts, seed: int, key: str) -> NDArray[np.float32] | None:
    """The values of another host, NaN where it has none; None where there is no other."""
    others = [other for other in range(len(hosts.places)) if other != number]
    if not others:
        return None
    donor = min(others, key=lambda other: lot(seed, key, hosts.places[other]))
    return np.where(hosts.valid[donor], hosts.values[donor], np.float32(np.nan))

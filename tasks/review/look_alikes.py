"""Look-alikes: flags whose change resembles one that people have called a false alarm, at any place.

Latents of two detectors cannot be compared. A verdict counts where the detector of tonight has latents of its scene:
those that it has scored, calibrated on, or seen in `tilewatch latents`. Others are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs import Settings, Workspace
from imagery.catalog import TIME
from tasks.evidence import Scored
from tasks.review.bars import scene_path
from tasks.review.verdicts import Verdict
from tasks.score import latents_file
from vae.detector import Detector
from vae.look_alikes import find_alike, latent_changes, signatures, spread_of

PAST = 5  # scenes before it that a change is measured from
MOST = 200  # false alarms, and as many anomalies, that are remembered: the latest


def suppress_look_alikes(
    scene: Scored, verdicts: Sequence[Verdict], detector: Detector, settings: Settings, workspace: Workspace
) -> gpd.GeoDataFrame:
    """The scores of a scene without the flags that are like a false alarm.

    Args:
        scene: The scene, its bars raised.
        verdicts: All; those of earlier nights count.
        detector: It scored the scene.
        settings: `review.look_alike` says how near is alike.
        workspace: Holds the latents.
    """
    scores, limit = scene.scores, settings.review.look_alike
    shape, night = detector.latent_shape, scene.record.day
    if not limit or not shape[0] or not scores["flagged"].any():
        return scores
    version = str(scores["detector_version"].iloc[0])
    tonight = _Scene.of(latents_file(workspace, version, scene.record), shape)
    past = [one for one in verdicts if one.night < night and one.verdict in ("false alarm", "anomaly")]
    alarms, anomalies = (
        sorted((one for one in past if one.verdict == verdict), key=_latest_first)[:MOST]
        for verdict in ("false alarm", "anomaly")
    )
    if tonight is None or not alarms:
        return scores
    normal = tonight.signatures(scores.loc[~scores["flagged"] & scores["suppressed"].isna(), "tile_id"])
    spread = spread_of(normal)
    remembered = _remembered([*alarms, *anomalies], shape, version, workspace)
    changed = scores.copy()
    flagged = scores.index[scores["flagged"]]
    for index, change in zip(flagged, tonight.signatures(scores.loc[flagged, "tile_id"]), strict=True):
        like = find_alike(
            change / spread, remembered[: len(alarms)] / spread, remembered[len(alarms) :] / spread, limit
        )
        if like is not None:
            alarm = alarms[like.index]
            changed.loc[index, ["flagged", "suppressed", "alike"]] = [
                False,
                f"like the false alarm at {alarm.tile_id} of {alarm.night}: distance {like.distance:.2f} of its size",
                f"{alarm.tile_id} {alarm.scene_id}",
            ]
    return changed


def _latest_first(one: Verdict) -> tuple[int, str, str]:
    return -one.night.toordinal(), one.scene_id, one.tile_id


class _Scene:
    """How the tiles of a scene have changed."""

    def __init__(self, tiles: Sequence[str], found: NDArray[np.float64]) -> None:
        self._rows = {tile: row for row, tile in enumerate(tiles)}
        self._found = np.vstack([found, np.full((1, found.shape[1]), np.nan)])

    def signatures(self, tiles: Sequence[str] | pd.Series) -> NDArray[np.float64]:
        """(N, L) signatures of some tiles, NaN where nothing is known."""
        found: NDArray[np.float64] = self._found[[self._rows.get(tile, -1) for tile in tiles]]
        return found

    @classmethod
    def of(cls, path: Path, shape: tuple[int, int, int]) -> _Scene | None:
        """By the latents of a scene and of those before it; None where its own are missing."""
        if not path.is_file():
            return None
        files = (path, *reversed(_before(path)[-PAST:]))
        return _changes(tuple((one, one.stat().st_mtime_ns) for one in files), shape)


@lru_cache(maxsize=1024)  # a night asks for the same scenes for each of its own
def _changes(files: tuple[tuple[Path, int], ...], shape: tuple[int, int, int]) -> _Scene:
    """How a scene has changed, the first file, from those before it; the time of each tells when it is another."""
    (path, _), *others = files
    tiles, now = _latents(path, shape)
    past = np.full((len(others), *now.shape), np.nan, np.float32)
    for number, (before, _) in enumerate(others):
        names, latents = _latents(before, shape)
        row_of = {tile: row for row, tile in enumerate(names)}
        known = [row for row, tile in enumerate(tiles) if tile in row_of]
        past[number, known] = latents[[row_of[tiles[row]] for row in known]]
    return _Scene(tiles, signatures(latent_changes(now, past)))


def _latents(path: Path, shape: tuple[int, int, int]) -> tuple[list[str], NDArray[np.float32]]:
    """The tiles of a scene, and their latents (N, L, h, w), NaN where there is none."""
    table = pq.read_table(path, columns=["tile_id", "latent"])
    size = int(np.prod(shape))
    nothing = np.full(size, np.nan, np.float32)
    rows = [nothing if row is None or len(row) != size else row for row in table["latent"].to_numpy()]
    return table["tile_id"].to_pylist(), np.stack([*rows, nothing])[:-1].reshape(-1, *shape)


def _before(path: Path) -> list[Path]:
    """The latents of the scenes of a place before one, oldest first."""

    def moment(one: Path) -> tuple[str, str, int] | None:
        time = TIME.fullmatch(one.stem)
        return (time["day"], time["time"] or "", int(time["number"] or 1)) if time else None

    known = {one: moment(one) for one in path.parent.glob("[!.]*.parquet")}
    this = known.get(path)
    earlier = {one: time for one, time in known.items() if time is not None and this is not None and time < this}
    return sorted(earlier, key=lambda one: earlier[one])


def _remembered(
    verdicts: Sequence[Verdict], shape: tuple[int, int, int], version: str, workspace: Workspace
) -> NDArray[np.float64]:
    """(N, L) signatures of tiles that people have spoken of, NaN where their latents are missing."""
    scenes: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(verdicts):
        scenes[one.scene_id].append(number)
    found = np.full((len(verdicts), shape[0]), np.nan)
    for scene_id, numbers in scenes.items():
        scene = _Scene.of(scene_path(workspace.latents, version, scene_id), shape)
        if scene is not None:
            found[numbers] = scene.signatures([verdicts[number].tile_id for number in numbers])
    return found

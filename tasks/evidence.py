"""Evidence: what a page shows of a scored scene, its tables read and its flagged tiles pictured."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.errors import ImageryError
from imagery.tiles import read_tiles
from imagery.truth import open_heatmap
from tasks import pictures
from tasks.ingest import open_scene
from tasks.observe import conditions_for, opened
from tasks.pictures import default_false_colour, default_rgb
from tasks.reference import Usual
from tasks.scene_maps import ground, map_view
from tasks.score import read_nights, score_files
from tasks.views import MapView
from vae.calibration import NightLevel
from vae.detector import Detector
from vae.scores import find

# Characters of all pictures of tiles and of all maps: with the words of a hundred flags the page stays under 10 MB.
TILE_PICTURES, MAP_PICTURES = 7_400_000, 1_600_000
MOST, MOST_OF_MAP = 100_000, 600_000  # of one of them
KINDS = 8  # pictures of a tile, at most

TONIGHT, FALSE, OVERLAY = "true colour", "false colour", "heatmap over true colour"
Seen = tuple[NDArray[np.float32], NDArray[np.bool_]]  # values (C, H, W) and what of them is valid (H, W)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A scored scene, its table of scores, and how it was judged as a whole."""

    record: SceneRecord
    scores: gpd.GeoDataFrame
    nights: Mapping[str, NightLevel]
    heatmap: Path
    usual: Usual | None

    @property
    def shift(self) -> tuple[float, float]:
        """(rows, columns) that it was moved by before it was scored."""
        return self.usual.alignment.registration.correction if self.usual else (0.0, 0.0)


def read_scores(
    scenes: Sequence[SceneRecord], usual: Mapping[str, Usual], detector_version: str, workspace: Workspace
) -> list[Scored]:
    """The score tables of some scenes.

    Args:
        scenes: The scenes, all scored.
        usual: What each was compared with, by `scene_id`.
        detector_version: The detector that scored.
        workspace: Where the scores are kept.
    """
    found = []
    for record in scenes:
        files = score_files(workspace, detector_version, record)
        scores = gpd.read_parquet(files.scores)
        nights = read_nights(files.profile)
        found.append(Scored(record, scores, nights, files.heatmap, usual.get(record.scene_id)))
    return found


@dataclass(frozen=True)
class Illustrations:
    """What a night looks like.

    Attributes:
        tiles: By scene_id and tile_id: pictures as data URIs, by name, in the order in which they are shown.
        maps: A map of each scene.
    """

    tiles: Mapping[tuple[str, str], Mapping[str, str]]
    maps: Sequence[MapView]


def illustrate(
    scored: Sequence[Scored],
    wanted: Collection[tuple[str, str]],
    detector: Detector,
    settings: Settings,
    workspace: Workspace,
) -> Illustrations:
    """Picture some tiles, and all scenes as maps. What can no longer be read stays without pictures.

    The more there is to show, the smaller are the pictures. A scene that has neither a flag nor a suppressed tile is
    not read for its map, which then shows its p-values alone.

    Args:
        scored: The scenes of a night.
        wanted: scene_id and tile_id of the tiles.
        detector: The detector that scored.
        settings: How scenes are read, and which bands are shown.
        workspace: Where they are catalogued.
    """
    tiles: dict[tuple[str, str], Mapping[str, str]] = {}
    maps = []
    most = min(MOST, TILE_PICTURES // (KINDS * max(1, len(wanted))))
    most_of_map = min(MOST_OF_MAP, MAP_PICTURES // max(1, len(scored))) // 2  # of the ground, and of its tiles
    for scene in scored:
        scene_id = scene.record.scene_id
        rows = scene.scores[[(scene_id, tile_id) in wanted for tile_id in scene.scores["tile_id"]]]
        image = None
        try:
            found = flag_pictures(scene, rows, detector, settings, workspace, most)
            tiles |= {(scene_id, tile_id): pictures for tile_id, pictures in found.items()}
            if scene.scores["flagged"].any() or _suppressed(scene).any():  # it takes seconds to read a large scene
                image = _ground(scene, detector, settings, workspace)
        except ImageryError as error:  # the numbers are kept in the score files
            log.warning("%s is shown without pictures: %s", scene_id, error)
        grid = Catalog(workspace).grid(scene.record.location)
        if grid and len(scene.scores):
            maps.append(map_view(scene.scores, (grid.height, grid.width), image, settings.report.map_side, most_of_map))
    return Illustrations(tiles, maps)


def pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """scene_id and tile_id of some rows."""
    return list(zip(rows["scene_id"], rows["tile_id"], strict=True))


def flag_pictures(
    scene: Scored,
    flags: gpd.GeoDataFrame,
    detector: Detector,
    settings: Settings,
    workspace: Workspace,
    most: int = MOST,
) -> dict[str, dict[str, str]]:
    """Pictures of the flagged tiles of a scene as data URIs, by tile id and name.

    Args:
        scene: The scored scene.
        flags: Rows of its scores that are pictured.
        detector: The detector that scored.
        settings: How the scene is read, and which bands are shown.
        workspace: Where it is catalogued.
        most: Characters of one picture.

    Raises:
        ImageryError: The scene, its reference or its heatmap can no longer be read.
    """
    if flags.empty:
        return {}
    limits = _limits(detector)
    rgb, false = settings.report.rgb or default_rgb(detector.bands), _false_colour(detector, settings)
    high = _heat_limit(detector)
    location = scene.record.location
    places = set(zip(flags["row_off"], flags["col_off"], strict=True))
    compared = {row.tile_id: "past" in find(row.kind).needs for row in flags.itertuples()}
    found = {}

    def picture(seen: Seen, shown: tuple[str, str, str], size: tuple[int, int]) -> NDArray[np.uint8]:
        values, valid = seen
        window = (slice(0, size[0]), slice(0, size[1]))
        return pictures.rgb_image(values[:, *window], detector.bands, shown, limits, valid[window])

    with ExitStack() as stack:
        opened_scene = stack.enter_context(opened(scene.record, detector, scene.usual, settings, workspace))
        reference = stack.enter_context(scene.usual.reference.open()) if scene.usual else None
        heat = stack.enter_context(open_heatmap(scene.heatmap, opened_scene.grid, location))
        tiling = detector.tile_size, settings.grid.stride
        for batch in read_tiles(opened_scene.reader, *tiling, places, past=opened_scene.past):
            told = conditions_for(detector, opened_scene, batch)
            model = detector.expected(batch.values, batch.valid, told) if detector.networks else None
            for index, tile in enumerate(batch.tiles):
                tile_id, size = tile.tile_id(location), (tile.height, tile.width)
                seen: dict[str, Seen] = {TONIGHT: (batch.values[index], batch.valid[index])}
                if scene.usual and reference:
                    before, count = reference.read(tile.window)
                    seen["usual"] = scene.usual.alignment.alignment.apply(before), count > 0
                if batch.past is not None and compared[tile_id]:
                    seen["expected"] = batch.past.values[index], batch.past.valid[index]
                elif model is not None:
                    seen["expected"] = model[index], batch.valid[index]
                images = {name: picture(one, rgb, size) for name, one in seen.items()}
                heatmap = heat(tile.window)
                images["heatmap"] = pictures.heat_image(heatmap, 0.0, high)
                if false:
                    images |= {
                        FALSE if name == TONIGHT else f"{name}, {FALSE}": picture(one, false, size)
                        for name, one in seen.items()
                    }
                images[OVERLAY] = pictures.overlay(images[TONIGHT], heatmap, 0.0, high)
                found[tile_id] = {name: pictures.fitted_data_uri(image, most) for name, image in images.items()}
    return found


def _suppressed(scene: Scored) -> pd.Series:
    """Which of its tiles are suppressed."""
    return scene.scores["suppressed"].notna() if "suppressed" in scene.scores else pd.Series(dtype=bool)


def _ground(scene: Scored, detector: Detector, settings: Settings, workspace: Workspace) -> NDArray[np.uint8]:
    """What a scene looks like."""
    rgb = settings.report.rgb or default_rgb(detector.bands)
    with open_scene(scene.record.scene, settings, workspace, scene.shift) as reader:
        return ground(reader, rgb, detector.bands, _limits(detector), settings.report.map_side)


def _limits(detector: Detector) -> dict[str, tuple[float, float]]:
    return {band: (low, high) for band, (low, high) in detector.metadata["rgb_limits"].items()}


def _false_colour(detector: Detector, settings: Settings) -> tuple[str, str, str] | None:
    return settings.report.false_colour or default_false_colour(detector.bands)


def _heat_limit(detector: Detector) -> float:
    """The brightest colour of every heatmap: twice the threshold, so that flags of all nights can be compared."""
    return 2 * abs(detector.required_calibration.threshold)

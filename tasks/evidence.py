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
from imagery.catalog import SceneRecord
from imagery.errors import ImageryError
from imagery.tiles import read_tiles
from imagery.truth import open_heatmap
from tasks import pictures
from tasks.ingest import open_scene
from tasks.observe import conditions_for, opened
from tasks.reference import Usual
from tasks.score import read_nights, score_files
from vae.calibration import NightLevel
from vae.detector import Detector
from vae.scores import find

QUICKLOOK_SIDE = 480

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
        maps: By location: a picture of the whole scene, as a data URI.
    """

    tiles: Mapping[tuple[str, str], Mapping[str, str]]
    maps: Mapping[str, str]


def illustrate(
    scored: Sequence[Scored],
    wanted: Collection[tuple[str, str]],
    detector: Detector,
    settings: Settings,
    workspace: Workspace,
) -> Illustrations:
    """Picture some tiles, and the scenes that they lie in. What can no longer be read stays without pictures.

    Args:
        scored: The scenes of a night.
        wanted: scene_id and tile_id of the tiles.
        detector: The detector that scored.
        settings: How scenes are read, and which bands are shown.
        workspace: Where they are catalogued.
    """
    tiles: dict[tuple[str, str], Mapping[str, str]] = {}
    maps: dict[str, str] = {}
    for scene in scored:
        scene_id = scene.record.scene_id
        rows = scene.scores[[(scene_id, tile_id) in wanted for tile_id in scene.scores["tile_id"]]]
        if rows.empty:
            continue
        try:
            found = flag_pictures(scene, rows, detector, settings, workspace)
            maps[scene.record.location] = scene_map(scene, detector, settings, workspace)
        except ImageryError as error:  # the numbers are kept in the score files
            log.warning("%s is shown without pictures: %s", scene_id, error)
            continue
        tiles |= {(scene_id, tile_id): pictures for tile_id, pictures in found.items()}
    return Illustrations(tiles, maps)


def pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """scene_id and tile_id of some rows."""
    return list(zip(rows["scene_id"], rows["tile_id"], strict=True))


def flag_pictures(
    scene: Scored, flags: gpd.GeoDataFrame, detector: Detector, settings: Settings, workspace: Workspace
) -> dict[str, dict[str, str]]:
    """Pictures of the flagged tiles of a scene as data URIs, by tile id and name.

    Args:
        scene: The scored scene.
        flags: Rows of its scores that are pictured.
        detector: The detector that scored.
        settings: How the scene is read, and which bands are shown.
        workspace: Where it is catalogued.

    Raises:
        ImageryError: The scene, its reference or its heatmap can no longer be read.
    """
    if flags.empty:
        return {}
    rgb, limits = _colours(detector, settings)
    high = _heat_limit(detector)
    location = scene.record.location
    places = set(zip(flags["row_off"], flags["col_off"], strict=True))
    compared = {row.tile_id: "past" in find(row.kind).needs for row in flags.itertuples()}
    found = {}

    def picture(values: NDArray[np.float32], valid: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
        window = (slice(0, size[0]), slice(0, size[1]))
        return pictures.rgb_image(values[:, *window], detector.bands, rgb, limits, valid[window])

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
                valid = batch.valid[index]
                images = {"true colour": picture(batch.values[index], valid, size)}
                if scene.usual and reference:
                    before, count = reference.read(tile.window)
                    before = scene.usual.alignment.alignment.apply(before)
                    images["usual"] = picture(before, count > 0, size)
                if batch.past is not None and compared[tile_id]:
                    images["expected"] = picture(batch.past.values[index], batch.past.valid[index], size)
                elif model is not None:
                    images["expected"] = picture(model[index], valid, size)
                images["heatmap"] = pictures.heat_image(heat(tile.window), 0.0, high)
                found[tile_id] = {name: pictures.png_data_uri(image) for name, image in images.items()}
    return found


def scene_map(scene: Scored, detector: Detector, settings: Settings, workspace: Workspace) -> str:
    """A small picture of the whole scene with its flags, read strip by strip, as a data URI.

    Raises:
        ImageryError: The scene can no longer be read.
    """
    rgb, limits = _colours(detector, settings)
    channels = [detector.bands.index(band) for band in rgb]
    with open_scene(scene.record.scene, settings, workspace, scene.shift) as reader:
        grid = reader.grid
        # Strips are whole multiples of the factor they are shrunk by, so that they fit together.
        factor = -(-max(grid.width, grid.height) // QUICKLOOK_SIDE)
        strips = []
        for strip in grid.strips(factor * max(1, detector.tile_size // factor)):
            pixels = reader.read(grid.strip_window(strip))
            side = -(-max(pixels.valid.shape) // factor)
            strips.append(pictures.shrink(pixels.values[channels], pixels.valid, side))
    values = np.concatenate([values for values, _ in strips], axis=1)
    image = pictures.rgb_image(values, rgb, rgb, limits, np.concatenate([valid for _, valid in strips]))
    states = np.where(scene.scores["score"].isna(), "unscored", np.where(scene.scores["flagged"], "flagged", "normal"))
    marks = [
        pictures.TileMark(row.row_off, row.col_off, row.height, row.width, state)
        for row, state in zip(scene.scores.itertuples(), states.tolist(), strict=True)
    ]
    return pictures.jpeg_data_uri(pictures.location_map(image, (grid.height, grid.width), marks))


def _colours(detector: Detector, settings: Settings) -> tuple[tuple[str, str, str], dict[str, tuple[float, float]]]:
    limits = {band: (low, high) for band, (low, high) in detector.metadata["rgb_limits"].items()}
    return settings.report.rgb or pictures.default_rgb(detector.bands), limits


def _heat_limit(detector: Detector) -> float:
    """The brightest colour of every heatmap: twice the threshold, so that flags of all nights can be compared."""
    return 2 * abs(detector.required_calibration.threshold)

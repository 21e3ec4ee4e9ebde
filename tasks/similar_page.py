"""The page of tiles that are like one another: what each looks like, how far it is, and what is known of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from configs import Settings, Workspace
from imagery.catalog import Catalog, SceneRecord
from imagery.errors import ImageryError
from imagery.grid import Tile
from imagery.truth import open_heatmap
from tasks import pictures
from tasks.ingest import open_scene
from tasks.pages import encodable, template_environment
from tasks.reference import last_correction
from tasks.review.verdicts import Verdict, VerdictError, read_verdicts
from tasks.score import score_files
from vae.detector import Detector

PICTURES = 8_000_000  # characters of all pictures of a page
LARGEST, SMALLEST = 150_000, 2_000  # of one of them
SCORES = ["score", "p_value", "threshold", "flagged"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileView:
    """A tile on a scene.

    Attributes:
        tile_id: The tile.
        location: The place.
        scene_id: The scene.
        acquired: When it was taken (ISO 8601, UTC); '' when the catalog does not know the scene any more.
        distance: To the tile that was asked about, in spreads of the latents; 0 of that tile itself.
        latitude: Of its centre, degrees north; None when not known.
        longitude: Of its centre, degrees east.
        score: Of the detector; None without one, or when the scores were pruned.
        p_value: Of this score.
        threshold: A greater score is flagged.
        flagged: Whether it is.
        verdict: What people said of it, '' when nothing.
        kind: The kind of event that they saw.
        pictures: Name to data URI.
    """

    tile_id: str
    location: str
    scene_id: str
    acquired: str
    distance: float
    latitude: float | None = None
    longitude: float | None = None
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    flagged: bool | None = None
    verdict: str = ""
    kind: str = ""
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SimilarView:
    """Everything the page shows.

    Attributes:
        name: Name of the watch.
        detector_version: The detector that the latents are of.
        asked: The tile that others are compared with.
        found: The nearest first.
        tiles: Tiles that were compared.
        scenes: Scenes that these are of.
        active: Latent channels that count, of `channels`.
        channels: Those that there are.
        where: Which tiles were looked at, in words.
    """

    name: str
    detector_version: str
    asked: TileView
    found: Sequence[TileView]
    tiles: int
    scenes: int
    active: int
    channels: int
    where: str


def render_similar(view: SimilarView) -> str:
    """Write the page.

    Raises:
        ValueError: A picture is not a base64 data URI, so the page would need the network.
    """
    return encodable(template_environment().get_template("similar.html.j2").render(view=view))


def tile_views(
    wanted: Sequence[tuple[str, str, float]],
    location_of: Mapping[str, str],
    detector: Detector,
    version: str,
    settings: Settings,
    workspace: Workspace,
) -> list[TileView]:
    """What is known of some tiles, with pictures. What can no longer be read is shown without.

    Args:
        wanted: scene_id, tile_id and distance of each.
        location_of: The location of each scene.
        detector: The detector that scored.
        version: Its version.
        settings: How scenes are read, and which bands are shown.
        workspace: Where they are catalogued.
    """
    records = {one.scene_id: one for one in Catalog(workspace).scenes(sorted(set(location_of.values())))}
    verdicts = _verdicts(workspace)
    by_scene: dict[str, list[str]] = {}
    for scene_id, tile_id, _ in wanted:
        by_scene.setdefault(scene_id, []).append(tile_id)
    most = min(LARGEST, max(SMALLEST, PICTURES // (2 * max(len(wanted), 1))))
    known = {
        scene_id: _of_scene(records[scene_id], tiles, detector, version, settings, workspace, most)
        for scene_id, tiles in by_scene.items()
        if scene_id in records
    }
    found = []
    for scene_id, tile_id, distance in wanted:
        record, said = records.get(scene_id), verdicts.get((scene_id, tile_id))
        found.append(
            TileView(
                tile_id=tile_id,
                location=location_of[scene_id],
                scene_id=scene_id,
                acquired=record.acquired.isoformat() if record else "",
                distance=distance,
                verdict=said.verdict if said else "",
                kind=said.kind if said else "",
                **known.get(scene_id, {}).get(tile_id, {}),
            )
        )
    return found


def _of_scene(
    record: SceneRecord,
    tile_names: Sequence[str],
    detector: Detector,
    version: str,
    settings: Settings,
    workspace: Workspace,
    most: int,
) -> dict[str, dict[str, Any]]:
    """Centre, scores and pictures of some tiles of a scene, by tile_id."""
    found: dict[str, dict[str, Any]] = {name: {} for name in tile_names}
    grid = Catalog(workspace).grid(record.location)
    named = {name: grid.named_tile(name, record.location, detector.tile_size) if grid else None for name in tile_names}
    tiles = {name: tile for name, tile in named.items() if tile}
    if grid and tiles:
        for name, outline in zip(tiles, grid.footprints(list(tiles.values())), strict=True):
            found[name] |= {"latitude": outline.centroid.y, "longitude": outline.centroid.x}
    for name, row in _scores(record, tile_names, version, workspace):
        found[name] |= row
    try:
        for name, images in _pictures(record, tiles, detector, version, settings, workspace, most).items():
            found[name]["pictures"] = images
    except ImageryError as error:
        log.warning("%s is shown without pictures: %s", record.scene_id, error)
    return found


def _pictures(
    record: SceneRecord,
    tiles: Mapping[str, Tile],
    detector: Detector,
    version: str,
    settings: Settings,
    workspace: Workspace,
    most: int,
) -> dict[str, dict[str, str]]:
    """True colour, and the heatmap where there is one, as data URIs.

    Raises:
        ImageryError: The scene or its heatmap can no longer be read.
    """
    rgb = settings.report.rgb or pictures.default_rgb(detector.bands)
    limits = {band: (low, high) for band, (low, high) in detector.metadata["rgb_limits"].items()}
    heatmap = score_files(workspace, version, record).heatmap
    high = 2 * abs(detector.calibration.threshold) if detector.calibration else 1.0  # as on the page of a night
    shift = last_correction(record, workspace) if detector.looks_back else (0.0, 0.0)
    found = {}
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(record.scene, settings, workspace, shift))
        heat = stack.enter_context(open_heatmap(heatmap, scene.grid, record.location)) if heatmap.exists() else None
        for name, tile in tiles.items():
            pixels = scene.read(tile.window)
            images = {"true colour": pictures.rgb_image(pixels.values, detector.bands, rgb, limits, pixels.valid)}
            if heat:
                images["heatmap"] = pictures.heat_image(heat(tile.window), 0.0, high)
            found[name] = {kind: pictures.fitted_data_uri(image, most) for kind, image in images.items()}
    return found


def _scores(
    record: SceneRecord, tile_names: Sequence[str], version: str, workspace: Workspace
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Score, p-value, threshold and flag of some tiles, where the scores are still there."""
    path = score_files(workspace, version, record).scores
    if not path.exists():
        return
    table = pd.read_parquet(path, columns=["tile_id", *SCORES], filters=[("tile_id", "in", set(tile_names))])
    for row in table[table["score"].notna()].to_dict("records"):
        numbers = {name: None if pd.isna(row[name]) else float(row[name]) for name in SCORES[:-1]}
        yield str(row["tile_id"]), {**numbers, "flagged": bool(row["flagged"])}


def _verdicts(workspace: Workspace) -> dict[tuple[str, str], Verdict]:
    """The verdicts by scene and tile; none when they cannot be read, which is said."""
    try:
        return {(one.scene_id, one.tile_id): one for one in read_verdicts(workspace)}
    except (VerdictError, OSError, ValueError) as error:
        log.warning("verdicts are not shown, since they cannot be read: %s", error)
        return {}

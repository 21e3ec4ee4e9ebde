"""The flags of a night as its page shows them: each with what is known of it, and those that touch as one place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import geopandas as gpd
import pandas as pd
import shapely

from configs import Workspace
from configs.workspace import safe_name
from imagery.catalog import Catalog
from imagery.outputs import empty_scores
from imagery.outputs.flags import flag_areas, flagged, suppressed
from tasks import views
from tasks.evidence import Illustrations, Scored
from tasks.score import score_files
from vae.detector import Detector

HISTORY_NIGHTS = 30


def ranked(scored: Sequence[Scored]) -> gpd.GeoDataFrame:
    """All flags of the night, the least likely first."""
    tables = [scene.scores for scene in scored]
    return flagged(pd.concat(tables, ignore_index=True)) if tables else empty_scores()


def place_views(
    scored: Sequence[Scored],
    shown: Illustrations,
    detector: Detector,
    detector_version: str,
    night: date,
    workspace: Workspace,
) -> list[views.PlaceView]:
    """Every flag of the night, those that touch as one place.

    Args:
        scored: Its scored scenes.
        shown: Pictures of the tiles that are shown.
        detector: The detector that scored.
        detector_version: Its version.
        night: The night; the page lies in its folder.
        workspace: Holds the earlier scores, and the grids of the locations.
    """
    flags = ranked(scored)
    history = _history(flags, night, detector_version, workspace)
    by_scene = {scene.record.scene_id: scene for scene in scored}
    flag_views: dict[tuple[str, str], list[views.FlagView]] = {}
    for _, row in flags.iterrows():
        scene = by_scene[row["scene_id"]]
        images = shown.tiles.get((row["scene_id"], row["tile_id"]), {})
        files = _files(scene, detector_version, night, workspace)
        found = _flag_view(row, scene, detector, images, history.get(row["tile_id"], []), files)
        flag_views.setdefault((row["location"], row["tile_id"]), []).append(found)
    grids = {location: Catalog(workspace).grid(location) for location in flags["location"].unique()}
    areas = flag_areas(flags, {location: grid for location, grid in grids.items() if grid})
    return [_place_view(area, flag_views) for _, area in areas.iterrows()]


def suppressed_views(scored: Sequence[Scored]) -> list[views.SuppressedView]:
    """Every tile that is no flag because of what people have said, the least likely first."""
    by_scene = {scene.record.scene_id: scene for scene in scored}
    tables = [scene.scores for scene in scored]
    rows = suppressed(pd.concat(tables, ignore_index=True)) if tables else empty_scores()
    found = []
    for _, row in rows.iterrows():
        centre = row["geometry"].centroid
        found.append(
            views.SuppressedView(
                tile_id=row["tile_id"],
                location=row["location"],
                acquired=row["acquired"].isoformat(),
                score=row["score"],
                threshold=row["threshold"],
                bar=row["bar"],
                p_value=_p_value(row),
                reason=row["suppressed"],
                alike="" if pd.isna(row["alike"]) else row["alike"],
                latitude=centre.y,
                longitude=centre.x,
                window=_window(row, by_scene[row["scene_id"]]),
                scene=row["scene_id"],
            )
        )
    return found


def _place_view(area: pd.Series, flags: Mapping[tuple[str, str], Sequence[views.FlagView]]) -> views.PlaceView:
    # Across the 180th meridian an area comes in two parts, with nothing in the middle between them.
    middle = max(shapely.get_parts(area["geometry"]), key=lambda part: part.area).centroid
    return views.PlaceView(
        location=area["location"],
        tiles=area["tiles"],
        area=area["area_m2"],
        latitude=middle.y,
        longitude=middle.x,
        flags=[flag for tile_id in area["tile_ids"] for flag in flags[area["location"], tile_id]],
    )


def _p_value(row: pd.Series) -> float:
    return float(row["p_reviewed"] if "p_reviewed" in row.index else row["p_value"])


def _files(scene: Scored, detector_version: str, night: date, workspace: Workspace) -> dict[str, str]:
    """Where the numbers of a scene lie, as seen from the page."""
    files = score_files(workspace, detector_version, scene.record)
    page = workspace.reports / night.isoformat()
    named = {"heatmap": scene.heatmap, "scores": files.scores}
    return {label: Path(os.path.relpath(path, page)).as_posix() for label, path in named.items()}


def _shares(row: pd.Series, columns: Mapping[str, str]) -> dict[str, float]:
    """Shares that were worked out with the score, by name; those that are not known are left out."""
    found = {name: row[column] for name, column in columns.items() if column in row.index}
    return {name: float(value) for name, value in found.items() if pd.notna(value)}


def _judged_words(row: pd.Series, detector: Detector) -> str:
    """What a reader should know of how a tile was judged."""
    if row["basis"] == "in_scene":
        return "judged by the other tiles of its scene alone: the p-value is not calibrated"
    if row["kind"] != detector.required_calibration.score:
        return f"looked at alone, by {row['kind']}: its past does not show it"
    return ""


def _flag_view(
    row: pd.Series,
    scene: Scored,
    detector: Detector,
    images: Mapping[str, str],
    history: Sequence[tuple[str, float]],
    files: Mapping[str, str],
) -> views.FlagView:
    centre = row["geometry"].centroid
    bar = row["bar"] if "bar" in row.index else row["threshold"]
    return views.FlagView(
        tile_id=row["tile_id"],
        location=row["location"],
        acquired=row["acquired"].isoformat(),
        score=row["score"],
        p_value=_p_value(row),
        threshold=bar,
        raised_from=row["threshold"] if bar > row["threshold"] else None,
        latitude=centre.y,
        longitude=centre.x,
        valid_fraction=row["valid_fraction"],
        pictures=images,
        band_errors=_shares(row, {band: f"off_{number}" for number, band in enumerate(detector.bands)}),
        parts=_shares(
            row, {str(name).removeprefix("part_"): str(name) for name in row.index if str(name).startswith("part_")}
        ),
        judged=_judged_words(row, detector),
        history=[*history, (row["acquired"].date().isoformat(), row["score"])],
        files=files,
        window=_window(row, scene),
        scene=row["scene_id"],
    )


def _window(row: pd.Series, scene: Scored) -> tuple[float, float, float, float]:
    """Left, top, width and height of a tile as shares of its location."""
    tiles = scene.scores
    width, height = (tiles["col_off"] + tiles["width"]).max(), (tiles["row_off"] + tiles["height"]).max()
    return row["col_off"] / width, row["row_off"] / height, row["width"] / width, row["height"] / height


def _history(
    flags: gpd.GeoDataFrame, night: date, detector_version: str, workspace: Workspace
) -> dict[str, list[tuple[str, float]]]:
    """Earlier scores of the flagged tiles by the same detector, oldest first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for location, mine in flags.groupby("location"):
        folder = workspace.scores / safe_name(detector_version) / safe_name(str(location))
        earlier = sorted(path for path in folder.glob("[!.]*.parquet") if path.name < night.isoformat())
        for path in earlier[-HISTORY_NIGHTS:]:
            wanted = [("tile_id", "in", set(mine["tile_id"]))]
            table = pd.read_parquet(path, columns=["tile_id", "acquired", "score"], filters=wanted).dropna()
            for tile_id, acquired, score in table.itertuples(index=False):
                found.setdefault(tile_id, []).append((acquired.date().isoformat(), score))
    return found

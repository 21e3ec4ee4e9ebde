"""Maps: a whole scene as it looks, and its tiles coloured by how few normal ones are as odd."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imagery.reading import SceneReader
from tasks import pictures
from tasks.views import MapView

ODDS_DECADES = 4  # the brightest colour is one normal tile in 10,000
STRIP = 256  # rows that are read at once, about


def ground(
    reader: SceneReader, rgb: tuple[str, str, str], bands: tuple[str, ...], limits: pictures.Limits, side: int
) -> NDArray[np.uint8]:
    """A small picture of a whole scene, read strip by strip: uint8 (H, W, 3).

    Args:
        reader: The scene.
        rgb: Bands shown as red, green and blue.
        bands: All that are read, in their order.
        limits: See `pictures.rgb_image`.
        side: Longest side of the picture, pixels.

    Raises:
        ImageryError: The scene can no longer be read.
    """
    channels = [bands.index(band) for band in rgb]
    grid = reader.grid
    factor = -(-max(grid.width, grid.height) // side)
    strips = []
    # Strips are whole multiples of the factor they are shrunk by, so that they fit together.
    for rows in grid.strips(factor * max(1, STRIP // factor)):
        pixels = reader.read(grid.strip_window(rows))
        strips.append(pictures.shrink_by(factor, pixels.values[channels], pixels.valid))
    values = np.concatenate([values for values, _ in strips], axis=1)
    return pictures.rgb_image(values, rgb, rgb, limits, np.concatenate([valid for _, valid in strips]))


def odds_image(scores: pd.DataFrame, shape: tuple[int, int], side: int) -> NDArray[np.uint8]:
    """All tiles of a scene by p-value, those without a score hatched: uint8 (H, W, 3).

    The ramp is that of the heatmaps, by orders of magnitude: dark is one in one, bright one in 10,000 and less. Where
    tiles overlap, the least likely is seen.

    Args:
        scores: Rows of the scores of a scene.
        shape: Height and width of its grid, pixels.
        side: Longest side of the picture, pixels.
    """
    factor = -(-max(shape) // side)
    canvas = np.full((-(-shape[0] // factor), -(-shape[1] // factor)), np.nan)
    odds = -np.log10(np.maximum(_p_values(scores), 1e-12))
    order = np.argsort(np.where(np.isnan(odds), -1.0, odds), kind="stable")
    windows = scores[["row_off", "col_off", "height", "width"]].to_numpy()
    for index in order.tolist():
        top, left, height, width = windows[index].tolist()
        bottom, right = -(-(top + height) // factor), -(-(left + width) // factor)
        canvas[top // factor : bottom, left // factor : right] = odds[index]
    return pictures.heat_image(canvas, 0.0, ODDS_DECADES)


def map_view(
    scores: pd.DataFrame, shape: tuple[int, int], image: NDArray[np.uint8] | None, side: int, most: int
) -> MapView:
    """The map of a scene.

    Args:
        scores: Rows of its scores, at least one.
        shape: Height and width of its grid, pixels.
        image: What it looks like, from `ground`; None when it can no longer be read.
        side: Longest side of the picture of its tiles, pixels.
        most: Characters of each of both pictures.
    """
    first = scores.iloc[0]
    rows, down = np.unique(scores["row_off"], return_inverse=True)
    columns, right = np.unique(scores["col_off"], return_inverse=True)
    found = np.full((2, len(rows), len(columns)), np.nan)
    found[0, down, right], found[1, down, right] = scores["score"], _p_values(scores)
    return MapView(
        scene=first["scene_id"],
        location=first["location"],
        acquired=first["acquired"].isoformat(),
        size=(shape[1], shape[0]),
        ground="" if image is None else pictures.fitted_data_uri(image, most),
        odds=pictures.fitted_data_uri(odds_image(scores, shape, side), most),
        tile=(int(scores["height"].max()), int(scores["width"].max())),
        rows=rows.tolist(),
        columns=columns.tolist(),
        scores=[float(f"{one:.4g}") if np.isfinite(one) else None for one in found[0].ravel().tolist()],
        once_in=[float(f"{1 / max(one, 1e-6):.2g}") if one == one else 0 for one in found[1].ravel().tolist()],
    )


def _p_values(scores: pd.DataFrame) -> NDArray[np.float64]:
    """Of each tile; 1 where a score has none, NaN where there is no score."""
    known = scores["p_reviewed" if "p_reviewed" in scores else "p_value"].to_numpy(float)
    return np.where(scores["score"].isna(), np.nan, np.where(np.isnan(known), 1.0, known))

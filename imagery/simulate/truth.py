"""What was really there: masks of the events, and one table of what could be seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio

TABLE = "truth.parquet"
COLUMNS = {
    "location": "str", "acquired": "datetime64[us, UTC]", "kind": "str", "event_id": "int64",
    "start": "datetime64[us, UTC]", "pixels": "int64", "visible_fraction": "float64",
}  # fmt: skip


def mask_path(folder: Path, location: str, day: date) -> Path:
    """Where the mask of event numbers of a scene lies; there is none for a scene without events."""
    return folder / "truth" / location / f"{day:%Y-%m-%d}.mask.tif"


@dataclass(frozen=True)
class Truth:
    """The events that can be seen in the scenes below a folder.

    Attributes:
        folder: Folder of the simulation.
        events: One row an event and scene in which it is seen: `location`, `acquired` (UTC, midnight), `kind`,
            `event_id` (its number in the masks), `start` (its first day), `pixels` (seen), `visible_fraction` (share of
            the event's pixels that neither cloud nor a swath edge hides).
    """

    folder: Path
    events: pd.DataFrame = field(repr=False, compare=False)

    @classmethod
    def load(cls, folder: Path) -> Truth:
        """Read the truth of a finished simulation.

        Raises:
            FileNotFoundError: When the folder holds none.
        """
        table = Path(folder) / TABLE
        if not table.is_file():
            raise FileNotFoundError(f"there is no {TABLE} in {folder}: no simulation has been finished there")
        return cls(Path(folder), pd.read_parquet(table))

    def mask(self, location: str, day: date) -> np.ndarray | None:
        """Event numbers of every pixel of a scene (rows, columns), 0 for none; None for a scene without events."""
        path = mask_path(self.folder, location, _as_date(day))
        return _read(path, path.stat().st_mtime_ns) if path.is_file() else None

    def event_fraction(
        self, location: str, day: date, row_off: int, col_off: int, height: int, width: int
    ) -> tuple[float, str | None]:
        """Share of a tile's pixels that show an event, and the kind that shows most.

        Args:
            location: Name of the location.
            day: Date (or time) of the acquisition.
            row_off: First row of the tile.
            col_off: First column of the tile.
            height: Rows of the tile.
            width: Columns of the tile.

        Returns:
            A share from 0 to 1, and None for the kind where it is 0. Pixels under cloud show nothing.
        """
        mask = self.mask(location, day)
        if mask is None:
            return 0.0, None
        tile = mask[row_off : row_off + height, col_off : col_off + width]
        counts = np.bincount(tile.ravel(), minlength=2)
        counts[0] = 0
        if counts.sum() == 0:
            return 0.0, None
        kinds = dict(zip(self.events["event_id"], self.events["kind"], strict=True))
        return float(counts.sum() / tile.size), str(kinds[int(counts.argmax())])


def _as_date(day: date) -> date:
    return day.date() if isinstance(day, datetime) else day


@lru_cache(maxsize=128)
def _read(path: Path, changed: int) -> np.ndarray:
    with rasterio.open(path, sharing=False) as source:
        mask: np.ndarray = source.read(1)
    mask.setflags(write=False)
    return mask

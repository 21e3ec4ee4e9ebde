"""The tiles of a scene as a GeoParquet file, with the statistics of the scene's bands in its metadata.

GeoParquet 1.1 with a covering column `bbox`, so that tiles are chosen by place before they are decoded.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, reduce
from io import BytesIO
from operator import or_
from pathlib import Path
from typing import BinaryIO

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from imagery.errors import ImageryError
from imagery.statistics import BandStats

METADATA = b"tilewatch"
CRS = "EPSG:4326"
COVERING = "bbox"  # as geopandas names the bounding boxes that it writes
# Of the tiles of any scene; those of bands are float32.
COLUMNS = {
    "tile_id": "str",
    **dict.fromkeys(("row_off", "col_off", "height", "width"), "int64"),
    **dict.fromkeys(("valid_fraction", "cloud_fraction"), "float64"),
    "geometry": "object",
    **dict.fromkeys(("location", "scene_id"), "str"),
    "acquired": "datetime64[us, UTC]",
    **dict.fromkeys(("crs", "fingerprint"), "str"),
    "ingested_at": "datetime64[us, UTC]",
}

Box = tuple[float, float, float, float]


class SceneReplaced(ImageryError):
    """A scene of the catalog that was entered anew, or taken out, while it was read."""


class StoredStats(Mapping[str, BandStats]):
    """Statistics of a scene's bands that are read when they are asked for: they are larger than all else.

    Args:
        path: The scene's tiles.
        entry: The reading of the scene that is meant.
    """

    def __init__(self, path: Path, entry: str) -> None:
        self._path, self._entry = path, entry

    def __getitem__(self, band: str) -> BandStats:
        return _read_stats(self._path, self._entry)[band]

    def __iter__(self) -> Iterator[str]:
        return iter(_read_stats(self._path, self._entry))

    def __len__(self) -> int:
        return len(_read_stats(self._path, self._entry))


def write_tiles(path: Path, tiles: gpd.GeoDataFrame, stats: Mapping[str, BandStats], entry: str) -> None:
    """Write the tiles of a scene.

    Args:
        path: The file.
        tiles: One row a tile, with a footprint.
        stats: Statistics of the scene's bands.
        entry: What decided both, see `SceneRecord.entry`.
    """
    buffer = BytesIO()
    tiles.to_parquet(buffer, index=False, compression=None, write_covering_bbox=True)
    table = pq.read_table(buffer)
    metadata = (table.schema.metadata or {}) | {
        METADATA: json.dumps({"entry": entry, "stats": _packed(stats)}).encode()
    }
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def read_tiles(path: Path, entry: str) -> gpd.GeoDataFrame:
    """All tiles of a scene.

    Raises:
        SceneReplaced: They are not those of this entry.
    """
    try:
        with path.open("rb") as file:
            _checked(file, path, entry)
            return gpd.read_parquet(file)
    except FileNotFoundError:
        raise _replaced(path) from None


def select_tiles(paths: Sequence[Path], columns: Sequence[str] | None, boxes: Sequence[Box]) -> gpd.GeoDataFrame:
    """Some tiles and columns of several scenes, one after the other. A scene that was just taken out has none.

    Args:
        paths: The scenes' tiles.
        columns: What to read beside the footprint; None reads all. A scene that lacks one has nulls there.
        boxes: West, south, east, north in degrees: only tiles that touch one of them; without any, all.

    Raises:
        ImageryError: A column that no scene has.
    """
    chosen = None if columns is None else [*(column for column in columns if column != "geometry"), "geometry"]
    present: set[str] = set()
    found = []
    for path in paths:
        with suppress(FileNotFoundError), path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            names = [name for name in parquet.schema_arrow.names if name != COVERING]
            present |= set(names)
            found.append(_select(parquet, [name for name in names if chosen is None or name in chosen], boxes))
    if not found:
        types = {name: COLUMNS.get(name, "float32") for name in chosen or COLUMNS}
        return gpd.GeoDataFrame(pd.DataFrame(columns=[*types]).astype(types), geometry="geometry", crs=CRS)
    missing = sorted(set(chosen or ()) - present)
    if missing:
        raise ImageryError(f"the catalog has no column {', '.join(missing)}: there are {', '.join(sorted(present))}")
    table = pa.concat_tables(found, promote_options="default")
    frame = table.drop_columns("geometry").to_pandas()
    footprints = gpd.GeoSeries.from_wkb(table["geometry"].to_pandas(), crs=CRS, index=frame.index)
    order = chosen or list(table.column_names)
    tiles = gpd.GeoDataFrame(frame, geometry=footprints)[order]
    if not boxes:
        return tiles
    # The footprint of a tile is narrower than its bounding box, most of all where it is cut at the 180th meridian.
    near = tiles.intersects(shapely.union_all([shapely.box(*box) for box in boxes]))
    return tiles[near].reset_index(drop=True)


def _select(parquet: pq.ParquetFile, columns: list[str], boxes: Sequence[Box]) -> pa.Table:
    table = parquet.read([*columns, COVERING] if boxes else columns, use_threads=False)
    if boxes:
        table = table.filter(_near(boxes)).drop_columns(COVERING)
    return table.replace_schema_metadata(None)


def _near(boxes: Sequence[Box]) -> pc.Expression:
    """Whether a tile's bounding box touches one of these."""
    xmin, ymin, xmax, ymax = (pc.field(COVERING, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    touches = [(xmin <= box[2]) & (xmax >= box[0]) & (ymin <= box[3]) & (ymax >= box[1]) for box in boxes]
    return reduce(or_, touches)


@lru_cache(maxsize=4)  # the bands of a scene are asked for one by one
def _read_stats(path: Path, entry: str) -> dict[str, BandStats]:
    try:
        with path.open("rb") as file:
            packed = _checked(file, path, entry)["stats"]
    except FileNotFoundError:
        raise _replaced(path) from None
    records = json.loads(zlib.decompress(base64.b64decode(packed)))
    return {band: BandStats.from_record(record) for band, record in records.items()}


def _packed(stats: Mapping[str, BandStats]) -> str:
    """As text, a third of what it would be as JSON."""
    records = {band: stat.to_record() for band, stat in stats.items()}
    return base64.b64encode(zlib.compress(json.dumps(records, separators=(",", ":")).encode())).decode()


def _checked(file: BinaryIO, path: Path, entry: str) -> dict[str, str]:
    """What the metadata of an open file hold, when it is of this entry."""
    content: dict[str, str] = json.loads((pq.read_schema(file).metadata or {}).get(METADATA, b"{}"))
    if content.get("entry") != entry:
        raise _replaced(path)
    file.seek(0)
    return content


def _replaced(path: Path) -> SceneReplaced:
    return SceneReplaced(
        f"{path.parent.name}/{path.stem} was entered anew or taken out of the catalog while it was read: run the "
        "command again"
    )

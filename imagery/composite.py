"""The median of several scenes as one raster, made window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from imagery.errors import ImageryError, SceneUnreachable
from imagery.grid import Grid, Tile
from imagery.median import masked_median
from imagery.outputs.cog import write_cog
from imagery.reading import Pixels, SceneReader
from imagery.records import SceneRecord

COUNT = "count"
AT_ONCE = 1 << 28  # bytes: values of all scenes together that are in memory at a time
LEAST_ROWS, MOST_ROWS, LEAST_COLUMNS = 64, 2048, 256  # of a window
MOST_FILES = 256  # that are open at a time
FAST = {"level": 1, "num_threads": "ALL_CPUS"}  # a third of the time, 3 % more bytes, which no thread changes

OpenMember = Callable[[SceneRecord], SceneReader]
Without = Mapping[str, tuple[Tile, ...]]  # by scene_id: tiles of a scene whose pixels do not count in it


class MemberUnreadable(ImageryError):
    """A scene of the catalog that can no longer be read.

    Attributes:
        scene_id: Which one.
    """

    def __init__(self, scene_id: str, cause: Exception) -> None:
        super().__init__(f"{scene_id} can no longer be read, and no reference be made of it: {cause}")
        self.scene_id = scene_id


def write_composite(
    path: Path,
    grid: Grid,
    bands: tuple[str, ...],
    members: Sequence[SceneRecord],
    open_member: OpenMember,
    tags: dict[str, str],
    without: Without | None = None,
) -> float:
    """Write the median of the valid pixels of some scenes, band by band, as a COG.

    It has a float32 band for each band, NaN where no scene has a valid pixel, and a last band `count` of how many have
    one. Memory holds about `AT_ONCE` bytes of the scenes, however large and many they are.

    Args:
        path: The GeoTIFF to write.
        grid: The location's grid.
        bands: Names of the bands that are read.
        members: The scenes.
        open_member: Opens a scene on this grid.
        tags: Metadata items.
        without: Tiles of these scenes whose pixels do not count.

    Returns:
        The share of the pixels that have a value.

    Raises:
        MemberUnreadable: A scene that can no longer be read.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """
    valid = 0
    opened = Members(members, open_member, without)
    with write_cog(path, grid, (*bands, COUNT), tags, **FAST) as dataset, opened as scenes:
        for window in windows(grid, scenes.block_rows, AT_ONCE // (4 * len(bands) * len(members))):
            shape = (int(window.height), int(window.width))
            stack = np.empty((len(members), len(bands), *shape), np.float32)
            counts = np.empty((len(members), *shape), bool)
            for place, pixels in enumerate(scenes.read(window)):
                stack[place], counts[place] = pixels.values, pixels.valid
            median, count = masked_median(stack.reshape(*stack.shape[:2], -1), counts.reshape(len(counts), -1))
            dataset.write(np.concatenate([median, count[None]], dtype=np.float32).reshape(-1, *shape), window=window)
            valid += int((count > 0).sum())
    return valid / (grid.width * grid.height)


def windows(grid: Grid, block_rows: int, pixels: int) -> Iterator[Window]:
    """Windows that cover a grid once, none of many more pixels than `pixels`.

    They are as high as the blocks that files are stored in, so that none is decoded more often than needed, and as wide
    as fits.
    """
    rows = min(max(block_rows, LEAST_ROWS), MOST_ROWS)
    columns = min(max(pixels // rows // LEAST_COLUMNS, 1) * LEAST_COLUMNS, grid.width)
    if rows * columns > pixels:
        rows = max(pixels // columns, 1)
    elif columns == grid.width:
        rows *= pixels // (rows * columns)
    for row in range(0, grid.height, rows):
        for column in range(0, grid.width, columns):
            yield Window(column, row, min(columns, grid.width - column), min(rows, grid.height - row))


class Members:
    """Some scenes of a place, opened together. They stay open unless they are too many files.

    A context manager; used by the thread that entered it.

    Args:
        records: The scenes.
        open_member: Opens a scene on the location's grid.
        without: Tiles of these scenes whose pixels do not count, whatever they are read for.

    Raises:
        MemberUnreadable: A scene that can no longer be opened, as it is entered.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """

    def __init__(self, records: Sequence[SceneRecord], open_member: OpenMember, without: Without | None = None) -> None:
        self._records, self._open, self._without = records, open_member, without or {}
        self._stack, self._readers = ExitStack(), dict[str, SceneReader]()
        self.block_rows = 1

    def __enter__(self) -> Members:
        keep = sum(len(record.files) for record in self._records) <= MOST_FILES
        try:
            for record in self._records:
                with _named(record), ExitStack() as opened:
                    reader = opened.enter_context(self._open(record))
                    self.block_rows = max(self.block_rows, reader.block_rows)
                    if keep:
                        self._readers[record.scene_id] = reader
                        self._stack.push(opened.pop_all())
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, window: Window) -> Iterator[Pixels]:
        """A window of each scene, one at a time."""
        for record in self._records:
            yield self.read_one(record, window)

    def read_one(self, record: SceneRecord, window: Window) -> Pixels:
        """A window of one of the scenes.

        Raises:
            MemberUnreadable: A block that cannot be read.
            SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
        """
        with _named(record), ExitStack() as stack:
            kept = self._readers.get(record.scene_id)
            pixels = (kept or stack.enter_context(self._open(record))).read(window)
            return pixels.without(self._without.get(record.scene_id, ()), window)


@contextmanager
def _named(record: SceneRecord) -> Iterator[None]:
    """Say which scene it was that could not be read."""
    try:
        yield
    except SceneUnreachable:
        raise
    except (ImageryError, OSError) as error:
        raise MemberUnreadable(record.scene_id, error) from error

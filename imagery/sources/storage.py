"""Where a source's files lie: a folder of this machine, or an object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from configs.schema import SourceSettings
from imagery.errors import ImageryError


@dataclass(frozen=True)
class StoredFile:
    """A file of a storage.

    Attributes:
        name: Its path below the root, with forward slashes.
        stamp: What tells whether it has changed; None where the file itself can be asked.
    """

    name: str
    stamp: str | None = None


class Storage(Protocol):
    """A tree of files."""

    def files(self, pattern: str) -> Iterator[StoredFile]:
        """The files whose names match a glob pattern (`*` stays within a folder, `**` does not), in order."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...

    def address(self, name: str) -> str:
        """What GDAL opens: a path, or one of its virtual file systems."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise ImageryError(f"the folder of scenes {self.root} does not exist: set source.root")

    def files(self, pattern: str) -> Iterator[StoredFile]:
        """The files whose names match a glob pattern, in order."""
        for path in sorted(self.root.glob(pattern)):
            if path.is_file():
                yield StoredFile(path.relative_to(self.root).as_posix())

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.root / name).read_bytes()

    def address(self, name: str) -> str:
        """Its path."""
        return str(self.root / name)


def gdal_options(source: SourceSettings) -> dict[str, str]:
    """GDAL's configuration for reading a source that may lie elsewhere; nothing for files of this machine.

    Example:
        >>> gdal_options(SourceSettings(url="s3://scenes"))["GDAL_HTTP_MAX_RETRY"]
        '5'
    """
    if source.url is None and source.kind != "stac":
        return {}
    seconds = f"{source.timeout:g}"
    return {
        "GDAL_HTTP_MAX_RETRY": str(source.retries),
        "GDAL_HTTP_RETRY_DELAY": "0.5",  # doubled each time
        "GDAL_HTTP_CONNECTTIMEOUT": seconds,
        "GDAL_HTTP_LOW_SPEED_TIME": seconds,
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # one request, not one for each sidecar that there might be
        "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the whole header of most files at once
        # GDAL would otherwise keep parts of a file that is then replaced, and remember that a file could not be opened.
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsicurl/",
        # Threads of the JPEG 2000 driver open the file anew, and do not see the options of the thread that reads.
        "GDAL_NUM_THREADS": "1",
    }

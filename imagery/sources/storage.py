"""Where a source's files lie: a folder of this machine, or an object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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

"""Products in archives: a zip or tar file as a storage of its own, read where it lies."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagery.errors import ImageryError
from imagery.sources.storage import MOST_METADATA, Folder, Storage, glob_expression

MOST_MEMBERS = 100_000  # a product has a few hundred
DAMAGED = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError, ValueError)


class Archive:
    """The files of an archive.

    Args:
        storage: Where it lies.
        name: Its name there, ending in `.zip` or `.tar`.

    Raises:
        ImageryError: It is damaged or cannot be read.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._kind = "tar" if name.lower().endswith(".tar") else "zip"
        try:
            with storage.open(name) as file:
                self._members = _tar_members(file) if self._kind == "tar" else _zip_members(file)
        except ImageryError:
            raise
        except DAMAGED as error:
            raise ImageryError(f"{storage.address(name)} is no {self._kind} file that can be read: {error}") from error

    def files(self, pattern: str) -> Iterator[str]:
        """The names that match a glob pattern, in order."""
        wanted = glob_expression(pattern)
        return (name for name in sorted(self._members) if wanted.fullmatch(name))

    def open(self, name: str) -> BinaryIO:
        """A file of metadata, whole in memory.

        Raises:
            ImageryError: It cannot be read.
        """
        try:
            with self._storage.open(self._name) as file:
                return io.BytesIO(_read_tar(file, name) if self._kind == "tar" else _read_zip(file, name))
        except ImageryError:
            raise
        except DAMAGED as error:
            raise ImageryError(f"{name} in {self._storage.address(self._name)} cannot be read: {error}") from error

    def address(self, name: str) -> str:
        """As GDAL names it, with the archive in braces."""
        archive = self._storage.address(self._name)
        if isinstance(self._storage, Folder):
            archive = str(Path(archive).absolute())
        return f"/vsi{self._kind}/{{{archive}}}/{name}"

    def stamp(self, name: str) -> str | None:
        """That of the archive."""
        return self._storage.stamp(self._name)


def _zip_members(file: BinaryIO) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return _plain([member.filename for member in archive.infolist() if not member.is_dir()])


def _tar_members(file: BinaryIO) -> list[str]:
    names = []
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            names += [member.name] if member.isfile() else []
            if len(names) > MOST_MEMBERS:
                break
    return _plain(names)


def _plain(names: list[str]) -> list[str]:
    """Those that lie below the root."""
    if len(names) > MOST_MEMBERS:
        raise ImageryError(f"it holds more than {MOST_MEMBERS} files, which no product does")
    return [name for name in names if not name.startswith("/") and ".." not in name.split("/") and "\\" not in name]


def _read_zip(file: BinaryIO, name: str) -> bytes:
    with zipfile.ZipFile(file) as archive, archive.open(name) as member:
        return member.read(MOST_METADATA + 1)


def _read_tar(file: BinaryIO, name: str) -> bytes:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        member = archive.extractfile(name)
        return member.read(MOST_METADATA + 1) if member else b""

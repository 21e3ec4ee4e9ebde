"""Object stores and web folders: listed once, read with ranges, tried again when they fail."""

from __future__ import annotations

import io
import re
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import takewhile
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import HTTPStore, S3Store

from configs.schema import SourceSettings
from imagery.errors import ImageryError
from imagery.sources.storage import (
    FIRST_WAIT,
    MOST_METADATA,
    Storage,
    glob_expression,
    plain_url,
    s3_endpoint,
    s3_unsigned,
)

AT_ONCE = 1 << 20  # bytes that are read together: an archive's directory comes in one piece
FAILURES = (BaseError, FileNotFoundError, PermissionError, ValueError)
Answer = TypeVar("Answer")
ATTEMPTS = 4  # at an answer that breaks off in the middle, which obstore does not try again


def open_remote(source: SourceSettings) -> Storage:
    """The storage at `source.url`.

    Raises:
        ImageryError: The address cannot be used, or a web folder has no index.
    """
    url = plain_url(source.url or "")
    client = {"timeout": timedelta(seconds=source.timeout), "connect_timeout": timedelta(seconds=source.timeout)}
    retry = {
        "max_retries": source.retries,
        "backoff": {"init_backoff": timedelta(seconds=FIRST_WAIT), "max_backoff": timedelta(seconds=source.timeout)},
        "retry_timeout": timedelta(seconds=source.timeout * (source.retries + 1)),
    }
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return ObjectStore(url, s3_store(parts.netloc, client, retry), parts.path.strip("/"))
    if source.index is None:
        raise ImageryError(f"{url} is a web folder, which cannot be listed: set source.index, or use s3://")
    options = cast(Any, client | {"allow_http": True})
    return WebFolder(url, HTTPStore(url, client_options=options, retry_config=cast(Any, retry)), source.index)


def s3_store(bucket: str, client: dict[str, Any], retry: dict[str, Any]) -> S3Store:
    """A bucket, with credentials, region and endpoint from the environment."""
    endpoint = s3_endpoint()
    config: dict[str, Any] = {"skip_signature": True} if s3_unsigned() else {}
    options = client | {"allow_http": bool(endpoint and endpoint.startswith("http://"))}
    return S3Store(bucket, config=cast(Any, config), client_options=cast(Any, options), retry_config=cast(Any, retry))


class _Listed(ABC):
    """Files whose names are known.

    Attributes:
        url: Where they lie.
    """

    def __init__(self, url: str, store: Any, prefix: str) -> None:
        self.url, self._store, self._prefix = url, store, prefix
        self._names: list[str] | None = None

    def files(self, pattern: str) -> Iterator[str]:
        """The names that match a glob pattern, in order."""
        if self._names is None:
            self._names = sorted(self._list())
        wanted, start = glob_expression(pattern), _literal_start(pattern)
        following = self._names[bisect_left(self._names, start) :]
        for name in takewhile(lambda name: name.startswith(start), following):
            if wanted.fullmatch(name):
                yield name

    def open(self, name: str) -> BinaryIO:
        """A file, read by ranges."""
        path, size = self._path(name), self._size(name)
        return cast(BinaryIO, io.BufferedReader(RangeFile(self._store, path, f"{self.url}/{name}", size), AT_ONCE))

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _size(self, name: str) -> int:
        path = self._path(name)
        try:
            return int(whole_answer(lambda: obstore.head(self._store, path))["size"])
        except FAILURES as error:
            raise unreachable(f"{self.url}/{name}", error) from error

    @abstractmethod
    def _list(self) -> list[str]:
        """All names."""


class ObjectStore(_Listed):
    """A bucket, or a prefix in one."""

    def __init__(self, url: str, store: S3Store, prefix: str) -> None:
        super().__init__(url, store, prefix)
        self._entries: dict[str, Any] = {}

    def address(self, name: str) -> str:
        """As GDAL names it."""
        return f"/vsis3/{urlsplit(self.url).netloc}/{self._path(name)}"

    def stamp(self, name: str) -> str | None:
        """Its ETag, or its size and time."""
        return _stamp(self._entries[name]) if name in self._entries else None

    def _size(self, name: str) -> int:
        return int(self._entries[name]["size"]) if name in self._entries else super()._size(name)

    def _list(self) -> list[str]:
        skip = len(self._prefix) + 1 if self._prefix else 0
        try:
            entries = whole_answer(lambda: obstore.list(self._store, self._prefix or None).collect())
        except FAILURES as error:
            raise unreachable(self.url, error) from error
        self._entries = {entry["path"][skip:]: entry for entry in entries}
        return list(self._entries)


class WebFolder(_Listed):
    """A folder of a web server. It cannot be listed: a text file in it holds the names."""

    def __init__(self, url: str, store: HTTPStore, index: str) -> None:
        super().__init__(url, store, "")
        self._index = index

    def address(self, name: str) -> str:
        """As GDAL names it."""
        return f"/vsicurl/{self.url}/{quote(name)}"

    def stamp(self, name: str) -> str | None:
        """Its ETag, or its size and time, as the server tells."""
        try:
            return _stamp(whole_answer(lambda: obstore.head(self._store, name)))
        except FAILURES as error:
            raise unreachable(f"{self.url}/{name}", error) from error

    def _list(self) -> list[str]:
        with self.open(self._index) as file:
            lines = file.read(MOST_METADATA).decode("utf-8", "replace").splitlines()
        names = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
        for name in sorted(names):
            if name.startswith("/") or ".." in name.split("/") or "\\" in name or "//" in name or "?" in name:
                raise ImageryError(f"{self.url}/{self._index} names {name!r}, which is no file below {self.url}")
        return list(names)


class RangeFile(io.RawIOBase):
    """A file of a store as Python's own archives read one."""

    def __init__(self, store: Any, path: str, shown: str, size: int) -> None:
        super().__init__()
        self._store, self._file, self._shown, self._size, self._position = store, path, shown, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Which byte is next."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as much as fits."""
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        try:
            start = self._position
            content = whole_answer(lambda: obstore.get_range(self._store, self._file, start=start, length=length))
        except FAILURES as error:
            raise unreachable(self._shown, error) from error
        buffer[: len(content)] = memoryview(content)
        self._position += len(content)
        return len(content)


def whole_answer(ask: Callable[[], Answer]) -> Answer:
    """Ask a store, and ask again when its answer breaks off.

    Raises:
        Exception: Any other error of obstore, or the last one.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return ask()
        except GenericError as error:
            if "response body" not in str(error):
                raise
        time.sleep(FIRST_WAIT * 2**attempt)
    return ask()


def unreachable(what: str, error: Exception) -> ImageryError:
    """What to say when a store fails."""
    told = str(error).strip().partition("\n")[0]
    return ImageryError(f"{what} cannot be reached: {told}. Check source.url and the credentials in the environment")


def _literal_start(pattern: str) -> str:
    """What every name that matches begins with."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def _stamp(entry: Any) -> str:
    return str(entry["e_tag"] or f"{entry['size']} {entry['last_modified'].isoformat()}")

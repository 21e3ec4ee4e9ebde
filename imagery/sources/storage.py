"""Where a source's files lie: a folder of this machine, an object store, or a web folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

from configs.schema import SourceSettings
from imagery.errors import ImageryError, SceneUnreachable, SceneUnreadable

# A reader opens nothing with another ending: an indirect format (VRT, …) could point at any file or address.
RASTERS = (".tif", ".tiff", ".jp2", ".j2k")
MOST_METADATA = 32 << 20  # bytes; the largest metadata of a product has less than one of them
FIRST_WAIT = 0.5  # seconds before a remote read is tried again; doubled each time
# What GDAL tries again: an answer that never came (0), and what servers say when they are busy or being restarted.
PASSING = "0,408,429,500,502,503,504"
REFUSED = (401, 403, 404)  # what will not be otherwise in a second
MOST_ATTEMPTS = 4  # at a part of a file that GDAL has given up
LOCKS = [RLock() for _ in range(4096)]  # files share them by chance, which costs a little time
Read = TypeVar("Read")


class Storage(Protocol):
    """A tree of files. Their names are paths below its root, with forward slashes."""

    def files(self, pattern: str) -> Iterator[str]:
        """The names that match a glob pattern, in order. `*` stays within a folder, `**/` is any number of them.

        Raises:
            ImageryError: The storage cannot be listed.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """A file, to be read from anywhere in it.

        Raises:
            ImageryError: It cannot be opened.
            OSError: It cannot be opened.
        """
        ...

    def address(self, name: str) -> str:
        """What GDAL opens: a path, or one of its virtual file systems."""
        ...

    def stamp(self, name: str) -> str | None:
        """What tells whether a file has changed; None where the file itself can be asked."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise ImageryError(f"the folder of scenes {self.root} does not exist: set source.root")

    def files(self, pattern: str) -> Iterator[str]:
        """The names that match a glob pattern, in order."""
        for path in sorted(self.root.glob(pattern)):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def open(self, name: str) -> BinaryIO:
        """A file."""
        return (self.root / name).open("rb")

    def address(self, name: str) -> str:
        """Its path."""
        return str(self.root / name)

    def stamp(self, name: str) -> None:
        """None: the file can be asked."""


def open_storage(source: SourceSettings) -> Storage:
    """The storage that the settings name.

    Raises:
        ImageryError: It does not exist, cannot be reached, or needs a package that is not installed.
    """
    if source.url is None:
        return Folder(source.root)
    try:
        from imagery.sources.remote import open_remote  # a package of its own, which not everyone needs
    except ImportError as error:
        raise needs_remote(error) from error
    return open_remote(source)


def plain_url(url: str) -> str:
    """An address that holds nothing secret, without a slash at the end.

    Raises:
        ImageryError: It has a user, a password or a query.
    """
    parts = urlsplit(url)
    if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        plain = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise ImageryError(
            f"source.url must be a plain address like {plain}: credentials come from the environment, since settings "
            "are logged"
        )
    return url.rstrip("/")


def needs_remote(error: ImportError) -> ImageryError:
    """What to say where the extra is not installed."""
    return ImageryError(f"scenes that lie elsewhere need more packages ({error}): pip install 'tilewatch[remote]'")


def glob_expression(pattern: str) -> re.Pattern[str]:
    """A glob pattern as a regular expression, with the meaning it has for `pathlib`."""
    parts = []
    for token in re.findall(r"\*\*/|\*|\?|\[[^\]]+\]|[^*?\[]+|.", pattern):
        if token.startswith("[") and len(token) > 2:
            parts.append(f"[{re.escape(token[1:-1])}]")
        else:
            parts.append({"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token)))
    return re.compile("".join(parts))


def glob_literal(text: str) -> str:
    """Text as a glob pattern that matches it alone."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def read_whole(storage: Storage, name: str) -> bytes:
    """The content of a file of metadata.

    Raises:
        ImageryError: It cannot be read, or is too large to be metadata.
        OSError: It cannot be read.
    """
    with storage.open(name) as file:
        content = file.read(MOST_METADATA + 1)
    if len(content) > MOST_METADATA:
        raise ImageryError(f"{storage.address(name)} is too large for metadata: more than {MOST_METADATA >> 20} MB")
    return bytes(content)


def tried_again(
    read: Callable[[], Read],
    remote: Sequence[str],
    source: SourceSettings,
    before_again: Callable[[], object] = lambda: None,
) -> Read:
    """Read pixels, and where they lie elsewhere and do not come, wait and read again.

    GDAL itself tries again what a server refuses for a while, but not what breaks off in the middle.

    A remote file is read by one thread at a time. Of two threads that want the same part of it, GDAL lets one fetch it
    and the other wait; rasterio may let it wait with Python's global lock held, and the first needs that lock as soon
    as it has a failure to tell of: then both wait for ever.

    Args:
        read: What is tried.
        remote: The files elsewhere that it reads. A file of this machine is read once.
        source: How often.
        before_again: What is done before it is read again; may fail in the same way.

    Raises:
        SceneUnreachable: A remote file that still cannot be read, or that the server does not give.
        SceneUnreadable: A file of this machine that cannot be read.
    """
    if not remote:
        return read()
    for attempt in range(min(source.retries, MOST_ATTEMPTS - 1) + 1):
        if attempt:
            time.sleep(FIRST_WAIT * 2**attempt)
        try:
            with _alone(remote):
                if attempt:
                    before_again()
                return read()
        except SceneUnreadable as error:
            failure = error
            if any(f"response code: {code}" in str(error) for code in REFUSED):
                break
    raise SceneUnreachable(str(failure)) from failure


@contextmanager
def _alone(remote: Sequence[str]) -> Iterator[None]:
    """While this thread alone reads some files."""
    with ExitStack() as stack:
        for place in sorted({hash(path) % len(LOCKS) for path in remote}):  # in one order, or two threads block another
            stack.enter_context(LOCKS[place])
        yield


def gdal_options(source: SourceSettings) -> dict[str, str]:
    """GDAL's configuration for reading scenes that lie elsewhere.

    Example:
        >>> gdal_options(SourceSettings(url="s3://scenes"))["GDAL_HTTP_MAX_RETRY"]
        '5'
    """
    seconds = f"{source.timeout:g}"
    return {
        "GDAL_HTTP_MAX_RETRY": str(source.retries),
        "GDAL_HTTP_RETRY_DELAY": f"{FIRST_WAIT:g}",
        "GDAL_HTTP_RETRY_CODES": PASSING,
        "GDAL_HTTP_CONNECTTIMEOUT": seconds,
        "GDAL_HTTP_LOW_SPEED_TIME": seconds,
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # one request, not one for each sidecar that there might be
        "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the whole header of most files at once
        "CPL_VSIL_CURL_CACHE_SIZE": str(64 << 20),
        # GDAL would otherwise keep parts of a file that is then replaced, and remember that a file could not be opened.
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsicurl/",
        # Several threads for one GeoTIFF do not try again, and hand out blocks that never came as if they had. Those of
        # JPEG 2000 open the file anew, without the options of the thread that reads.
        "GDAL_NUM_THREADS": "1",
        **_gdal_s3_options(),
    }


def s3_endpoint() -> str | None:
    """The address of an object store other than Amazon's, from the variables that its tools share."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def s3_unsigned() -> bool:
    """Whether requests go without credentials, to a public bucket."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true", "on")


def _gdal_s3_options() -> dict[str, str]:
    """GDAL knows the keys and the region by the usual variables, but not the endpoint."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    parts = urlsplit(endpoint)
    return {
        "AWS_S3_ENDPOINT": (parts.netloc + parts.path).rstrip("/"),
        "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }

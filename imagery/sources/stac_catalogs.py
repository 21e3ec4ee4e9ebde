"""STAC items: searched in an API, or collected from a static catalog (STAC specification 1.0 and 1.1, STAC API 1.0)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pystac import STACError
from pystac.utils import make_absolute_href
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.exceptions import ChunkedEncodingError
from urllib3 import Retry

from configs.schema import Area, SourceSettings
from imagery.errors import ImageryError
from imagery.sources.areas import boxes
from imagery.sources.storage import FIRST_WAIT, PASSING, RASTERS, open_storage, plain_url, read_whole

PAGE = 100  # items asked for at once
DEEPEST = 32  # catalogs within catalogs
Item = dict[str, Any]
Found = tuple[Item, str]  # with the address that its relative references start from
Skipped = list[tuple[str, str]]


class Catalogs:
    """Reads catalogs, and nothing that they may not point at.

    A catalog of this machine may point below its own folder and at http, https and s3; one that lies elsewhere never at
    this machine.

    Args:
        source: Where the catalog is.

    Raises:
        ImageryError: It is not there, or its address holds something secret.
    """

    def __init__(self, source: SourceSettings) -> None:
        self.folder: Path | None = None
        if source.url is not None:
            self.root = plain_url(source.url)
        else:
            file = source.root / "catalog.json" if source.root.is_dir() else source.root
            if not file.is_file():
                raise ImageryError(f"there is no STAC catalog at {file}: set source.root to its file, or source.url")
            self.folder, self.root = file.resolve().parent, str(file.resolve())
        self._source = source
        self._io = _PatientIO(source)

    def items(self, locations: Mapping[str, Area], skipped: Skipped) -> Iterator[Found]:
        """The items that may show a location, page by page; all of them without locations.

        Args:
            locations: Where to look; an API needs them.
            skipped: Gets what cannot be read, with the reason.

        Raises:
            ImageryError: The catalog cannot be read, or an API is to be searched everywhere.
        """
        root = self._read(self.root)
        if any("/item-search" in str(uri) for uri in root.get("conformsTo") or ()):
            yield from self._search(locations)
        else:
            yield from self._walk(root, self.root, skipped, {self.root})

    def resolve(self, href: str, base: str) -> str:
        """The address that a reference means: http, https, s3, or an absolute path below the catalog's folder.

        Raises:
            ImageryError: It points where this catalog may not.
        """
        absolute = make_absolute_href(href, base)
        parts = urlsplit(absolute)
        shown = absolute.partition("?")[0]
        if not href.isprintable() or "\\" in href:
            raise ImageryError(f"its reference {shown!r} is no address")
        if parts.scheme in ("http", "https", "s3") and parts.netloc and "@" not in parts.netloc:
            return absolute
        if self.folder is None:
            raise ImageryError(f"it points at {shown}: from a catalog elsewhere only http, https and s3 are opened")
        path = Path(absolute.removeprefix("file://")).resolve()
        if not path.is_relative_to(self.folder):
            raise ImageryError(f"it points at {shown}, outside the catalog's folder {self.folder}")
        return str(path)

    def raster(self, href: str, base: str) -> str:
        """What GDAL opens for a reference.

        Raises:
            ImageryError: It points where this catalog may not, or at something else than a raster.
        """
        address = self.resolve(href, base)
        parts = urlsplit(address)
        if not parts.path.lower().endswith(RASTERS):
            raise ImageryError(f"it points at {address.partition('?')[0]}: only {', '.join(RASTERS)} are opened")
        if parts.scheme == "s3":
            return f"/vsis3/{parts.netloc}{parts.path}"
        return f"/vsicurl/{address}" if parts.scheme else address

    def _search(self, locations: Mapping[str, Area]) -> Iterator[Found]:
        if not locations:
            raise ImageryError(f"{self.root} is a STAC API, which is searched by place: set locations")
        seen: set[tuple[str, str]] = set()
        try:
            client = Client.open(self.root, stac_io=self._io, timeout=self._source.timeout)
            for name, area in sorted(locations.items()):
                for box in boxes(name, area):
                    for item in client.search(**self._query(box), limit=PAGE).items_as_dicts():
                        key = (str(item.get("collection")), str(item.get("id"))) if isinstance(item, dict) else None
                        if key is None or key not in seen:
                            yield item, _own_address(item) or self.root
                        seen |= {key} if key else set()
        except (APIError, STACError, NotImplementedError, KeyError, TypeError, AttributeError) as error:
            raise ImageryError(f"{self.root} cannot be searched: {_told(error)}. Check source.url") from error

    def _query(self, box: tuple[float, float, float, float]) -> dict[str, Any]:
        """Cloud cover is looked at when the items are here: not every API can be asked about it."""
        since, collections = self._source.since, self._source.stac.collections
        query: dict[str, Any] = {"bbox": box}
        if since:
            query["datetime"] = f"{since.isoformat()}T00:00:00Z/.."
        if collections:
            query["collections"] = list(collections)
        return query

    def _walk(self, content: Item, address: str, skipped: Skipped, seen: set[str], depth: int = 0) -> Iterator[Found]:
        """The items below a catalog, each once."""
        if content.get("type") == "Feature":
            yield content, address
        for item in content.get("features") or () if content.get("type") == "FeatureCollection" else ():
            yield item, _own_address(item) or address
        if content.get("type") in ("Feature", "FeatureCollection"):
            return
        for link in content.get("links") or ():
            if not isinstance(link, dict) or link.get("rel") not in ("child", "item"):
                continue
            try:
                below = self.resolve(str(link.get("href")), address)
                if below in seen:
                    continue
                if depth >= DEEPEST:
                    raise ImageryError(f"it lies more than {DEEPEST} catalogs deep")
                seen.add(below)
                found = self._read(below)
            except ImageryError as error:
                skipped.append((str(link.get("href")).partition("?")[0], str(error)))
                continue
            yield from self._walk(found, below, skipped, seen, depth + 1)

    def _read(self, address: str) -> Item:
        """A document of a catalog.

        Raises:
            ImageryError: It cannot be read.
        """
        shown = address.partition("?")[0]
        try:
            content = json.loads(self._text(address))
        except (APIError, OSError, ValueError, RecursionError) as error:
            if isinstance(error, ImageryError):
                raise
            raise ImageryError(f"{shown} cannot be read: {_told(error)}") from error
        if not isinstance(content, dict):
            raise ImageryError(f"{shown} is no STAC document")
        return content

    def _text(self, address: str) -> str | bytes:
        if address.startswith("s3://"):
            folder, _, name = address.rpartition("/")
            return read_whole(open_storage(self._source.model_copy(update={"url": folder})), name)
        if urlsplit(address).scheme:
            return self._io.request(address)
        return Path(address).read_text(encoding="utf-8")


class _PatientIO(StacApiIO):
    """Tries again what a server refuses for a while, and what breaks off in the middle."""

    def __init__(self, source: SourceSettings) -> None:
        patience = Retry(
            source.retries,
            backoff_factor=FIRST_WAIT,
            status_forcelist=[int(code) for code in PASSING.split(",")],
            allowed_methods=None,  # a search is a POST that changes nothing
        )
        super().__init__(timeout=source.timeout, max_retries=patience)
        self._retries = source.retries

    def request(self, href: str, *args: Any, **kwargs: Any) -> str:
        """The text at an address."""
        for attempt in range(self._retries):
            try:
                return super().request(href, *args, **kwargs)
            except APIError as error:
                if not isinstance(error.__context__, ChunkedEncodingError):
                    raise
            time.sleep(FIRST_WAIT * 2**attempt)
        return super().request(href, *args, **kwargs)


def _own_address(item: Any) -> str | None:
    """Where an item says that it lies."""
    links = item.get("links") if isinstance(item, dict) else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            return str(link["href"])
    return None


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

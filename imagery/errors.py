"""What can be wrong with a scene. Each message names the file, the value and what to do."""

from __future__ import annotations

import re

QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")


class ImageryError(ValueError):
    """Base of all errors about imagery. Its message shows no query of an address: that may be a signature."""

    def __init__(self, message: str) -> None:
        super().__init__(QUERY.sub(r"\1", message))


class SceneUnreadable(ImageryError):
    """A file that is damaged, or not a raster of a kind that is allowed."""


class SceneUnreachable(SceneUnreadable):
    """A file that lies elsewhere and cannot be read although it was tried again: it may be there the next time."""


class SceneMismatch(ImageryError):
    """A scene that does not fit its location: bands, grid, coordinate reference system or type."""


class SceneEmpty(ImageryError):
    """A scene without a single usable pixel of data."""

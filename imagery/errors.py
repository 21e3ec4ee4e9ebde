"""What can be wrong with a scene. Each message names the file, the value and what to do."""

from __future__ import annotations


class ImageryError(ValueError):
    """Base of all errors about imagery."""


class SceneUnreadable(ImageryError):
    """A file that is damaged, or not a raster of a kind that is allowed."""


class SceneMismatch(ImageryError):
    """A scene that does not fit its location: bands, grid, coordinate reference system or type."""


class SceneEmpty(ImageryError):
    """A scene without a single usable pixel of data."""

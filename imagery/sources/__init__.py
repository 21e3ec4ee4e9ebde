"""Sources: how scenes are found. A source lists scenes; `imagery.reading` opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from configs.schema import Area, SourceSettings
from imagery.sources.landsat import find_landsat
from imagery.sources.pattern import find_by_pattern
from imagery.sources.scene import Listing, Scene, SceneFile
from imagery.sources.sentinel2 import find_sentinel2
from imagery.sources.storage import needs_remote, open_storage

__all__ = ["Listing", "Scene", "SceneFile", "find_scenes"]


def find_scenes(source: SourceSettings, locations: Mapping[str, Area] | None = None) -> Listing:
    """List the scenes of a source since `source.since`, oldest first.

    Args:
        source: What kind of source it is, and where.
        locations: Places with a grid of their own: products and STAC items are given to those that they touch. An API
            is searched there.

    Raises:
        ImageryError: The source does not exist or cannot be listed, or its settings cannot be followed.
    """
    found = _find(source, locations or {})
    since = source.since
    return replace(
        found, scenes=tuple(scene for scene in found.scenes if since is None or scene.acquired.date() >= since)
    )


def _find(source: SourceSettings, locations: Mapping[str, Area]) -> Listing:
    if source.kind == "sentinel2":
        return find_sentinel2(source, locations)
    if source.kind == "landsat":
        return find_landsat(source, locations)
    if source.kind == "files":
        return find_by_pattern(source, open_storage(source))
    try:
        from imagery.sources.stac import find_stac  # packages of its own, which not everyone needs
    except ImportError as error:
        raise needs_remote(error) from error
    return find_stac(source, locations)

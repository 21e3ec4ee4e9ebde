"""Sources: how scenes are found. A source lists scenes; `imagery.reading` opens them."""

from __future__ import annotations

from configs.schema import SourceSettings
from imagery.sources.pattern import find_by_pattern
from imagery.sources.scene import Listing, Scene, SceneFile
from imagery.sources.storage import Folder

__all__ = ["Listing", "Scene", "SceneFile", "find_scenes"]


def find_scenes(source: SourceSettings) -> Listing:
    """List the scenes of a source, oldest first.

    Raises:
        ImageryError: The folder does not exist, or its settings cannot be followed.
    """
    return find_by_pattern(source, Folder(source.root))

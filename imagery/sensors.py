"""Which sensor took a scene, as the names of its files tell.

Products carry it in the names that their agencies give: Sentinel-2 `S2A_MSIL2A_…` (Sentinel-2 Products Specification
Document, naming convention), Landsat `LC08_L2SP_…` (Landsat Collection 2 product identifiers). Copies in public buckets
keep it in the names of files or folders. Other files tell nothing, and nothing is guessed of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from imagery.sources.scene import SceneFile

SENSOR = re.compile(r"(?<![A-Za-z0-9])(S[12][A-D]|L[CEMOT]0[1-9])_")


def sensor_of(files: Iterable[SceneFile]) -> str | None:
    """The satellite and its instrument, such as S2A or LC08; None when the files do not tell, or tell several.

    Example:
        >>> sensor_of([SceneFile("B04", "/archive/S2A_MSIL2A_20180101T092401.SAFE/T35TMK_20180101T092401_B04.jp2")])
        'S2A'
    """
    told = {found[-1] for file in files if (found := SENSOR.findall(file.path.partition("?")[0]))}
    return told.pop() if len(told) == 1 else None

"""Injected anomalies: burns, floods, roofs, haze, stripes and others, put into real tiles with a seed.

Without labels they say what a detector finds and what it would miss.

>>> from imagery.inject import KINDS, inject
>>> flooded = inject(values, valid, bands, "flood", seed=0, key=tile_id)
"""

from imagery.inject import sensor, surface, weather  # each registers its kinds
from imagery.inject.application import Injected, apply, inject, inject_scene
from imagery.inject.footprints import Footprint, Injection, lay
from imagery.inject.kinds import KINDS, Kind
from imagery.inject.light import CannotInject, Light

__all__ = [
    "KINDS", "CannotInject", "Footprint", "Injected", "Injection", "Kind", "Light", "apply", "inject", "inject_scene",
    "lay", "sensor", "surface", "weather",
]  # fmt: skip

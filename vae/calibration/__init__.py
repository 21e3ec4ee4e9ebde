"""Thresholds without labels: from the raw scores of a scene's tiles to p-values, flags and a scene alarm.

`places` knows what is usual where, `nights` takes out what a night has in common, `null` and `tail` turn the rest into
p-values, `scene_alarm` judges what was taken out, `calibration` holds them together, `fitting` makes one, `judged` is
what comes out of it, and `in_scene` does without any history.
"""

from __future__ import annotations

from vae.calibration.calibration import Basis, Calibration
from vae.calibration.fitting import fit_calibration
from vae.calibration.in_scene import judge_in_scene
from vae.calibration.judged import Judged, NightLevel
from vae.calibration.null import fewest, flagged_by_fdr
from vae.calibration.places import PlaceLevels, fit_place_levels

__all__ = [
    "Basis",
    "Calibration",
    "Judged",
    "NightLevel",
    "PlaceLevels",
    "fewest",
    "fit_calibration",
    "fit_place_levels",
    "flagged_by_fdr",
    "judge_in_scene",
]

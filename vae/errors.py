"""What this package raises: one class per cause, under one base."""

from __future__ import annotations


class VaeError(ValueError):
    """Anything the model, its scores or its files refuse, in words a person can act on."""


class ShapeError(VaeError):
    """Arrays that do not fit the network or each other."""


class ScoreError(VaeError):
    """A score name that is not in the registry."""


class CalibrationError(VaeError):
    """Scores that cannot be turned into p-values, or a calibration made elsewhere."""


class DetectorError(VaeError):
    """A saved detector that is incomplete, altered, or too new to be read."""


class DriftError(VaeError):
    """Drift that cannot be judged with what the profile holds."""


class ExportError(VaeError):
    """A detector that cannot be exported, or files of an export that cannot be used."""

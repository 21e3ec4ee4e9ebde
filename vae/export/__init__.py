"""A detector as ONNX or OpenVINO, and back: written, compared with torch, and run without it."""

from vae.export.running import ExportedScorer
from vae.export.writing import Precision, Target, export

__all__ = ["ExportedScorer", "Precision", "Target", "export"]

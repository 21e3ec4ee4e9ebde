"""Outputs: scores and flags as GeoParquet and GeoJSON, heatmaps as cloud-optimised GeoTIFF, STAC items, QGIS styles."""

from __future__ import annotations

from imagery.outputs.heatmap import heatmap
from imagery.outputs.scores import write_scores

__all__ = ["heatmap", "write_scores"]

"""Outputs: scores and flags as GeoParquet and GeoJSON, heatmaps as cloud-optimised GeoTIFF, STAC items, QGIS styles."""

from __future__ import annotations

from imagery.outputs.flags import FlagFiles, write_flags
from imagery.outputs.heatmap import heatmap
from imagery.outputs.scores import empty_scores, write_scores
from imagery.outputs.stac import write_item
from imagery.outputs.styles import write_heatmap_style

__all__ = ["FlagFiles", "empty_scores", "heatmap", "write_flags", "write_heatmap_style", "write_item", "write_scores"]

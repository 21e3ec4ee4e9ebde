"""Rasters in, rasters out: sources, masks, grids, statistics, the catalog. Knows arrays and files, no model."""

"""Rasters in, rasters out: sources, masks, grids, statistics, the catalog. Knows arrays and files, no model."""

import os

# Megabytes of decoded blocks that GDAL keeps, by default a twentieth of all memory. Scenes are read once, row by row,
# so that one row of blocks is enough. GDAL reads this when it first opens a raster.
os.environ.setdefault("GDAL_CACHEMAX", "256")

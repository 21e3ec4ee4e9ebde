"""No test sees the developer's own settings and servers, and no library reports home."""

from __future__ import annotations

import os

from hypothesis import settings

from configs import quiet

KEPT = {"TILEWATCH_SHARED_DATA"}  # where the public scenes lie

for name in list(os.environ):
    if name.startswith(("TILEWATCH_", "PREFECT_", "MLFLOW_")) and name not in KEPT:
        del os.environ[name]
os.environ["MPLBACKEND"] = "Agg"
quiet.apply()
settings.register_profile("tilewatch", deadline=None)  # a busy machine is no failure
settings.load_profile("tilewatch")

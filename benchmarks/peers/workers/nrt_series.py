"""Monitors of JRC's `nrt` in an environment of their own: one line of JSON in, one out, arrays as .npy files.

`fit` is given `values` (T, H, W), NaN where there is none, and `days` (T,) since 1970, and fits every monitor.
`monitor` is given later dates and goes through them from the state after the fit. It hands back (monitors, 2, T, H, W)
float32: how far the process is on its way to the boundary (1 = a break), and 1 where a pixel passes it for the first
time. NaN where the pixel is not seen on the date; 0 where it is not monitored.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import xarray
from nrt.monitor.ccdc import CCDC
from nrt.monitor.cusum import CuSum
from nrt.monitor.ewma import EWMA
from nrt.monitor.iqr import IQR
from nrt.monitor.mosum import MoSum

warnings.filterwarnings("ignore")
SHORTEST = 12  # dates that every fit needs: nrt itself asks for one and a half for each coefficient

# As nrt's documentation calls them. CCDC screens outliers with a short-wave band, which this series does not have.
MONITORS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "EWMA": (lambda: EWMA(trend=False), {"method": "OLS", "screen_outliers": "Shewhart", "L": 5}),
    "CuSum": (lambda: CuSum(trend=False), {"method": "ROC", "alpha": 0.05}),
    "MoSum": (lambda: MoSum(trend=False), {"method": "ROC", "alpha": 0.05}),
    "CCDC": (lambda: CCDC(trend=True), {"method": "CCDC-stable", "screen_outliers": None}),
    "IQR": (lambda: IQR(trend=False), {"method": "OLS"}),
}


def main() -> None:
    """Answer one request after the other until there are no more."""
    fitted: list[Any] = []
    for line in sys.stdin:
        request = json.loads(line)
        arrays = {name: np.load(path) for name, path in request["arrays"].items()}
        if request["do"] == "fit":
            fitted = [_fitted(make(), arrays["values"], arrays["days"], how) for make, how in MONITORS.values()]
        elif request["do"] == "monitor":
            np.save(request["give"], np.stack([_watched(copy.deepcopy(one), **arrays) for one in fitted]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"monitors": list(MONITORS), "peak_megabytes": peak}), flush=True)


def _fitted(monitor: Any, values: np.ndarray, days: np.ndarray, how: dict[str, Any]) -> Any:
    """A monitor fitted on the history of each pixel; pixels seen too rarely are left out."""
    times = days.astype("datetime64[D]").astype("datetime64[ns]")
    rows, columns = (np.arange(size, dtype=float) for size in values.shape[1:])
    cube = xarray.DataArray(values, dims=("time", "y", "x"), coords={"time": times, "y": rows, "x": columns})
    monitor.mask = (np.isfinite(values).sum(axis=0) >= SHORTEST).astype(np.uint8)
    monitor.fit(dataarray=cube, **how)
    return monitor


def _watched(monitor: Any, values: np.ndarray, days: np.ndarray) -> np.ndarray:
    """(2, T, H, W) how near each pixel is to a break, and whether it is one for the first time."""
    found = np.full((2, *values.shape), np.nan, dtype=np.float32)
    broken = np.zeros(values.shape[1:], dtype=bool)
    for step, (image, day) in enumerate(zip(values, days, strict=True)):
        monitor.monitor(image.astype(np.float64), datetime(1970, 1, 1) + timedelta(days=int(day)), update_mask=False)
        seen, watched = np.isfinite(image), monitor.mask == 1
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.nan_to_num(np.abs(monitor.process) / monitor.boundary, nan=0.0, posinf=0.0)
        breaks = watched & seen & (near >= 1)
        found[0, step][seen] = np.where(watched, near, 0.0)[seen]
        found[1, step][seen] = (breaks & ~broken)[seen]
        broken |= breaks
    return found


if __name__ == "__main__":
    main()

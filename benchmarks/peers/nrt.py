"""JRC's `nrt` (0.2.1): EWMA, CuSum, MoSum, CCDC and IQR, one monitor a pixel, in an environment of their own.

Each is fitted on the dates before 2019 and goes through the later ones, on NDVI and on the near infrared. A tile's
score is made of its pixels in four ways, of which the best one counts:

- `share`: of its pixels beyond the boundary on this date;
- `new`: of its pixels beyond it for the first time;
- `near`: 90th percentile of how far the process is on its way to the boundary, which leaves the sensitivity open;
- `centred`: the logarithm of that less the median of the date, as our own scores are made relative.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.peers.environment import Worker, environment
from benchmarks.problems.romania import Altered, Floats, Scores, Series, pooled, windows
from benchmarks.series_methods import Method

REQUIREMENTS = Path(__file__).with_name("nrt_requirements.txt")
INDICES = ("NDVI", "NIR")
LEAST = 0.01  # of the way to the boundary: less is nothing


class Nrt(Method):
    """All monitors on both indices."""

    name = "nrt"
    family = "nrt"

    def learn(self, series: Series) -> Mapping[str, Scores]:
        python = environment(REQUIREMENTS)
        self._workers = {index: Worker(python, "workers/nrt_series.py") for index in INDICES}
        for index, worker in self._workers.items():
            values, days = _index(series, index)[~series.tested], series.days[~series.tested].astype(int)
            self._monitors: list[str] = worker.ask("fit", values=values, days=days)[0]["monitors"]
        return self._watched(series, len(series.days) - 1)

    def scores(self, altered: Altered) -> Mapping[str, Scores]:
        return self._watched(altered.series, altered.until)

    def _watched(self, series: Series, until: int) -> dict[str, Scores]:
        """Scores of all tests up to a date; the monitors remember, so each run begins with the first of them."""
        dates = [int(date) for date in np.flatnonzero(series.tested) if date <= until]
        found: dict[str, Scores] = {}
        for index, worker in self._workers.items():
            values = _index(series, index)[dates]
            _, maps = worker.ask("monitor", values=values, days=series.days[dates].astype(int))
            assert maps is not None
            for monitor, (near, new) in zip(self._monitors, maps, strict=True):
                beyond = np.where(np.isfinite(near), near >= 1, np.nan)
                for how, heatmaps, pool in (("share", beyond, _mean), ("new", new, _mean), ("near", near, pooled)):
                    scores = found[f"{monitor} {index}, {how}"] = np.full(series.clear.shape, np.nan)
                    for date, heatmap in zip(dates, heatmaps, strict=True):
                        if date in series.looked_at:
                            scores[date] = np.where(series.clear[date], pool(heatmap), np.nan)
                found[f"{monitor} {index}, centred"] = _centred(scores)
        return found

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()


def _centred(scores: Scores) -> Scores:
    """(T, N) log scores less the median of each date; NaN where there is none."""
    logs = np.log(np.maximum(scores, LEAST))
    known = np.isfinite(logs).any(axis=1)
    logs[known] -= np.nanmedian(logs[known], axis=1, keepdims=True)
    return logs


def _mean(heatmap: Floats) -> Scores:
    """(N,) mean over the pixels of each tile that have a number; NaN where none has."""
    pixels = windows(heatmap).reshape(-1, windows(heatmap).shape[-1] ** 2)
    count = np.isfinite(pixels).sum(axis=1)
    found: Scores = np.where(count, np.nansum(pixels, axis=1) / np.maximum(count, 1), np.nan)
    return found


def _index(series: Series, name: str) -> Floats:
    """(T, H, W) NDVI, or near-infrared reflectance."""
    red, infrared = (series.values[:, series.bands.index(band)] for band in ("B04", "B08"))
    if name == "NIR":
        return infrared
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip((infrared - red) / (infrared + red), -1, 1).astype(np.float32)

"""The history of a drift as a picture: how far each night lay from training, statistic by statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from configs.workspace import write_bytes
from tasks.nights import NightRecord
from vae.drift import REPORTED_ONLY, in_words

MOST_NIGHTS = 45
MOST_LABELS = 15  # dates that fit below each other's neighbours
TICKS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
RANGE = 8.0  # of the colours: from an eighth of the limit to eight times
WIDTH, CURVE, ROW, MARGINS = 9.0, 2.2, 0.25, 1.5  # inches
BLUE, RED, GREY = "tab:blue", "tab:red", "0.55"


def drift_history(nights: Sequence[NightRecord], limits: Mapping[str, float]) -> Figure:
    """The last nights against the limits: above, the statistic that came closest; below, each one that is judged.

    Args:
        nights: Of one detector, oldest first; the last 45 are shown.
        limits: What each statistic may be.
    """
    shown = nights[-MOST_NIGHTS:]
    names = [name for name in limits if not name.startswith(REPORTED_ONLY)]
    times = np.array([[night.statistics.get(name, np.nan) / limits[name] for night in shown] for name in names])
    rows = ROW * len(names)
    height = MARGINS + CURVE + rows
    figure = Figure(figsize=(WIDTH, height))  # placed by hand: a layout engine would take half of the time
    left, width = 1.9 / WIDTH, (WIDTH - 3.2) / WIDTH
    below = figure.add_axes((left, 0.9 / height, width, rows / height))
    top = figure.add_axes((left, (1.1 + rows) / height, width, CURVE / height), sharex=below)
    top.tick_params(labelbottom=False)
    _closest(top, shown, times)
    colours = below.imshow(
        np.log2(np.clip(times, 1 / RANGE, RANGE)),
        cmap="RdBu_r", vmin=-np.log2(RANGE), vmax=np.log2(RANGE), aspect="auto", interpolation="nearest",
    )  # fmt: skip
    below.set_facecolor("0.85")
    below.set_yticks(range(len(names)), [in_words(name) for name in names], fontsize="small")
    step = -(-len(shown) // MOST_LABELS)
    ticks = range((len(shown) - 1) % step, len(shown), step)  # so that the last night has its date
    below.set_xticks(ticks, [str(shown[tick].night) for tick in ticks], rotation=40, ha="right", fontsize="small")
    beside = figure.add_axes((left + width + 0.012, 0.9 / height, 0.014, rows / height))
    bar = figure.colorbar(colours, cax=beside, ticks=[-3, -1, 0, 1, 3])
    bar.set_ticklabels(["⅛", "½", "limit", "2 ×", "8 ×"])
    return figure


def write_drift_history(nights: Sequence[NightRecord], limits: Mapping[str, float], path: Path) -> list[Path]:
    """Write the picture as PNG: the same nights, the same bytes.

    Returns:
        The path; nothing when training gives no limits, and there is no picture.
    """
    if not limits:
        return []
    buffer = BytesIO()
    drift_history(nights, limits).savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return [path]


def _closest(axis: Axes, nights: Sequence[NightRecord], times: np.ndarray) -> None:
    """The greatest multiple of its limit that any statistic reached, night by night."""
    seen = np.isfinite(times).any(axis=0)
    most = np.where(seen, np.nanmax(np.where(np.isfinite(times), times, -np.inf), axis=0), np.nan)
    alarmed = np.array([bool(night.alarmed) for night in nights]) & seen
    places = np.arange(len(nights))
    axis.axhline(1, color="black", linestyle="--", linewidth=1, label="limit")
    axis.plot(places[seen], most[seen], color=BLUE, linewidth=1)
    axis.plot(places[seen & ~alarmed], most[seen & ~alarmed], "o", color=BLUE, markersize=4, label="no alarm")
    axis.plot(places[alarmed], most[alarmed], "o", color=RED, markersize=6, label="alarm")
    if not seen.all():
        axis.plot(
            places[~seen], np.full((~seen).sum(), 0.03), "|", color=GREY, label="no verdict", markersize=8,
            transform=axis.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
    for began in sorted({night.drift_began for night in nights if night.drift_began}):
        start = next(place for place, night in enumerate(nights) if night.night >= began)
        end = max(place for place, night in enumerate(nights) if night.drift_began == began)
        axis.axvspan(start - 0.5, end + 0.5, color=RED, alpha=0.12, linewidth=0)
        axis.text(start - 0.4, 0.97, f" drift since {began}", transform=axis.get_xaxis_transform(), va="top")
    axis.set_yscale("log")
    low, high = (float(f(most[seen])) if seen.any() else 1.0 for f in (np.min, np.max))
    axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.minorticks_off()
    axis.set_ylim(min(0.4, low / 1.3), max(2.0, high * 1.6))
    axis.set(xlim=(-0.5, len(nights) - 0.5), ylabel="greatest / limit")
    version = nights[-1].detector_version if nights else ""
    axis.set_title(f"How far nights lie from the training of {version}", loc="left", fontsize=11)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)

"""Figures of what a network has learned. Their colours can be told apart by the colour-blind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.pictures import Limits, default_rgb, enlarge, rgb_image, stretch_limits
from vae.diagnostics import Diagnosis
from vae.diagnostics.channels import ACTIVE, MEANS, SPREADS, Channels
from vae.diagnostics.walks import Arithmetic, Interpolation, Traversal

Array = NDArray[np.floating]
Images = NDArray[np.uint8]  # (..., H, W, 3)

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#767676"
# Okabe & Ito (2008), Color universal design; with a marker each, as so many colours are hard to tell apart.
GROUPS = (
    (BLUE, "o"),
    (ORANGE, "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#D55E00", "P"),
    ("#000000", "X"),
)
RAMP = "cividis"
TILE = 90  # pixels across, at least, of a tile in a figure
GAP, EDGE = 4, 10  # pixels between tiles, and around all of them
LETTER, LINE = 8, 17  # pixels that a letter and a line of text take at most
DPI = 100
GAMMA = 0.6  # of pictures: tiles of dark and of bright ground stand side by side


@dataclass(frozen=True)
class Shown:
    """How tiles become pictures: which bands are red, green and blue, and what is darkest and brightest of each."""

    bands: tuple[str, ...]
    rgb: tuple[str, str, str]
    limits: Limits

    @classmethod
    def of(cls, diagnosis: Diagnosis, rgb: tuple[str, str, str] | None) -> Shown:
        """For the tiles of a diagnosis; all its pictures are stretched alike, by what the originals hold."""
        originals, valid = diagnosis.pictures.originals, diagnosis.pictures.valid
        stacked = np.moveaxis(originals, 0, 1).reshape(len(diagnosis.bands), -1, originals.shape[-1])
        limits = stretch_limits(stacked, diagnosis.bands, valid.reshape(-1, valid.shape[-1]))
        return cls(diagnosis.bands, rgb or default_rgb(diagnosis.bands), limits)

    def images(self, tiles: NDArray[np.floating], valid: NDArray[np.bool_] | None = None) -> Images:
        """(N, H, W, 3) of tiles (N, C, H, W), physical units; hatched where not valid."""
        masks = np.ones((len(tiles), *tiles.shape[2:]), bool) if valid is None else valid
        low, high = (np.array(ends)[:, None, None] for ends in zip(*self.limits.values(), strict=True))
        bright = np.clip((tiles - low) / (high - low), 0, 1) ** GAMMA
        whole = dict.fromkeys(self.bands, (0.0, 1.0))
        return np.stack(
            [rgb_image(tile, self.bands, self.rgb, whole, mask) for tile, mask in zip(bright, masks, strict=True)]
        )

    @property
    def words(self) -> str:
        """Which bands are seen."""
        return f"red, green, blue: {', '.join(self.rgb)}" if len(set(self.rgb)) > 1 else f"band {self.rgb[0]}"


def channel_bars(kl: Array, channels: Channels, tiles: int) -> Figure:
    """KL of each latent channel (levels, L), most first, and which ones of the coarsest level are active."""
    figure = Figure(figsize=(9, 2.2 * (len(kl) + 1) + 0.5), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(kl) + 1, 1, squeeze=False)[:, 0]
    for level, (axis, nats) in enumerate(zip(axes, kl, strict=False), start=1):
        order = np.argsort(-nats, kind="stable")
        active = channels.active[order] if level == 1 else np.ones(len(order), bool)
        _bars(axis, order, nats[order], active)
        axis.set(ylabel="KL, nats a tile")
        name = "KL from the prior" if len(kl) == 1 else f"KL from the prior, level {level} of {len(kl)}, coarsest first"
        axis.set_title(f"{name}: {nats.sum():.1f} nats a tile", loc="left", fontsize=10)
    order = np.argsort(-kl[0], kind="stable")
    axis = axes[-1]
    _bars(axis, order, np.maximum(channels.activity[order], ACTIVE / 1e3), channels.active[order])
    axis.axhline(ACTIVE, color="black", linestyle="--", linewidth=1, label=f"active above {ACTIVE:g}")
    axis.set_yscale("log")
    axis.set(xlabel="latent channel, most KL first", ylabel="variance of the mean")
    axis.set_title(
        f"{channels.active.sum()} of {len(order)} channels active (blue): variance of the posterior mean over "
        f"{tiles} tiles",
        loc="left", fontsize=10,
    )  # fmt: skip
    axis.legend(loc="upper right", fontsize=8)
    return figure


def posterior_histograms(kl: Array, channels: Channels) -> Figure:
    """Posterior means and standard deviations of the coarsest level: of all channels, and of each, most KL first."""
    order = np.argsort(-kl[0], kind="stable")
    figure = Figure(figsize=(9, 6), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", height_ratios=(2, 3))
    for column, (counts, edges, name) in enumerate(
        ((channels.means, MEANS, "mean μ"), (channels.spreads, SPREADS, "standard deviation σ"))
    ):
        width = edges[1] - edges[0]
        top, below = axes[:, column]
        top.stairs(counts.sum(axis=0) / counts.sum() / width, edges, fill=True, color=BLUE, alpha=0.8)
        top.set_title(f"posterior {name}, all channels", loc="left", fontsize=10)
        top.set(ylabel="density")
        share = counts[order] / counts[order].sum(axis=1, keepdims=True) / width
        mesh = below.pcolormesh(edges, np.arange(len(order) + 1), share, cmap=RAMP, vmax=np.quantile(share, 0.995))
        below.invert_yaxis()
        _channel_ticks(below.yaxis, order, offset=0.5)
        below.set(xlabel=f"{name}, prior standard deviations", ylabel="latent channel, most KL first")
        figure.colorbar(mesh, ax=below, label="density", location="bottom", shrink=0.7)
    middle = (MEANS[1:] + MEANS[:-1]) / 2
    normal = np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi)
    axes[0, 0].plot(middle, normal, color="black", linestyle="--", linewidth=1, label="prior N(0, 1)")
    axes[0, 1].axvline(1, color="black", linestyle="--", linewidth=1, label="prior: nothing learned")
    for axis in axes[0]:
        axis.legend(fontsize=8)
    return figure


def reconstructions(diagnosis: Diagnosis, shown: Shown) -> Figure:
    """Tiles, what the network makes of them, and how far these are apart."""
    made = diagnosis.pictures
    away = np.where(made.valid, np.abs(made.reconstructed - made.originals).mean(axis=1), np.nan)
    top = max(float(np.nanquantile(away, 0.99)), 1e-12)
    seen = shown.images(made.originals, made.valid)
    heat = np.rint(255 * colormaps[RAMP](np.nan_to_num(away) / top)[..., :3]).astype(np.uint8)
    figure, axis = mosaic(
        [seen, shown.images(made.reconstructed), np.where(made.valid[..., None], heat, seen)],
        ["seen", "reconstructed", "apart"],
        title=f"Tiles and their reconstructions; masked pixels are hatched ({shown.words})",
        below=3 * LINE + EDGE,
    )
    box, height = axis.get_position(), figure.get_figheight() * DPI
    bar = figure.add_axes((box.x0, 2.6 * LINE / height, box.width, 0.6 * LINE / height))
    ramp = ScalarMappable(Normalize(0, top), RAMP)
    figure.colorbar(ramp, cax=bar, orientation="horizontal", label="mean |difference| of the bands, physical units")
    return figure


def samples(diagnosis: Diagnosis, shown: Shown) -> Figure:
    """Decoded draws of the prior below tiles."""
    made = diagnosis.pictures
    drawn = shown.images(made.samples)
    across = len(made.originals)
    rows = [drawn[start : start + across] for start in range(0, len(drawn), across)]
    apart = diagnosis.discrepancy
    words = "" if apart is None else f". MMD²ᵤ {apart.squared:.4f}, by chance up to {apart.by_chance:.4f}"
    if diagnosis.frechet is not None:
        words += f"; squared Fréchet distance {diagnosis.frechet:.3g}"
    return mosaic(
        [shown.images(made.originals, made.valid), *rows],
        ["seen", *["drawn"] * len(rows)],
        title=f"Tiles, and samples from the prior, without noise ({shown.words}){words}",
    )[0]


def interpolations(ways: Sequence[Interpolation], shown: Shown) -> Figure:
    """From one tile to another along a great circle of the latent, between the tiles themselves."""
    rows = []
    for way in ways:
        ends = shown.images(way.ends, way.valid)
        rows.append(np.concatenate([ends[:1], shown.images(way.tiles), ends[1:]]))
    steps = len(ways[0].tiles)
    columns = ["seen", *[f"{100 * number / (steps - 1):.0f} %" for number in range(steps)], "seen"]
    title = f"Spherical interpolation between the latents of two tiles ({shown.words})"
    return mosaic(rows, [f"pair {number}" for number in range(1, len(rows) + 1)], columns, title)[0]


def traversals(ways: Sequence[Traversal], kl: Array, shown: Shown) -> Figure:
    """A typical tile with one latent channel set to values of the prior; `kl` (L,) nats a tile of each channel."""
    rows = [shown.images(way.tiles) for way in ways]
    names = [f"channel {way.channel}\n{kl[way.channel]:.1f} nats" for way in ways]
    columns = [f"{value:+g}" if value else "0" for value in ways[0].values]
    title = f"One tile, one latent channel set to a value in all cells ({shown.words})"
    return mosaic(rows, names, columns, title, "value, standard deviations of the prior")[0]


def arithmetic(made: Arithmetic, shown: Shown) -> Figure:
    """Tiles of one group, moved by the difference of the groups' means, above tiles of the other."""
    rows = [
        shown.images(made.originals, made.valid),
        shown.images(made.reconstructed),
        shown.images(made.moved),
        shown.images(made.goal_originals, made.goal_valid),
    ]
    names = [
        f"{made.start}\nseen",
        f"{made.start}\nreconstructed",
        f"{made.start}\n+ {made.goal}\n− {made.start}",
        f"{made.goal}\nseen",
    ]
    title = f"Latent arithmetic: {made.reached:.0%} of the moved tiles are encoded nearer to the mean of {made.goal}"
    return mosaic(rows, names, title=f"{title} ({shown.words})")[0]


def latent_plane(diagnosis: Diagnosis, name: str = "", places: Array | None = None) -> Figure:
    """The tiles by their latents: principal components, with samples from the prior, and another map (N, 2) by name."""
    panels = 1 if places is None else 2
    figure = Figure(figsize=(5.2 * panels + 1.2, 5), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    plane = diagnosis.plane
    drawn = (diagnosis.sampled - plane.centre) @ plane.axes.T
    axes[0].scatter(
        drawn[:, 0],
        drawn[:, 1],
        s=14,
        marker="x",
        color=GREY,
        linewidths=0.8,
        alpha=0.7,
        label="samples from the prior",
    )
    handles = _scatter_groups(axes[0], plane.places, diagnosis.labels)
    axes[0].set(xlabel=f"first component, {plane.explained[0]:.0%} of the variance")
    axes[0].set(ylabel=f"second component, {plane.explained[1]:.0%}")
    axes[0].set_title("Principal components of the latents", loc="left", fontsize=10)
    if places is not None:
        _scatter_groups(axes[1], places, diagnosis.labels)
        axes[1].set(xticks=[], yticks=[])
        axes[1].set_title(f"{name}: neighbours count, distances do not", loc="left", fontsize=10)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, handles + 1), fontsize=8
    )
    return figure


def mosaic(
    rows: Sequence[Images],
    names: Sequence[str],
    columns: Sequence[str] | None = None,
    title: str = "",
    words: str = "",
    below: int = EDGE,
) -> tuple[Figure, Axes]:
    """Tiles in rows with a name each, as one picture: quick to draw, and every pixel of it is one of the figure.

    Args:
        rows: (N, H, W, 3) each; shorter ones are filled up with white.
        names: Of the rows.
        columns: Names of the columns.
        title: Of it all; it is wrapped.
        words: What the names of the columns mean.
        below: Pixels to leave free below.
    """
    side = rows[0].shape[1]
    factor = max(1, -(-TILE // side))
    step = side * factor + GAP
    across = max(len(row) for row in rows)
    canvas = np.full((len(rows) * step - GAP, across * step - GAP, 3), 255, np.uint8)
    for number, row in enumerate(rows):
        for column, image in enumerate(row):
            top, left = number * step, column * step
            canvas[top : top + side * factor, left : left + side * factor] = enlarge(image, factor)
    height, width = canvas.shape[:2]
    beside = LETTER * max(len(line) for name in names for line in name.split("\n")) + 2 * EDGE
    lines = wrap(title, (width + beside) // LETTER)
    above = LINE * len(lines) + EDGE
    below += LINE * (bool(columns) + bool(words))
    whole = (beside + width + EDGE, above + height + below)
    figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
    axis = figure.add_axes((beside / whole[0], below / whole[1], width / whole[0], height / whole[1]))
    axis.imshow(canvas, interpolation="nearest", aspect="auto")
    middle = side * factor / 2
    axis.set_yticks([number * step + middle for number in range(len(rows))], names)
    axis.set_xticks([column * step + middle for column in range(across)] if columns else [], columns or [])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel(words)
    figure.text(EDGE / whole[0], 1 - EDGE / 2 / whole[1], "\n".join(lines), va="top", fontsize=10)
    return figure, axis


def _bars(axis: Axes, order: NDArray[np.intp], values: Array, active: NDArray[np.bool_]) -> None:
    axis.bar(np.arange(len(order)), values, color=np.where(active, BLUE, GREY).tolist(), width=0.85)
    axis.set_xlim(-0.6, len(order) - 0.4)
    _channel_ticks(axis.xaxis, order)


def _channel_ticks(axis: Axis, order: NDArray[np.intp], offset: float = 0.0) -> None:
    """Numbers of the channels, as many as can be read."""
    every = -(-len(order) // 32)
    axis.set_ticks((np.arange(0, len(order), every) + offset).tolist(), [str(n) for n in order[::every]], fontsize=8)


def _scatter_groups(axis: Axes, places: Array, labels: Sequence[str] | None) -> int:
    """The largest groups with a colour and marker each, the rest in grey; how many entries of a legend that makes."""
    if labels is None:
        axis.scatter(places[:, 0], places[:, 1], s=18, color=BLUE, label="tiles")
        return 1
    names = np.array(labels)
    largest = [name for name, _ in sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))]
    kept = sorted(largest[: len(GROUPS)])
    others = ~np.isin(names, kept)
    if others.any():
        axis.scatter(places[others, 0], places[others, 1], s=10, color=GREY, label=f"{len(largest) - len(kept)} others")
    for name, (colour, marker) in zip(kept, GROUPS, strict=False):
        axis.scatter(
            places[names == name, 0],
            places[names == name, 1],
            s=20,
            color=colour,
            marker=marker,
            linewidths=0,
            label=name,
        )
    return len(kept) + int(others.any())

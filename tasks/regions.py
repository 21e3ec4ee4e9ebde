"""Per-region overlap: how much of each event a heatmap covers, each event counting the same however large it is.

Bergmann et al. 2021 ("The MVTec Anomaly Detection Dataset", IJCV 129): at a threshold, the overlap is the share of an
event's pixels above it, averaged over the events; the false-positive rate is the share of all other pixels above it.
PRO is the area below the overlap up to a false-positive rate of 0.3, divided by 0.3: 1 is perfect.

A pixel without a score can neither be found nor be a false alarm, and does not count. An event without a single scored
pixel is left out and counted as unseen. Both are reported, since a heatmap of few pixels could look better than it is.

Scenes are read some rows at a time: scores are counted in bins of 0.2 %, each event has counts of its own, and an event
that goes on in the next rows is joined there. So memory grows with the events, not with the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from tasks.intervals import LEVEL, REPETITIONS, Interval, draws, percentile_interval

FPR_LIMIT = 0.3
NEIGHBOURS = np.ones((3, 3), dtype=int)  # pixels that touch at a corner belong together
DROPPED_BITS = 14  # of the 23 of a float32's mantissa: scores closer than 1/512 of their value share a bin
MOST_BINS = 1 << (31 - DROPPED_BITS)  # of positive numbers, and of negative ones

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class RegionCounts:
    """What is left of heatmaps and masks: enough for PRO, and small.

    Attributes:
        bins: (K,) numbers of the score bins that are used, ascending.
        normal: (K,) pixels outside of the regions, by bin.
        overlap: (K,) share of each region's scored pixels by bin, summed over the regions.
        regions: Regions with a scored pixel.
        unseen: Regions without.
        region_pixels: Pixels of all regions.
        masked_pixels: How many of these have no score.
    """

    bins: Integers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    normal: Floats = field(default_factory=lambda: np.empty(0))
    overlap: Floats = field(default_factory=lambda: np.empty(0))
    regions: int = 0
    unseen: int = 0
    region_pixels: int = 0
    masked_pixels: int = 0

    @classmethod
    def merged(cls, parts: Iterable[RegionCounts]) -> RegionCounts:
        """Of several scenes together."""
        parts = list(parts)
        bins, (normal, overlap) = _on_common_bins(parts)
        return cls(
            bins,
            normal.sum(axis=0),
            overlap.sum(axis=0),
            sum(part.regions for part in parts),
            sum(part.unseen for part in parts),
            sum(part.region_pixels for part in parts),
            sum(part.masked_pixels for part in parts),
        )


class RegionCounter:
    """Counts one scene, some rows at a time, top to bottom."""

    def __init__(self) -> None:
        self._labels = 0
        self._joined: list[tuple[int, int]] = []
        self._above: NDArray[np.int64] | None = None
        self._normal: list[tuple[Integers, Integers]] = []  # (bins, pixels)
        self._regions: list[tuple[Integers, Integers, Integers, Integers]] = []  # see `_pairs`

    def add(self, scores: NDArray[np.float32], mask: Bools) -> None:
        """Take the next rows.

        Args:
            scores: (rows, W) heatmap, NaN for no score.
            mask: (rows, W) True where there is an event.
        """
        if scores.shape != mask.shape:
            raise ValueError(f"a heatmap of {scores.shape} pixels and a mask of {mask.shape}: they must be on one grid")
        scored = np.isfinite(scores)
        bins, pixels = np.unique(score_bins(scores[scored & ~mask]), return_counts=True)
        self._normal.append((bins, pixels))
        labels = self._label(mask)
        inside = mask & scored
        self._regions.append(_pairs(labels[inside], score_bins(scores[inside]), scored=True))
        self._regions.append(_pairs(labels[mask & ~scored], None, scored=False))

    def finish(self) -> RegionCounts:
        """The counts of all rows."""
        bins, normal = _summed([pair[0] for pair in self._normal], [pair[1] for pair in self._normal])
        region, scored, binned, pixels = self._by_region()
        sizes = np.bincount(region[scored], pixels[scored], minlength=int(region.max(initial=-1)) + 1)
        present = np.unique(region)
        seen = int((sizes[present] > 0).sum()) if len(present) else 0
        inside, share = _summed([binned[scored]], [pixels[scored] / sizes[region[scored]]])
        everything = np.union1d(bins, inside)
        return RegionCounts(
            everything,
            _placed(everything, bins, normal),
            _placed(everything, inside, share),
            regions=seen,
            unseen=len(present) - seen,
            region_pixels=int(pixels.sum()),
            masked_pixels=int(pixels[~scored].sum()),
        )

    def _label(self, mask: Bools) -> NDArray[np.int64]:
        """A number for each region of these rows, 0 outside; those that go on from above are noted to be joined."""
        found, count = label(mask, NEIGHBOURS)
        labels = np.where(mask, found.astype(np.int64) + self._labels, 0)
        self._labels += count
        if self._above is not None:
            first = np.pad(labels[0], 1)
            for shift in range(3):
                other = first[shift : shift + len(self._above)]
                both = (self._above > 0) & (other > 0)
                self._joined += {(int(a), int(b)) for a, b in zip(self._above[both], other[both], strict=True)}
        self._above = labels[-1].copy()
        return labels

    def _by_region(self) -> tuple[Integers, Bools, Integers, Integers]:
        """Region, whether scored, bin and pixels of every entry, parts of one region under one number."""
        labels, bins, pixels, scored = (
            np.concatenate([entry[column] for entry in self._regions]) if self._regions else np.empty(0, np.int64)
            for column in range(4)
        )
        parent = np.arange(self._labels + 1)

        def root(number: int) -> int:
            while parent[number] != number:
                parent[number] = parent[parent[number]]
                number = int(parent[number])
            return number

        for one, other in self._joined:
            first, second = sorted((root(one), root(other)))
            parent[second] = first
        roots = np.array([root(number) for number in range(len(parent))])
        return roots[labels], scored.astype(bool), bins, pixels


def score_bins(scores: NDArray[np.floating]) -> Integers:
    """(N,) the bin of each score: greater scores lie in greater bins, whatever their scale.

    A float32, read as an integer, is in order; its last bits are left out.
    """
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    ordered = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    return ordered >> DROPPED_BITS


def count_regions(scores: NDArray[np.float32], mask: Bools) -> RegionCounts:
    """The counts of a heatmap (H, W), NaN for no score, and a mask (H, W), True where there is an event."""
    counter = RegionCounter()
    counter.add(scores, mask)
    return counter.finish()


def pro(heatmaps: Iterable[NDArray[np.float32]], masks: Iterable[Bools], limit: float = FPR_LIMIT) -> float:
    """Per-region overlap of some heatmaps with the events of their scenes.

    Args:
        heatmaps: (H, W) each, NaN for no score.
        masks: (H, W) each, True where there is an event; regions are its 8-connected parts.
        limit: False-positive rate up to which is integrated.

    Returns:
        0–1; NaN without a region, or without a pixel outside of one, that has a score.
    """
    pairs = zip(heatmaps, masks, strict=True)
    return pro_of(RegionCounts.merged(count_regions(scores, mask) for scores, mask in pairs), limit)


def pro_of(counts: RegionCounts, limit: float = FPR_LIMIT) -> float:
    """PRO of scenes that were counted; see `pro`."""
    return _area(*_curve(counts.normal, counts.overlap, counts.regions), limit)


def pro_curve(counts: RegionCounts) -> tuple[Floats, Floats]:
    """False-positive rate and mean overlap at every threshold, the highest first; empty where PRO is not defined."""
    return _curve(counts.normal, counts.overlap, counts.regions)


def pro_bootstrap(
    groups: Sequence[RegionCounts],
    others: Sequence[RegionCounts] | None = None,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    limit: float = FPR_LIMIT,
    level: float = LEVEL,
) -> Interval:
    """PRO of all groups together, with the interval that comes of drawing groups with replacement.

    Args:
        groups: The counts of each group (a location, or a date).
        others: Those of another heatmap of the same groups: then of the difference, drawn together.
        repetitions: How often groups are drawn.
        seed: Of the draws.
        limit: See `pro`.
        level: Coverage of the interval, 0–1.
    """
    stacks = [_on_common_bins(list(side))[1] for side in (groups, others) if side is not None]
    numbers = [np.array([part.regions for part in side]) for side in (groups, others) if side is not None]

    def value(times: Integers) -> float:
        found = [
            _area(*_curve(times @ normal, times @ overlap, int(times @ regions)), limit)
            for (normal, overlap), regions in zip(stacks, numbers, strict=True)
        ]
        return found[0] - found[1] if others is not None else found[0]

    drawn = (value(times) for times in draws(len(groups), repetitions, seed))
    return percentile_interval(value(np.ones(len(groups), dtype=np.int64)), drawn, len(groups), level)


def _curve(normal: Floats, overlap: Floats, regions: int) -> tuple[Floats, Floats]:
    if not regions or not normal.sum():
        return np.empty(0), np.empty(0)
    false = np.concatenate([[0.0], np.cumsum(normal[::-1]) / normal.sum()])
    return false, np.concatenate([[0.0], np.cumsum(overlap[::-1]) / regions])


def _area(false: Floats, overlap: Floats, limit: float) -> float:
    """Below the curve up to a false-positive rate, divided by it."""
    if not len(false):
        return float("nan")
    end = int(np.searchsorted(false, limit, side="right"))
    at_limit = np.interp(limit, false[end - 1 : end + 1], overlap[end - 1 : end + 1])
    return float(np.trapezoid([*overlap[:end], at_limit], [*false[:end], limit]) / limit)


def _pairs(labels: Integers, bins: Integers | None, scored: bool) -> tuple[Integers, Integers, Integers, Integers]:
    """(label, bin, pixels, scored) of each pair that is there; without bins, of each label."""
    keys = labels * 2 * MOST_BINS + MOST_BINS + (0 if bins is None else bins)  # one number sorts faster than two
    pairs, pixels = np.unique(keys, return_counts=True)
    label_of, bin_of = np.divmod(pairs, 2 * MOST_BINS)
    bin_of -= MOST_BINS
    return label_of, bin_of, pixels, np.full(len(pixels), scored, dtype=np.int64)


def _summed(keys: Sequence[Integers], values: Sequence[NDArray]) -> tuple[Integers, Floats]:
    """The sum of the values of each key, keys ascending."""
    key = np.concatenate(keys) if keys else np.empty(0, np.int64)
    unique, place = np.unique(key, return_inverse=True)
    return unique, np.bincount(place, np.concatenate(values) if values else None, minlength=len(unique)).astype(float)


def _placed(bins: Integers, some: Integers, values: Floats) -> Floats:
    """Values of some bins among all."""
    found = np.zeros(len(bins))
    found[np.searchsorted(bins, some)] = values
    return found


def _on_common_bins(parts: Sequence[RegionCounts]) -> tuple[Integers, tuple[Floats, Floats]]:
    """The bins of all parts, and `normal` and `overlap` of each part on them, (parts, K) each."""
    bins = np.unique(np.concatenate([part.bins for part in parts])) if parts else np.empty(0, np.int64)
    normal = np.array([_placed(bins, part.bins, part.normal) for part in parts]).reshape(len(parts), len(bins))
    overlap = np.array([_placed(bins, part.bins, part.overlap) for part in parts]).reshape(len(parts), len(bins))
    return bins, (normal, overlap)

"""What drift is measured on: histograms on fixed bins, one set for each location and date.

They merge by adding counts, so training scenes are visited once and never kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from vae.errors import DriftError

BAND_BINS = 96  # over [-clip, clip], normalised units
LATENT_BINS, LATENT_RANGE = 96, 6.0  # over ± this many prior standard deviations
SCORE_BINS, SCORE_DECADES = 240, (-6.0, 6.0)  # over log10 of the score above the least it can be


@dataclass(frozen=True)
class Histograms:
    """Counts of one location and date, or of several added up.

    Args:
        bands: Names.
        clip: The bins of the bands reach from -clip to clip.
        values: (C, 96) counts of the normalised values of the valid pixels.
        latent: (L, 96) counts of the tiles' latent means.
        scores: (240,) counts of the tiles' log10 scores.
        tiles: How many tiles were counted.
    """

    bands: tuple[str, ...]
    clip: float
    values: np.ndarray
    latent: np.ndarray
    scores: np.ndarray
    tiles: int

    def __add__(self, other: Histograms) -> Histograms:
        if (self.bands, self.clip, self.latent.shape) != (other.bands, other.clip, other.latent.shape):
            raise DriftError("histograms of different detectors cannot be added: compute them again with one detector")
        return Histograms(
            self.bands,
            self.clip,
            self.values + other.values,
            self.latent + other.latent,
            self.scores + other.scores,
            self.tiles + other.tiles,
        )


@dataclass(frozen=True)
class Profile:
    """Histograms by (location, date): what a detector was trained on, or the nights since."""

    entries: Mapping[tuple[str, date], Histograms] = field(default_factory=dict)

    def add(self, location: str, day: date, histograms: Histograms) -> Profile:
        """A profile with these counts added to those of the location and date."""
        return self.merge(Profile({(location, day): histograms}))

    def merge(self, other: Profile) -> Profile:
        """Both together; counts of the same location and date are added, in any order the same."""
        entries = dict(self.entries)
        for key, histograms in other.entries.items():
            entries[key] = entries[key] + histograms if key in entries else histograms
        return Profile(dict(sorted(entries.items())))

    def pooled(self, days: Collection[date]) -> dict[str, Histograms]:
        """The histograms of some dates together, by location."""
        found: dict[str, Histograms] = {}
        for (location, when), histograms in self.entries.items():
            if when in days:
                found[location] = found[location] + histograms if location in found else histograms
        return found

    def usable_dates(self, min_tiles: int) -> list[date]:
        """Dates with at least so many tiles over all locations, in order."""
        tiles: dict[date, int] = {}
        for (_, when), histograms in self.entries.items():
            tiles[when] = tiles.get(when, 0) + histograms.tiles
        return sorted(when for when, number in tiles.items() if number >= min_tiles)

    @property
    def dates(self) -> list[date]:
        """All dates, in order."""
        return sorted({day for _, day in self.entries})

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What describes it, for JSON, and its arrays; the inverse of `from_arrays`."""
        entries = list(self.entries.values())
        about = {
            "bands": list(entries[0].bands) if entries else [],
            "clip": entries[0].clip if entries else 0.0,
            "entries": [
                [location, day.isoformat(), self.entries[location, day].tiles] for location, day in self.entries
            ],
        }
        arrays = {name: np.stack([getattr(entry, name) for entry in entries]) for name in _ARRAYS} if entries else {}
        return about, arrays

    @classmethod
    def from_arrays(cls, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Profile:
        """Rebuild from what `to_arrays` gave."""
        bands, clip = tuple(about["bands"]), float(about["clip"])
        return cls(
            {
                (location, date.fromisoformat(day)): Histograms(
                    bands, clip, tiles=int(tiles), **{name: arrays[name][number] for name in _ARRAYS}
                )
                for number, (location, day, tiles) in enumerate(about["entries"])
            }
        )


_ARRAYS = ("values", "latent", "scores")


def histograms(
    bands: Sequence[str],
    clip: float,
    x: np.ndarray,
    valid: np.ndarray,
    latent: np.ndarray,
    scores: np.ndarray,
    least_score: float = 0.0,
) -> Histograms:
    """Count the tiles that have a score; the remains of clouded ones would tell of clouds.

    Args:
        bands: Names of the C bands.
        clip: Normalised values lie within ± this.
        x: (N, C, H, W) normalised.
        valid: (N, H, W) bool.
        latent: (N, L) each tile's spatial mean of each latent channel; L is 0 of a detector without a network.
        scores: (N,) NaN for a tile without a score.
        least_score: The smallest value the score can take.
    """
    scored = np.isfinite(scores)
    x, valid = x[scored], valid[scored].astype(bool)
    decades = np.log10(np.maximum(scores[scored] - least_score, 10.0 ** SCORE_DECADES[0]))
    return Histograms(
        tuple(bands),
        float(clip),
        np.stack([_count(x[:, band][valid], BAND_BINS, -clip, clip) for band in range(len(bands))]),
        np.array(
            [_count(channel, LATENT_BINS, -LATENT_RANGE, LATENT_RANGE) for channel in latent[scored].T], dtype=np.int64
        ).reshape(-1, LATENT_BINS),
        _count(decades, SCORE_BINS, *SCORE_DECADES),
        int(scored.sum()),
    )


def _count(values: np.ndarray, bins: int, low: float, high: float) -> np.ndarray:
    """(bins,) int64 counts; what lies outside goes to the outermost bins."""
    where = np.floor((values.astype(np.float64) - low) * (bins / (high - low)))
    return np.bincount(np.clip(where, 0, bins - 1).astype(np.int64), minlength=bins)

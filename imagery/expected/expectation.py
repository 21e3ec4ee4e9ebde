"""The expectation of a scene: how tonight follows from earlier scenes of its place, and how the newest of them did.

Haze, the rims of clouds and their shadows differ from what was expected as events do, but are gone by the next clear
date. So the newest earlier scene, the *witness*, predicts nothing: it is itself compared with what the scenes before it
let expect, by a map of its own over the same predictors. What differs on both dates lies on the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from rasterio.windows import Window

from configs.schema import AlignmentSettings
from imagery.alignment import LEAST_EXPLAINED, Alignment, align_pixels
from imagery.composite import OpenMember, Without
from imagery.expected.features import Mask, Transform, Values, baseline
from imagery.expected.scenes import PastScenes
from imagery.grid import Grid
from imagery.reading import SceneReader
from imagery.records import SceneRecord
from imagery.reference import Member
from imagery.registration import sample_windows
from imagery.robust import Floats, deviation, evenly

LEAST = 2  # scenes that must be left to predict, or none is a witness
MOST_PIXELS = 30_000  # that a map is fitted on
FIELD_PIXELS = 6000  # that one is fitted on to see what it explains elsewhere
FIELDS, LARGEST_FIELD = 3, 128  # along the shorter side, and in pixels


@dataclass(frozen=True)
class Expectation:
    """How a scene follows from earlier scenes of its place.

    Attributes:
        bands: Names of the C bands.
        transform: The units that surfaces are compared in; those of the numbers of both maps.
        regressors: The scenes that predict, oldest first.
        witness: The newest earlier scene, when enough are left without it.
        scene: The map from the predictors to the scene.
        witness_map: The map from the same predictors to the witness.
    """

    bands: tuple[str, ...]
    transform: Transform
    regressors: tuple[Member, ...]
    witness: Member | None
    scene: Alignment
    witness_map: Alignment | None

    @property
    def members(self) -> tuple[Member, ...]:
        """All scenes it is made of, oldest first."""
        return (*self.regressors, self.witness) if self.witness else self.regressors

    @property
    def reason(self) -> str | None:
        """Why the scene is not to be compared with what was expected, in words; None when it is."""
        return self.scene.reason

    @property
    def confirms(self) -> bool:
        """Whether there is a witness that can be compared too."""
        return self.witness_map is not None and self.witness_map.reason is None

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "bands": list(self.bands),
            "transform": asdict(self.transform),
            "regressors": [member.to_record() for member in self.regressors],
            "witness": self.witness and self.witness.to_record(),
            "scene": self.scene.to_record(),
            "witness_map": self.witness_map and self.witness_map.to_record(),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Expectation:
        """The inverse of `to_record`."""
        return cls(
            tuple(record["bands"]),
            Transform(**record["transform"]),
            tuple(map(Member.from_record, record["regressors"])),
            record["witness"] and Member.from_record(record["witness"]),
            Alignment.from_record(record["scene"]),
            record["witness_map"] and Alignment.from_record(record["witness_map"]),
        )


def split_witness(members: Sequence[SceneRecord]) -> tuple[list[SceneRecord], SceneRecord | None]:
    """The scenes that predict, and the one that bears witness: the newest, when enough are left without it.

    Args:
        members: Earlier scenes, oldest first.
    """
    if len(members) <= LEAST:
        return list(members), None
    return list(members[:-1]), members[-1]


def expect(
    scene: SceneReader,
    members: Sequence[SceneRecord],
    open_member: OpenMember,
    bands: tuple[str, ...],
    transform: Transform,
    settings: AlignmentSettings,
    without: Without | None = None,
) -> Expectation:
    """Fit what earlier scenes say of a scene, on pixels spread over it.

    Args:
        scene: The open scene, on its location's grid.
        members: Earlier scenes of the place, at least one, oldest first.
        open_member: Opens one on the same grid.
        bands: Names of the C bands.
        transform: The units that surfaces are compared in.
        settings: How many pixels are needed, and which gains are trusted.
        without: Tiles of the earlier scenes whose pixels do not count, here and whenever the expectation is read.

    Raises:
        MemberUnreadable: An earlier scene that cannot be read.
        SceneUnreadable: A block of the scene that cannot be read.
        SceneUnreachable: A scene that lies elsewhere and cannot be reached just now.
    """
    regressors, witness = split_witness(members)
    tonight, before = _Sample(), _Sample()
    windows = sample_windows(scene.grid)
    most = max(MOST_PIXELS // len(windows), 1)
    opened = PastScenes(regressors, witness, open_member, scene.grid, len(bands), transform, without=without)
    with opened as past:
        for window in windows:
            seen, field = past.read(window), _field(window, scene.grid)
            for sample, pixels in ((tonight, scene.read(window)), (before, seen.witness)):
                if pixels:
                    values, counts = transform.forward(pixels.values), seen.usable & pixels.valid
                    sample.add(seen.features, values, field, counts, most)
    own = baseline(len(regressors), len(bands))
    return Expectation(
        bands,
        transform,
        tuple(Member.of(record, without) for record in regressors),
        Member.of(witness, without) if witness else None,
        _fitted(tonight.pixels, bands, settings, own),
        _fitted(before.pixels, bands, settings, own) if witness else None,
    )


class _Pixels(NamedTuple):
    """(P, N) predictors, (C, N) values, and (1, N) which of the two kinds of fields each lies in."""

    predictors: Values
    values: Values
    field: Mask


def _fitted(pixels: _Pixels, bands: tuple[str, ...], settings: AlignmentSettings, own: Floats) -> Alignment:
    """The map, and how much it explains of ground that it was not fitted on.

    Ground is much the same over many pixels, so there are fewer of them to tell apart than there seem. With dozens of
    predictors a map explains a lot of any small scene that it is fitted on: of one turned upside down, with a third of
    its pixels valid, more than half, and of one it was not fitted on, nothing.
    """
    found = align_pixels(pixels.predictors, pixels.values, bands, settings, own)
    if found.reason:
        return found
    explained = _explained_elsewhere(pixels, bands, settings, own)
    contrasts = explained[np.isfinite(explained)]
    share = max(contrasts.mean(), 0) if contrasts.size else 0
    if share >= LEAST_EXPLAINED:
        return replace(found, explained=explained)
    reason = (
        f"the earlier scenes explain {share:.0%} of what is seen where they were not fitted to it, "
        f"{LEAST_EXPLAINED:.0%} are needed: they have little in common, or too little of the scene is seen"
    )
    return replace(found, explained=explained, reason=reason)


def _explained_elsewhere(pixels: _Pixels, bands: tuple[str, ...], settings: AlignmentSettings, own: Floats) -> Floats:
    """(C,) share of the robust variance of fields that a map fitted on the others explains; NaN without contrast."""
    few = settings.model_copy(update={"max_pixels": FIELD_PIXELS})
    values = pixels.values.astype(np.float64)
    left = np.empty_like(values)
    for fitted in (pixels.field[0], ~pixels.field[0]):
        by = align_pixels(pixels.predictors[:, fitted], values[:, fitted], bands, few, own)
        expected = by.matrix @ pixels.predictors[:, ~fitted] + by.offset[:, None]
        left[:, ~fitted] = values[:, ~fitted] - expected
    contrast = deviation(values - np.median(values, axis=1)[:, None])
    return np.where(contrast > 0, 1 - np.square(deviation(left) / np.where(contrast > 0, contrast, 1)), np.nan)


def _field(window: Window, grid: Grid) -> Mask:
    """(1, H, W) the black and the white fields of a chessboard on the grid."""
    side = min(max(min(grid.height, grid.width) // FIELDS, 1), LARGEST_FIELD)
    rows, columns = (np.arange(span.start, span.stop) // side for span in window.toslices())
    return (rows[:, None] + columns)[None] % 2 == 0


class _Sample:
    """Pixels picked from window after window."""

    def __init__(self) -> None:
        self._picked: list[_Pixels] = []

    def add(self, predictors: Values, values: Values, field: Mask, counts: Mask, most: int) -> None:
        """Pick at most so many of the pixels that count of (P, H, W), (C, H, W) and (1, H, W)."""
        there = np.flatnonzero(counts)
        some = there[evenly(len(there), most)]
        arrays: list[Any] = [image.reshape(len(image), -1)[:, some] for image in (predictors, values, field)]
        self._picked.append(_Pixels(*arrays))

    @property
    def pixels(self) -> _Pixels:
        """All that was picked."""
        return _Pixels(*(np.concatenate(parts, axis=1) for parts in zip(*self._picked, strict=True)))

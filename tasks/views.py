"""What the pages show, as plain data: numbers, words and pictures, gathered by `tasks.report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class FlagView:
    """One flagged tile and its evidence.

    Attributes:
        tile_id: The tile.
        location: The place it belongs to.
        acquired: When the scene was taken (ISO 8601, UTC).
        score: Higher = more anomalous.
        p_value: Share of normal tiles with such a score; None when not calibrated.
        threshold: The score that had to be passed.
        latitude: Of the tile's centre, degrees north (WGS 84).
        longitude: Of the tile's centre, degrees east.
        valid_fraction: Share of the tile's pixels that are usable.
        pictures: Name to data URI, in the order they are shown. A flag without pictures becomes a row of a table.
        band_errors: Band to its share of what is not as expected where the score is highest (0 to 1).
        parts: Part of the score to its share there (0 to 1).
        judged: How it was judged, where that is not the usual way.
        history: (date, score) of the same tile, oldest first, tonight last.
        heatmap_file: Where the heatmap raster lies.
        window: The tile on its location's map: left, top, width and height as shares of the map (0 to 1).
    """

    tile_id: str
    location: str
    acquired: str
    score: float
    p_value: float | None
    threshold: float
    latitude: float
    longitude: float
    valid_fraction: float
    pictures: Mapping[str, str] = field(default_factory=dict)
    band_errors: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    judged: str = ""
    history: Sequence[tuple[str, float]] = ()
    heatmap_file: str = ""
    window: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class SceneView:
    """One scene of the night.

    `level` is how many times the usual its tiles score, which is taken out of their scores; `alarm` says why the scene
    as a whole is unusual. `cloud_fraction` is a share or None when unknown, and `usual` says what it was compared with,
    and how it lies to that.
    """

    location: str
    acquired: str
    tiles: int
    scored: int
    flags: int
    level: float | None
    cloud_fraction: float | None
    status: Literal["scored", "quarantined", "too cloudy", "not trained"]
    reason: str = ""
    usual: str = ""
    alarm: str = ""


@dataclass(frozen=True)
class DriftRow:
    """One drift statistic; it alarms when its value passes its limit."""

    name: str
    value: float
    limit: float


@dataclass(frozen=True)
class DriftView:
    """Whether tonight's input still is what the detector was made for; `history` holds (date, value / limit)."""

    verdict: Literal["no drift", "drift", "not enough clear tiles"]
    reasons: Sequence[str] = ()
    rows: Sequence[DriftRow] = ()
    history: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class QuarantineView:
    """A scene that was set aside: at which step, and why, in words a person can act on."""

    scene: str
    step: str
    reason: str


@dataclass(frozen=True)
class CheckView:
    """One check of one scene, of one band or column of it where there is one."""

    scene: str
    check: str
    column: str
    severity: Literal["critical", "warning", "info"]
    observed: str
    expected: str
    passed: bool


@dataclass(frozen=True)
class ValidationView:
    """All checks of a run."""

    name: str
    night: str
    checks: Sequence[CheckView] = ()
    created: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NightView:
    """Everything the page of one night shows.

    Attributes:
        name: Name of the watch.
        night: Which night.
        detector_version: The detector that scored.
        calibration_id: The calibration that gave p-values and threshold.
        basis: What the calibration rests on; anything but "held_out" is said at the top.
        nominal_rate: Share of normal tiles that may be flagged.
        tiles: How many tiles the night's scenes have.
        scored: How many of them got a score.
        flagged: How many of those are flagged; `flags` may hold fewer.
        observed_rate: Share of the scored tiles that are flagged; None: worked out.
        flags: Flagged tiles in any order.
        scenes: All scenes of the night, quarantined ones included.
        quarantined: What was set aside, and why.
        drift: None when drift was not looked at.
        checks: The checks of the night's scenes; they are summed up by scene.
        maps: Location to the data URI of its map.
        details: More about the detector, name to value.
        links: Label to address; schemes other than http, https, file and mailto are not followed.
        created: When the page was made; part of the view, so that the same view gives the same bytes.
    """

    name: str
    night: str
    detector_version: str
    calibration_id: str
    basis: str
    nominal_rate: float
    tiles: int
    scored: int
    flagged: int
    observed_rate: float | None = None
    flags: Sequence[FlagView] = ()
    scenes: Sequence[SceneView] = ()
    quarantined: Sequence[QuarantineView] = ()
    drift: DriftView | None = None
    checks: Sequence[CheckView] = ()
    maps: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

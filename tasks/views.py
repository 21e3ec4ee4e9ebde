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
        threshold: The score that had to be passed, after people's verdicts.
        latitude: Of the tile's centre, degrees north (WGS 84).
        longitude: Of the tile's centre, degrees east.
        valid_fraction: Share of the tile's pixels that are usable.
        pictures: Name to data URI, in the order they are shown. A flag without pictures becomes a row of a table.
        band_errors: Band to its share of what is not as expected where the score is highest (0 to 1).
        parts: Part of the score to its share there (0 to 1).
        judged: How it was judged, where that is not the usual way.
        history: (date, score) of the same tile, oldest first, tonight last.
        files: What else is known of its scene: label to path, relative to the page in the workspace.
        window: The tile on its location's map: left, top, width and height as shares of the map (0 to 1).
        scene: Whose map that is.
        raised_from: The threshold before people's verdicts, where they raised it.
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
    files: Mapping[str, str] = field(default_factory=dict)
    window: tuple[float, float, float, float] | None = None
    scene: str = ""
    raised_from: float | None = None


@dataclass(frozen=True)
class PlaceView:
    """Flags that touch, as one place.

    Attributes:
        location: Where it is.
        tiles: How many tiles it has.
        area: Square metres.
        latitude: Of its middle, degrees north (WGS 84).
        longitude: Of its middle, degrees east.
        flags: Its flags in any order; a tile that is flagged on two scenes is there twice.
    """

    location: str
    tiles: int
    area: float
    latitude: float
    longitude: float
    flags: Sequence[FlagView]


@dataclass(frozen=True)
class SuppressedView:
    """A tile that passes the threshold of the detector and is no flag, because of what people have said.

    Attributes:
        tile_id: The tile.
        location: The place it belongs to.
        acquired: When the scene was taken (ISO 8601, UTC).
        score: Higher = more anomalous.
        threshold: The detector's, which the score passes.
        bar: What the score would have to pass here.
        p_value: Share of normal tiles with such a score, after people's verdicts.
        reason: Why it is no flag, in words.
        alike: The confirmed false alarm that it looks like; '' when that is not the reason.
        latitude: Of the tile's centre, degrees north (WGS 84).
        longitude: Of the tile's centre, degrees east.
        window: The tile on its location's map, as in `FlagView`.
        scene: Whose map that is.
    """

    tile_id: str
    location: str
    acquired: str
    score: float
    threshold: float
    bar: float
    p_value: float | None
    reason: str
    alike: str
    latitude: float
    longitude: float
    window: tuple[float, float, float, float] | None = None
    scene: str = ""


@dataclass(frozen=True)
class AskedView:
    """How many tiles people are asked about, by why they were chosen."""

    flag: int = 0
    suppressed: int = 0
    sample: int = 0


@dataclass(frozen=True)
class LastNights:
    """What the nights before brought: how many there were, since when, and their mean number of flags."""

    nights: int
    since: str
    flags: float


@dataclass(frozen=True)
class ReviewedRow:
    """What people said of the flags of one group, and which share of them were anomalies, with its interval."""

    group: str
    anomalies: int
    false_alarms: int
    clouds: int
    bad: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class EstimateView:
    """Anomalies found among tiles drawn at random, and how many that makes among those they were drawn from."""

    asked: int
    anomalies: int
    tiles: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ReviewedView:
    """What people have said of the last days.

    Attributes:
        days: How many days.
        overall: All flags together.
        locations: The same by location.
        missed: Among tiles below their threshold; None when none of them was reviewed.
        wrongly_suppressed: Among suppressed flags; None when none of them was reviewed.
    """

    days: int
    overall: ReviewedRow | None = None
    locations: Sequence[ReviewedRow] = ()
    missed: EstimateView | None = None
    wrongly_suppressed: EstimateView | None = None


@dataclass(frozen=True)
class MapView:
    """A scene as a map.

    Attributes:
        scene: Which one.
        location: Where it is.
        acquired: When it was taken (ISO 8601, UTC).
        size: Width and height of its grid, pixels.
        ground: Data URI of what it looks like; '' when it can no longer be read.
        odds: Data URI of all its tiles, coloured by p-value.
        tile: Height and width of a tile, pixels.
        rows: Where tiles begin from the top, pixels, rising.
        columns: Where they begin from the left.
        scores: Of the tiles, row by row; None without one.
        once_in: One in how many normal tiles has such a score, row by row; 0 when not calibrated.
    """

    scene: str
    location: str
    acquired: str
    size: tuple[int, int]
    ground: str
    odds: str
    tile: tuple[int, int]
    rows: Sequence[int] = ()
    columns: Sequence[int] = ()
    scores: Sequence[float | None] = ()
    once_in: Sequence[float] = ()


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
        flagged: How many of those are flagged; `places` may hold fewer.
        observed_rate: Share of the scored tiles that are flagged; None: worked out.
        places: Flagged tiles, grouped to places, in any order.
        suppressed: Tiles that are no flags because of what people have said.
        asked: The tiles that people are asked about.
        before: What the nights before brought; None when this is the first one of its detector.
        reviewed: What people have said; None when nothing was said.
        scenes: All scenes of the night, quarantined ones included.
        quarantined: What was set aside, and why.
        drift: None when drift was not looked at.
        checks: The checks of the night's scenes; they are summed up by scene.
        maps: The scenes as maps.
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
    places: Sequence[PlaceView] = ()
    suppressed: Sequence[SuppressedView] = ()
    asked: AskedView = AskedView()
    before: LastNights | None = None
    reviewed: ReviewedView | None = None
    scenes: Sequence[SceneView] = ()
    quarantined: Sequence[QuarantineView] = ()
    drift: DriftView | None = None
    checks: Sequence[CheckView] = ()
    maps: Sequence[MapView] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

"""The calibration of a detector: all that turns the raw scores of a scene into p-values, flags and a scene alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from configs.schema import CalibrationSettings
from vae.calibration.judged import Judged, NightLevel, relative_scores
from vae.calibration.nights import NightModel
from vae.calibration.null import Null, flagged_by_fdr
from vae.calibration.places import PlaceLevels
from vae.calibration.robust import Floats, log_scores
from vae.calibration.scene_alarm import alarm_in_words, beyond
from vae.digests import canonical_json, sha256
from vae.errors import CalibrationError

FEW_TILES = 8  # with fewer, the level of a night is said to be uncertain

Basis = Literal["held_out", "validation", "training"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What normal scenes score, and what it was learned on.

    Attributes:
        score: Name in the registry of scores.
        pool: How pixels became one number.
        least: Smallest value the score can take.
        settings: How it was made, and how a scene is judged.
        basis: Whether the dates were held out, served for early stopping, or were trained on (optimistic).
        bands: Names of the bands, in order.
        detector: Digest of what gave the scores.
        runtime: The backend, device type, dtype and torch version that gave them.
        dates: ISO dates of the calibration scenes.
        tiles: How many scores there were.
        levels: What is usual at each place.
        nights: How the level and spread of a scene are estimated.
        null: Scores of normal tiles, relative to their place and night.
        night_levels: (K,) level of each calibration scene, a logarithm, 0 is usual, ascending.
        night_spreads: (K,) spread of its log scores, ascending.
    """

    score: str
    pool: str
    least: float
    settings: CalibrationSettings
    basis: Basis
    bands: tuple[str, ...]
    detector: str
    runtime: Mapping[str, str]
    dates: tuple[str, ...]
    tiles: int
    levels: PlaceLevels
    nights: NightModel
    null: Null
    night_levels: Floats
    night_spreads: Floats

    def judge(self, scores: np.ndarray, places: Sequence[str] | None = None) -> Judged:
        """Judge all tiles of one scene; a part of a scene would be judged by another level.

        Args:
            scores: (N,) raw scores, NaN without one; in any order.
            places: (N,) tile ids; without them, all places are taken to be alike.
        """
        scores = np.asarray(scores, dtype=np.float64)
        expected = self.levels.of(places, len(scores))
        values = log_scores(scores, self.least) - expected
        known = values[np.isfinite(values)]
        level, spread = self.nights.level(known), self.nights.spread(known)
        less, power = self.nights.taken_out(level, spread)
        usual = np.exp(expected + less)
        relative = relative_scores(scores, self.least, usual, power)
        p_value = self.null.p_values(relative)
        threshold = self._threshold(relative, p_value)
        flagged = relative > threshold
        night = self._night(level, spread, len(known), int(flagged.sum()))
        return Judged(relative, p_value, flagged, threshold, night, "calibrated", self.least, usual, power)

    @property
    def false_alarm_rate(self) -> float:
        """Share of normal tiles that may be flagged."""
        return self.settings.false_alarm_rate

    @property
    def threshold(self) -> float:
        """A greater score is flagged, unless a false discovery rate is asked for."""
        return self.null.threshold(self.false_alarm_rate)

    @property
    def median(self) -> float:
        """What a normal tile scores; about 1."""
        return self.null.median

    @property
    def calibration_id(self) -> str:
        """Short digest of the content."""
        arrays = [part for name, array in sorted(self.arrays().items()) for part in (name.encode(), array.tobytes())]
        return sha256(canonical_json(self.to_dict()), *arrays)[:12]

    def check(self, *, bands: Sequence[str], detector: str, runtime: Mapping[str, str]) -> None:
        """Refuse what it was not made for.

        Raises:
            CalibrationError: Other bands, another detector, or another runtime.
        """
        if tuple(bands) != self.bands:
            raise CalibrationError(
                f"the calibration is of bands {', '.join(self.bands)}, the scores are of {', '.join(bands)}: "
                "calibrate again with these bands"
            )
        if detector != self.detector:
            raise CalibrationError(
                f"the calibration is of detector {self.detector}, the scores are of {detector}: calibrate again"
            )
        different = sorted(key for key in {*self.runtime, *runtime} if self.runtime.get(key) != runtime.get(key))
        if different:
            changes = ", ".join(f"{key} {self.runtime.get(key)} → {runtime.get(key)}" for key in different)
            raise CalibrationError(
                f"the calibration was made by another runtime ({changes}), whose scores differ: calibrate again here"
            )

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {
            "score": self.score,
            "pool": self.pool,
            "least": self.least,
            "settings": self.settings.model_dump(mode="json"),
            "basis": self.basis,
            "bands": list(self.bands),
            "detector": self.detector,
            "runtime": dict(self.runtime),
            "dates": list(self.dates),
            "tiles": self.tiles,
            "threshold": self.threshold,
            "levels": self.levels.to_dict(),
            "nights": self.nights.to_dict(),
            "null": self.null.to_dict(),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, float64 and int64."""
        return {
            "scores": self.null.scores,
            "above": self.null.above,
            "place_levels": self.levels.levels,
            "place_counts": self.levels.counts,
            "night_levels": self.night_levels,
            "night_spreads": self.night_spreads,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Calibration:
        """Rebuild from what `to_dict` and `arrays` gave."""
        return cls(
            score=content["score"],
            pool=content["pool"],
            least=float(content["least"]),
            settings=CalibrationSettings(**content["settings"]),
            basis=content["basis"],
            bands=tuple(content["bands"]),
            detector=content["detector"],
            runtime=dict(content["runtime"]),
            dates=tuple(content["dates"]),
            tiles=int(content["tiles"]),
            levels=PlaceLevels.from_dict(content["levels"], arrays["place_levels"], arrays["place_counts"]),
            nights=NightModel.from_dict(content["nights"]),
            null=Null.from_dict(content["null"], arrays["scores"], arrays["above"]),
            night_levels=np.asarray(arrays["night_levels"], dtype=np.float64),
            night_spreads=np.asarray(arrays["night_spreads"], dtype=np.float64),
        )

    def _threshold(self, relative: Floats, p_value: Floats) -> float:
        if self.settings.fdr is None:
            return self.threshold
        passed = flagged_by_fdr(p_value, self.settings.fdr)
        rest = relative[~passed & np.isfinite(relative)]
        if len(rest):
            return float(rest.max())
        return float(np.nextafter(relative[passed].min(), 0)) if passed.any() else self.threshold

    def _night(self, level: float, spread: float, scored: int, flags: int) -> NightLevel:
        """The scene as a whole; without any scored tile nothing is known of it."""
        if not scored:
            return NightLevel(np.nan, np.nan, np.nan, np.nan, 0.0, None)
        rate = self.settings.scene_rate
        level_p, high = beyond(level, self.night_levels, rate)
        spread_p, wide = beyond(float(np.log(spread)), np.log(self.night_spreads), rate)
        level_ratio, spread_ratio = float(np.exp(level)), spread / self.nights.usual_spread
        wide = wide and self.nights.mode == "standardised"  # else many flags say the same
        alarm = alarm_in_words(
            (level_ratio, level_p, high), (spread_ratio, spread_p, wide), flags, scored, self.false_alarm_rate
        )
        note = None
        if scored < FEW_TILES and self.nights.mode != "off":
            note = (
                f"only {scored} of its tiles have a score: what is unusual of the night is hard to tell from an event"
            )
        return NightLevel(level_ratio, spread_ratio, level_p, spread_p, flags / scored, alarm, note)

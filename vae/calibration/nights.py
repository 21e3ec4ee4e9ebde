"""What all tiles of a night have in common, taken out and judged by itself.

Season, haze and light move all scores of a scene alike. Tiles are exchangeable between nights only after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from vae.calibration.robust import LOG_MAD_VARIANCE, MEDIAN_VARIANCE, Floats, spread

NightMode = Literal["off", "centred", "standardised"]
LEAST_SPREAD = 1e-3  # of log scores: a scene whose tiles all score the same divides by no less
LARGEST_SHIFT = 0.5  # standard errors
STEEPEST = 4.0  # spreads are taken to differ by no more than this factor


@dataclass(frozen=True)
class NightModel:
    """How the level and spread of a scene are estimated from its tiles.

    A scene with few tiles says little of its night: its level is drawn towards the usual one as far as the error of a
    median of n tiles commands (n / (n + level_prior)), and its spread likewise. A level is moved by no more than half
    its standard error (limited translation; Efron & Morris 1971, JASA 66): one that is far off is no chance.

    Attributes:
        mode: off: scores are compared as they are. centred: less the level. standardised: by the spread as well.
        level_prior: Tiles that weigh as much as what is known of all nights.
        usual_spread: Standard deviation of log scores within a night.
        spread_prior: As `level_prior`, for the spread.
    """

    mode: NightMode
    level_prior: float
    usual_spread: float
    spread_prior: float

    def level(self, values: Floats) -> float:
        """The level of a scene whose tiles have these log scores relative to their places; 0 is usual."""
        count = len(values)
        if not count:
            return 0.0
        found = float(np.median(values))
        error = self.usual_spread * float(np.sqrt(MEDIAN_VARIANCE / count))
        drawn = min(abs(found) * self.level_prior / (count + self.level_prior), LARGEST_SHIFT * error)
        return found - float(np.copysign(drawn, found))

    def spread(self, values: Floats) -> float:
        """The spread of a scene's log scores."""
        count = len(values)
        if count < 2:
            return self.usual_spread
        weight = count / (count + self.spread_prior)
        ratio = np.clip(spread(values) / self.usual_spread, 1 / STEEPEST, STEEPEST)
        return self.usual_spread * float(ratio**weight)

    def taken_out(self, level: float, found_spread: float) -> tuple[float, float]:
        """What is subtracted from log scores, and what they are then multiplied by."""
        if self.mode == "off":
            return 0.0, 1.0
        return level, self.usual_spread / found_spread if self.mode == "standardised" else 1.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> NightModel:
        """The inverse of `to_dict`."""
        return cls(**content)


def fit_nights(nights: list[Floats], mode: NightMode) -> NightModel:
    """How much nights differ in level and spread, beyond what few tiles would make of it.

    Args:
        nights: Log scores of each scene, relative to their places.
        mode: What is to be taken out.
    """
    counts = np.array([len(values) for values in nights], dtype=np.float64)
    within = np.concatenate([values - np.median(values) for values in nights])
    freedom = len(within) / max(len(within) - len(nights), 1)  # a median was taken out of each scene
    usual = max(spread(within) * float(np.sqrt(freedom)), LEAST_SPREAD)
    medians = np.array([np.median(values) for values in nights])
    # The median, not the mean, of errors: one scene with a single tile says nothing of the others.
    between = spread(medians) ** 2 - MEDIAN_VARIANCE * usual**2 * float(np.median(1 / counts))
    several = [values for values in nights if len(values) >= 2]
    spreads = np.array([np.log(max(spread(values), LEAST_SPREAD) / usual) for values in several])
    sizes = np.array([len(values) for values in several], dtype=np.float64)
    differing = spread(spreads) ** 2 - LOG_MAD_VARIANCE * float(np.median(1 / sizes)) if len(several) else 0.0
    return NightModel(mode, _prior(MEDIAN_VARIANCE * usual**2, between), usual, _prior(LOG_MAD_VARIANCE, differing))


def _prior(error: float, between: float) -> float:
    """Tiles at which error and true difference balance, within limits: two dates cannot tell that nights are alike."""
    return float(np.clip(error / between if between > 0 else np.inf, 0.1, 20.0))

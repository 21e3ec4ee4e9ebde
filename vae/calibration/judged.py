"""What becomes of the raw scores of one scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vae.calibration.robust import LARGEST, SMALLEST, Floats

JudgedBasis = Literal["calibrated", "in_scene"]


@dataclass(frozen=True)
class NightLevel:
    """A scene as a whole: what all its tiles have in common is no news of a tile, but may be one of the scene.

    Attributes:
        level: How many times the usual its tiles score; 1 is usual. NaN without any score.
        spread: How many times the usual the spread of their logarithms is. NaN where it is not known.
        p_value: Share of calibration scenes with a level as high, this one included; NaN without calibration.
        spread_p_value: The same of the spread.
        flagged_share: Share of the scored tiles that are flagged.
        alarm: Why the scene as a whole is unusual, in words; None when it is not.
        note: What else a reader should know of how it was judged; None when there is nothing.
    """

    level: float
    spread: float
    p_value: float
    spread_p_value: float
    flagged_share: float
    alarm: str | None
    note: str | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """The tiles of one scene, judged.

    Attributes:
        score: (N,) how many times the usual: 1 is as usual for this place on this night. NaN without a score.
        p_value: (N,) NaN without a score.
        flagged: (N,) bool, score > threshold.
        threshold: On the scale of `score`.
        night: The scene as a whole.
        basis: in_scene: no history is behind it, p-values are those of a log-normal distribution and not calibrated.
        least: Smallest value that a raw score can take.
        usual: (N,) how far above `least` a raw score as usual lies.
        power: Raw multiples of the usual are raised to it, where the night's spread is taken out; else 1.
    """

    score: Floats
    p_value: Floats
    flagged: np.ndarray
    threshold: float
    night: NightLevel
    basis: JudgedBasis
    least: float
    usual: Floats
    power: float

    def relative(self, raw: np.ndarray, index: int) -> np.ndarray:
        """A heatmap on the scale of `score`.

        Args:
            raw: Any shape, raw scores of the pixels of tile `index`; NaN stays NaN.
            index: Which tile.

        Returns:
            The same shape and type.
        """
        scaled = relative_scores(np.asarray(raw, dtype=np.float64), self.least, self.usual[index], self.power)
        return scaled.astype(raw.dtype)


def relative_scores(raw: Floats, least: float, usual: Floats | float, power: float) -> Floats:
    """Raw scores as multiples of the usual."""
    above = np.clip(raw - least, SMALLEST, LARGEST)
    with np.errstate(over="ignore", under="ignore"):
        scaled: Floats = np.minimum((above / usual) ** power, LARGEST)
    return scaled

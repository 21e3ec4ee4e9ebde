"""Champion and challenger: is a new detector better than the one that scores, and is that more than chance?

Both look at the same frozen set. What is compared is the average precision with which they rank what shows an anomaly
above what does not, by p-value, since that is what is comparable from scene to scene and from detector to detector.
Tiles of one place and date are alike, so places and dates are drawn as blocks, the same for both detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import Settings, Workspace
from configs.schema import PromotionSettings
from imagery.sources.scene import place_and_day
from tasks.comparing import Seen, see
from tasks.frozen import ROLES, FrozenSet, NothingToCompare, learned
from tasks.intervals import Interval, draws, percentile_interval
from vae.detector import Detector

FEWEST_BLOCKS = 5  # all of them speak for the same detector by chance once in 32 times; of two, every second time
TOLERANCE = 0.02  # average precision that a champion in trouble may be ahead by
CHANCE = 0.01  # too many false alarms are held against a detector only when they come by chance less often than this


@dataclass(frozen=True)
class Found:
    """What one detector shows on a frozen set.

    Attributes:
        version: Which detector, e.g. "v3".
        ap: Average precision of its p-values.
        clean: Clean tiles that it scores.
        flagged: How many of them it flags.
        rate: The share that was asked for.
    """

    version: str
    ap: float
    clean: int
    flagged: int
    rate: float

    @property
    def false_alarms(self) -> float:
        """Share of the clean tiles that is flagged; NaN without any."""
        return self.flagged / self.clean if self.clean else float("nan")

    def floods(self, most: float, beside: float = 0.0) -> bool:
        """Whether it flags more than so many times the rate asked for, and that is no chance (binomial).

        Args:
            most: How many times.
            beside: A share that is to be expected of these tiles, where it is above the rate that was asked for.
        """
        if not self.clean or self.false_alarms <= most * self.rate:
            return False
        from scipy.stats import binom  # when it is asked for: most commands do without scipy

        return bool(binom.sf(self.flagged - 1, self.clean, min(max(self.rate, beside), 1.0)) < CHANCE)


@dataclass(frozen=True)
class Challenge:
    """A comparison and what follows from it.

    Attributes:
        champion: What the detector in force shows.
        challenger: What the new one shows.
        difference: Challenger minus champion in average precision, with its interval, by block.
        better: Whether the challenger should take over.
        words: Why, for a person.
        anomalies: Tiles that show one, injected or seen by people.
        verdicts: How many tiles come from people.
        dates: The clean dates.
        unread: Scenes that could not be read, with the reason.
        kinds: One row a kind: `kind`, `tiles`, and of each detector the share that it flags and the average precision
            against all that shows no anomaly (`recall_champion`, `ap_champion`, …).
    """

    champion: Found
    challenger: Found
    difference: Interval
    better: bool
    words: str
    anomalies: int
    verdicts: int
    dates: tuple[date, ...]
    unread: dict[str, str]
    kinds: pd.DataFrame


def challenge(
    frozen: FrozenSet,
    versions: tuple[str, str],
    detectors: tuple[Detector, Detector],
    drifting: date | None,
    settings: Settings,
    workspace: Workspace,
    on_scene: Callable[[int, int], None] | None = None,
) -> tuple[Challenge, Seen]:
    """Compare the champion with a challenger. The same set, detectors and settings give the same numbers to the bit.

    Args:
        frozen: What they are compared on.
        versions: Of the champion and of the challenger.
        detectors: The two.
        drifting: Since when the champion's nights drift; None when they do not.
        settings: `promotion` says what is asked of the challenger.
        workspace: Where the scenes are catalogued.
        on_scene: Called with (scenes done, scenes in all).

    Returns:
        The comparison, and the tiles that it stands on.

    Raises:
        NothingToCompare: No tile with an anomaly, or none without, could be scored.
    """
    seen = see(frozen, detectors, settings, workspace, on_scene)
    tiles = seen.tiles
    positive = tiles["positive"].to_numpy(dtype=bool)
    if positive.all() or not positive.any():
        raise NothingToCompare(
            f"in the {len(frozen.scenes)} scenes to compare on, no tile {'without' if len(tiles) else 'with'} an "
            "anomaly could be scored"
        )
    both = tuple(ranks(tiles[f"p_value_{number}"], tiles[f"score_{number}"]) for number in (0, 1))
    promotion = settings.promotion
    champion_ap, challenger_ap, difference = paired_difference(
        both[0], both[1], positive, tiles["block"], promotion.repetitions, frozen.seed, promotion.confidence
    )
    champion, challenger = (
        Found(version, ap, seen.clean[number], seen.flagged[number], detector.required_calibration.false_alarm_rate)
        for number, (version, ap, detector) in enumerate(
            zip(versions, (champion_ap, challenger_ap), detectors, strict=True)
        )
    )
    better, why = decide(champion, challenger, difference, promotion, drifting)
    dates = tuple(sorted({place_and_day(scene.scene_id)[1] for scene in frozen.scenes if scene.clean}))
    verdicts = int((tiles["kind"] == "verdict").sum())
    facts = [
        _numbers(champion, challenger, difference, promotion),
        _on_what(dates, int(positive.sum()), verdicts, difference.groups),
        _learned_on(dates, versions, detectors),
        f"{len(seen.unread)} scenes could not be read." if seen.unread else "",
    ]
    words = " ".join([why, *filter(None, facts)])
    found = Challenge(
        champion, challenger, difference, better, words, int(positive.sum()), verdicts, dates, seen.unread,
        _by_kind(tiles, both, positive),
    )  # fmt: skip
    return found, seen


def decide(
    champion: Found, challenger: Found, difference: Interval, settings: PromotionSettings, drifting: date | None
) -> tuple[bool, str]:
    """Whether the challenger takes over, and the reason in words.

    It does when it is shown to find more, and its false alarms are bearable. After a change of the sensor a champion
    may rank tiles as well as ever, since most scores compare with the recent past. But when its false alarms are no
    longer bearable, or a drift lasts, so that its drift alarm would be deaf to the next one, it gives way to a
    challenger that is not shown to find clearly less.

    Events that nobody has looked at yet lie among the clean tiles, and both flag them: that is held against neither.
    """
    old, new, most = champion.version, challenger.version, settings.most_false_alarms
    if challenger.floods(most, champion.false_alarms if champion.clean else 0.0):
        than = " and more than it" if champion.floods(most) else ""
        return False, f"{new} flags more than {most:g} times as many clean tiles as asked for{than}: {old} goes on."
    few = difference.groups < FEWEST_BLOCKS
    if difference.low > -settings.margin and not few:
        if difference.low > 0:
            return True, f"{new} is better than {old}."
        return True, f"{new} is not worse than {old} by more than promotion.margin = {settings.margin:g}."
    worse = (difference.high if difference.groups > 1 else difference.value) < -TOLERANCE
    if champion.floods(most) and not challenger.floods(most) and not worse:
        return True, (
            f"{new} takes over: {old} now flags more than {most:g} times as many clean tiles as asked for, and {new} "
            "is not shown to find clearly less."
        )
    if drifting and settings.in_drift == "not worse" and not worse:
        return (
            True,
            f"{new} takes over: {old} has been in drift since {drifting}, and {new} is not shown to find clearly less.",
        )
    if few:
        blocks = f"{difference.groups} blocks of location and date"
        return False, f"{blocks} are too few to show which one is better, {FEWEST_BLOCKS} are needed: {old} goes on."
    said = "worse" if difference.high < 0 else "not shown to be better"
    return False, f"{new} is {said} than {old}: {old} goes on."


def ranks(p_value: pd.Series, score: pd.Series) -> NDArray[np.float64]:
    """(N,) higher = more anomalous: by p-value, and among equals by score.

    P-values end at one over the number of calibration tiles: a detector that was calibrated on few would otherwise look
    bad at telling anomalies from the rest where it only has no smaller p-value left.
    """
    order = np.lexsort((-score.to_numpy(), p_value.to_numpy()))
    ordered = np.stack([p_value.to_numpy()[order], score.to_numpy()[order]])
    new = np.concatenate([[False], (np.diff(ordered, axis=1) != 0).any(axis=0)])
    found = np.empty(len(order))
    found[order] = -np.cumsum(new)
    return found


def paired_difference(
    champion: NDArray[np.float64],
    challenger: NDArray[np.float64],
    positive: NDArray[np.bool_],
    blocks: Sequence[str] | pd.Series,
    repetitions: int,
    seed: int,
    confidence: float,
) -> tuple[float, float, Interval]:
    """Average precision of two rankings of the same tiles, and the interval of their difference.

    Whole blocks are drawn, the same for both (cluster bootstrap: Field & Welsh 2007). A percentile interval of few
    blocks is too narrow; it is widened as a t interval would be (Hesterberg 2015, "What teachers should know about the
    bootstrap", The American Statistician 69, the expanded percentile interval).

    Args:
        champion: (N,) higher = more anomalous.
        challenger: (N,) likewise.
        positive: (N,) truth.
        blocks: (N,) what is drawn as a whole.
        repetitions: How often.
        seed: Of the draws.
        confidence: Coverage of the interval, 0–1.

    Returns:
        The first one's, the second one's, and second minus first; its ends are NaN with fewer than two blocks.
    """
    names, member = np.unique(np.asarray(blocks, dtype=str), return_inverse=True)
    old, new = (_Ranked(one, positive, member) for one in (champion, challenger))
    once = np.ones(len(names), dtype=np.int64)
    drawn = (new.ap(times) - old.ap(times) for times in draws(len(names), repetitions, seed))
    level = expanded(confidence, len(names))
    return old.ap(once), new.ap(once), percentile_interval(new.ap(once) - old.ap(once), drawn, len(names), level)


def expanded(confidence: float, groups: int) -> float:
    """The level of a percentile interval of a few groups that covers about as often as one of many at `confidence`."""
    if groups < 2:
        return confidence
    from scipy.stats import norm, t  # as above

    width = float(t.ppf((1 + confidence) / 2, groups - 1)) * (groups / (groups - 1)) ** 0.5
    return float(1 - 2 * norm.sf(width))


class _Ranked:
    """Tiles in the order of a ranking, sorted once: average precision of any draw of blocks is then a few sums."""

    def __init__(self, rank: NDArray[np.float64], positive: NDArray[np.bool_], block: NDArray[np.int64]) -> None:
        order = np.argsort(-rank, kind="stable")
        self._positive, self._block = positive[order], block[order]
        self._last = np.flatnonzero(np.append(np.diff(rank[order]) != 0, True))  # of tiles that rank alike

    def ap(self, times: NDArray[np.int64]) -> float:
        """Average precision with each block counted so often; NaN unless there are positives and negatives."""
        weight = times[self._block]
        hits = np.cumsum(weight * self._positive)[self._last].astype(float)
        seen = np.cumsum(weight)[self._last].astype(float)
        if hits[-1] in (0, seen[-1]):
            return float("nan")
        return float((np.diff(hits, prepend=0) * hits / np.maximum(seen, 1)).sum() / hits[-1])


def _by_kind(tiles: pd.DataFrame, both: tuple[NDArray[np.float64], ...], positive: NDArray[np.bool_]) -> pd.DataFrame:
    rows = []
    for kind in sorted(set(tiles.loc[positive, "kind"])):
        those = positive & (tiles["kind"] == kind).to_numpy()
        against = those | ~positive
        member = np.zeros(int(against.sum()), dtype=np.int64)
        row: dict[str, object] = {"kind": kind, "tiles": int(those.sum())}
        for number, name in enumerate(("champion", "challenger")):
            ranked = _Ranked(both[number][against], those[against], member)
            row[f"ap_{name}"] = ranked.ap(np.ones(1, dtype=np.int64))
            row[f"recall_{name}"] = float(tiles.loc[those, f"flagged_{number}"].mean())
        rows.append(row)
    return pd.DataFrame(rows)


def _numbers(champion: Found, challenger: Found, difference: Interval, settings: PromotionSettings) -> str:
    ends = "" if np.isnan(difference.low) else (
        f" ({settings.confidence:.0%} interval {difference.low:.3f} to {difference.high:.3f})"
    )  # fmt: skip
    alarms = ", ".join(
        f"{one.version} flags {one.false_alarms:.1%}" if one.clean else f"{one.version} scores none"
        for one in (challenger, champion)
    )
    return (
        f"Average precision {challenger.ap:.3f} against {champion.ap:.3f}, difference {difference.value:.3f}{ends}. "
        f"Of the clean tiles {alarms}; {challenger.rate:.1%} were asked for."
    )


def _on_what(dates: Sequence[date], anomalies: int, verdicts: int, blocks: int) -> str:
    when = f"{len(dates)} dates from {dates[0]} to {dates[-1]}" if dates else "no clear date"
    told = f", {verdicts} verdicts" if verdicts else ""
    return f"Compared on {when}, {anomalies} anomalies{told}, {blocks} blocks of location and date."


def _learned_on(dates: Sequence[date], versions: Sequence[str], detectors: Sequence[Detector]) -> str:
    """Which of the dates are not news to a detector."""
    told = []
    for version, detector in zip(versions, detectors, strict=True):
        roles = [learned(detector, day) for day in dates]
        for role, did in zip(ROLES, ("calibrated", "stopped the training of", "trained"), strict=True):
            if role in roles:
                told.append(f"{roles.count(role)} of these dates {did} {version}")
    return "; ".join(told) + "." if told else ""

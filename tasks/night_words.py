"""What a night brought, in plain words: the sentences on top of its page."""

from __future__ import annotations

from tasks.page_words import plural, share
from tasks.views import AskedView, EstimateView, LastNights, NightView


def summarise(view: NightView) -> tuple[str, ...]:
    """Say what the night brought: a headline, then sentences."""
    used = sum(scene.status == "scored" for scene in view.scenes)
    chance = view.nominal_rate * view.scored
    if not view.scenes and not view.scored:
        return "No new scenes tonight.", "Nothing was there to be scored."
    if not view.scored:
        return "Nothing could be scored tonight.", "Every tile was covered by cloud, without data, or set aside."
    place = f" in {plural(used, 'scene')}" if used else ""
    if chance >= 0.95:
        expected = f"about {chance:,.0f} {'is' if round(chance) == 1 else 'are'} expected by chance"
    else:
        expected = "one at most is expected by chance" if chance >= 0.05 else "hardly any is expected by chance"
    expected += f" at a false-alarm rate of {share(view.nominal_rate)}."
    rest = [sentence for sentence in (_suppressed(view), _change(view.flagged, view.before)) if sentence]
    if not view.flagged:
        why = "is a flag" if view.suppressed else "passed its threshold"
        return (
            "Nothing stands out tonight.",
            f"None of the {plural(view.scored, 'tile')} scored{place} {why}; {expected}",
            *rest,
        )
    groups = f" in {plural(len(view.places), 'place')}" if 1 < len(view.places) < view.flagged else ""
    headline = f"{plural(view.flagged, 'tile')}{groups} {'stands' if view.flagged == 1 else 'stand'} out tonight."
    sentence = f"{view.flagged:,} of the {plural(view.scored, 'tile')} scored{place} passed the threshold; {expected}"
    # Tiles of one night are not independent, so this is a hint how to read the list, and not a test.
    if view.flagged > 2 * chance + 2:
        return headline, sentence, "That is more than chance explains.", *rest
    return headline, sentence, "Chance may explain them all: trust the ranking more than the count.", *rest


def asked_words(asked: AskedView, suppressed: int) -> str:
    """Say which tiles people are asked about, and what for."""
    kinds = [
        plural(asked.flag, "flag") if asked.flag else "",
        f"{asked.suppressed:,} of the {plural(suppressed, 'suppressed tile')}, to see whether that was right"
        if asked.suppressed
        else "",
        f"{asked.sample:,} drawn at random below the threshold, so that misses can be estimated"
        if asked.sample
        else "",
    ]
    said = [kind for kind in kinds if kind]
    if not said:
        return ""
    joined = ", and ".join(said) if len(said) < 3 else f"{said[0]}, {said[1]}, and {said[2]}"
    return f"In the review people are asked about {joined}."


def estimate_words(found: EstimateView, of: str, what: str) -> str:
    """Say how many anomalies a random sample suggests.

    Args:
        found: What was found in it.
        of: What it was drawn from.
        what: What became of an anomaly there.
    """
    drawn = f"Of {plural(found.asked, 'tile')} drawn at random among {of}, {_few(found.anomalies)}"
    shows = "shows" if found.anomalies == 1 else "show"
    interval = f"95\u202f% interval {found.low:,.0f} to {found.high:,.0f}"
    return f"{drawn} {shows} an anomaly: about {found.estimate:,.0f} of {found.tiles:,.0f} {what} ({interval})."


def _few(count: int) -> str:
    return "none" if count == 0 else f"{count:,}"


def _suppressed(view: NightView) -> str:
    count = len(view.suppressed)
    if not count:
        return ""
    more = "1 more passes" if count == 1 else f"{count:,} more pass"
    return f"{more} the threshold, but {'is' if count == 1 else 'are'} suppressed after what people have said."


def _change(flagged: int, before: LastNights | None) -> str:
    """The night beside the ones before it."""
    if before is None:
        return "This is the first night of its detector."
    mean = round(before.flags, 1)
    had = f"{mean:g} flag{'' if mean == 1 else 's'}"
    nights = "The night before" if before.nights == 1 else f"The last {before.nights} nights"
    each = "" if before.nights == 1 else " each"
    difference = flagged - mean
    if abs(difference) < 0.5:
        return f"{nights} had {had}{each}, as many as tonight."
    return f"{nights} had {had}{each}: tonight has {abs(difference):g} {'more' if difference > 0 else 'fewer'}."

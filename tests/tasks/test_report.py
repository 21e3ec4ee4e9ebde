"""The page of a night, from real score files: what is flagged, why, beside what was expected, and how sure that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from imagery.catalog import SceneRecord
from tasks.drift import Drift
from tasks.evidence import illustrate, pairs, read_scores
from tasks.nights import Night
from tasks.reference import usual_of
from tasks.report import ranked, write_report
from tasks.review.asking import choose
from tasks.review.heeding import heed
from tasks.score import score_scene
from tests.places import NIGHT, SIDE, Watched, day, write_scene
from tests.tasks.test_pages import Page
from vae.detector import Detector

EVENT = np.zeros((SIDE, SIDE), bool)
EVENT[32:48, 32:48] = True
UNKNOWN = Drift(None, ("too few dates",))


def report(place: Watched, record: SceneRecord, detector: Detector | None = None) -> Path:
    """The page of a night of one scene."""
    detector = detector or place.detector
    usual = usual_of(record, place.settings, place.workspace)
    score_scene(record, detector, "v1", place.settings, place.workspace, usual)
    found = {record.scene_id: usual} if usual else {}
    scored = heed(read_scores([record], found, "v1", place.workspace), detector, place.settings, place.workspace)
    asked = choose(scored, place.settings, place.workspace)
    shown = illustrate(scored, pairs(ranked(scored)), detector, place.settings, place.workspace)
    night = Night(record.day, (record,), ())
    return write_report(
        night, [], scored, shown, asked, UNKNOWN, [], [], detector, "v1", place.settings, place.workspace
    )


def words(path: Path) -> str:
    return Page(path.read_text(encoding="utf-8")).words()


def flagged_night(place: Watched) -> SceneRecord:
    """An event on the last two dates."""
    write_scene(Path(place.settings.source.root), day(14), event=EVENT)
    return place.on_night(event=EVENT)


def test_a_flag_is_shown_beside_what_was_expected_and_confirmed_and_says_what_drove_it(place: Watched) -> None:
    path = report(place, flagged_night(place))

    page = Page(path.read_text(encoding="utf-8"))
    (card,) = [given for given in page.named("article") if given.get("id") == "flag-1"]
    assert card
    alternatives = [image["alt"] for image in page.named("img")]
    for name in ("true colour", "usual", "expected", "heatmap"):
        assert any(name in alternative.lower() for alternative in alternatives), alternatives
    text = page.words()
    assert "tile here-r00032-c00032" in text
    assert "Mostly B0" in text
    assert "of the difference" in text
    assert f"confirmed by here/{day(14)}" in text
    assert "looked at alone" not in text


def test_a_scene_that_is_unusual_as_a_whole_is_said_to_be_and_its_flags_are_not_hidden(place: Watched) -> None:
    text = words(report(place, place.on_night(noise=200)))

    assert "unusual as a whole" in text
    assert "all of the scene scores" in text
    assert "unusual as a whole" not in words(report(place, place.records[-1]))


def test_a_tile_without_a_past_is_said_to_be_looked_at_alone(place: Watched) -> None:
    record = place.on_night(flipped=True, event=EVENT)
    text = words(report(place, record))

    assert "looked at alone, by rx: its past does not show it" in text
    usual = usual_of(record, place.settings, place.workspace)
    assert usual is not None
    assert f"looked at alone: {usual.expectation.reason}" in text


def test_a_detector_that_judges_all_tiles_alone_says_so_once(place: Watched) -> None:
    alone = replace(place.detector, calibrations={"rx": place.detector.calibrations["rx"]})
    text = words(report(place, flagged_night(place), alone))

    assert "rx, p90 over the valid pixels" in text
    assert "its past does not show it" not in text


def test_a_scene_judged_by_its_own_tiles_is_marked(place: Watched) -> None:
    name = "aligned_difference"
    only = replace(place.detector, calibrations={name: place.detector.calibrations[name]})
    text = words(report(place, place.on_night(flipped=True, event=EVENT), only))

    assert "judged by the other tiles of its scene alone: the p-value is not calibrated" in text
    assert "judged by its own tiles, without any history" in text


def test_what_the_detector_would_miss_stands_beside_it(place: Watched) -> None:
    missed = "this detector would miss slicks: 10% of 20 injected are flagged"
    about = place.detector.metadata | {"misses": [missed]}

    assert missed in words(report(place, place.records[-1], replace(place.detector, metadata=about)))
    assert "would miss" not in words(report(place, place.records[-1]))


def test_the_same_night_gives_the_same_page(place: Watched) -> None:
    record = flagged_night(place)
    before = report(place, record).read_bytes()

    assert report(place, record).read_bytes() == before


def test_a_scene_that_is_gone_by_then_is_reported_without_pictures(place: Watched) -> None:
    record = flagged_night(place)
    usual = usual_of(record, place.settings, place.workspace)
    score_scene(record, place.detector, "v1", place.settings, place.workspace, usual)
    Path(record.files[0].path).unlink()

    page = Page(report(place, record).read_text(encoding="utf-8"))

    assert page.named("img") == []
    assert "here-r00032-c00032" in page.words()


def test_a_scene_of_nothing_but_cloud_has_no_score_and_a_page(place: Watched) -> None:
    record = place.on_night(clouded=SIDE)
    assert record.day == NIGHT

    text = words(report(place, record))

    assert "Nothing could be scored tonight." in text
    assert "too cloudy" in text

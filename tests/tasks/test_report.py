"""The page of a night, from real score files: what is flagged, why, beside what was expected, and how sure that is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imagery.catalog import SceneRecord
from tasks.drift import Drift
from tasks.evidence import illustrate, pairs, read_scores
from tasks.nights import Night, NightRecord
from tasks.reference import usual_of
from tasks.report import ranked, write_report
from tasks.review.heeding import heed
from tasks.review.verdicts import Verdict, write_verdicts
from tasks.score import score_scene
from tests.markup import Page
from tests.places import NIGHT, SIDE, Watched, day, write_scene
from vae.detector import Detector

EVENT = np.zeros((SIDE, SIDE), bool)
EVENT[32:48, 32:48] = True
UNKNOWN = Drift(None, ("too few dates",))


def report(
    place: Watched,
    record: SceneRecord,
    detector: Detector | None = None,
    past: Sequence[NightRecord] = (),
    hushed: Sequence[str] = (),
) -> Path:
    """The page of a night of one scene; some of its flags may be suppressed."""
    detector = detector or place.detector
    usual = usual_of(record, place.settings, place.workspace)
    score_scene(record, detector, "v1", place.settings, place.workspace, usual)
    found = {record.scene_id: usual} if usual else {}
    (scored,) = heed(read_scores([record], found, "v1", place.workspace), detector, place.settings, place.workspace)
    if hushed:
        hidden = scored.scores["tile_id"].isin(hushed)
        table = scored.scores.assign(
            flagged=scored.scores["flagged"] & ~hidden,
            bar=scored.scores["bar"] + 100.0 * hidden,
            p_reviewed=scored.scores["p_reviewed"].where(~hidden, 0.5),
            suppressed=pd.array(["2 <false> alarms here" if one else None for one in hidden], "str"),
            alike=pd.array(["here-r00000-c00000 here/2020-07-01" if one else None for one in hidden], "str"),
        )
        scored = replace(scored, scores=table)
    kinds = {"flag": ranked([scored]), "sample": scored.scores[~scored.scores["flagged"]].head(2)}
    asked = pd.concat([rows[["scene_id", "tile_id"]].assign(asked=kind, share=1.0) for kind, rows in kinds.items()])
    shown = illustrate([scored], pairs(ranked([scored])), detector, place.settings, place.workspace)
    night = Night(record.day, (record,), ())
    return write_report(
        night, [], [scored], shown, asked, UNKNOWN, past, [], detector, "v1", place.settings, place.workspace
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
    names = ["true colour", "usual", "expected", "heatmap", "false colour", "usual, false colour"]
    names += ["expected, false colour", "heatmap over true colour"]
    assert [one.split(" of tile ")[0] for one in alternatives if " of tile here-r00032-c00032" in one] == names
    text = page.words()
    assert "tile here-r00032-c00032" in text
    links = {link["data-path"]: link["href"] for link in page.named("a") if link.get("class") == "file"}
    assert all((path.parent / given).resolve().is_file() for given in links)
    assert {Path(given).name for given in links} == {f"{NIGHT}_anomaly.tif", f"{NIGHT}.parquet"}
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

    assert [image["class"] for image in page.named("img")] == ["layer alone"]  # its tiles by p-value
    assert "here-r00032-c00032" in page.words()


def test_a_scene_of_nothing_but_cloud_has_no_score_and_a_page(place: Watched) -> None:
    record = place.on_night(clouded=SIDE)
    assert record.day == NIGHT

    text = words(report(place, record))

    assert "Nothing could be scored tonight." in text
    assert "too cloudy" in text


def test_flags_that_touch_are_one_place(place: Watched) -> None:
    wide = np.zeros((SIDE, SIDE), bool)
    wide[32:48, 16:64] = True
    wide[80:96, 0:16] = True
    record = place.on_night(event=wide)

    text = words(report(place, record))

    assert "4 tiles in 2 places stand out tonight." in text
    assert re.search(r"3 tiles that touch, 7\.6\d ha around", text)
    assert "here 1 tile, " in text


def test_a_scene_is_a_map_with_its_flags_and_every_tile(place: Watched) -> None:
    page = Page(report(place, flagged_night(place)).read_text(encoding="utf-8"))

    (figure,) = [given for given in page.named("figure") if given.get("class") == "map"]
    told = json.loads(figure["data-tiles"])
    assert len(told["scores"]) == len(told["onceIn"]) == len(told["rows"]) * len(told["columns"]) == 49
    marks = {link["aria-label"]: link["style"] for link in page.named("a") if link.get("class") == "mark"}
    assert marks["Flag 1"] == "left: 32%; top: 32%; width: 16%; height: 16%"
    assert len(marks) == len(page.named("article"))


def test_a_scene_without_a_flag_is_not_read_for_its_map_which_shows_its_tiles_alone(place: Watched) -> None:
    page = Page(report(place, place.on_night(clouded=SIDE)).read_text(encoding="utf-8"))

    assert page.named("article") == []
    assert [image["class"] for image in page.named("img")] == ["layer alone"]


def test_what_is_suppressed_is_listed_with_the_reason_and_is_no_flag(place: Watched) -> None:
    record = flagged_night(place)
    before = Page(report(place, record).read_text(encoding="utf-8"))
    flags = [given["aria-labelledby"] for given in before.named("article")]
    names = re.findall(r"Flag \d+: tile (\S+)", before.words())
    assert len(flags) == len(names) > 0

    page = Page(report(place, record, hushed=names).read_text(encoding="utf-8"))

    text = page.words()
    assert page.named("article") == []
    assert "Nothing stands out tonight." in text
    assert "suppressed after what people have said." in text
    assert "2 <false> alarms here" in text
    assert "like here-r00000-c00000 here/2020-07-01" in text
    assert "1 in 2" in text
    assert any(
        link.get("href") == "#suppressed-1" and "mark" in link["class"] for link in page.named("a") if "class" in link
    )
    assert "Suppressed" not in words(report(place, place.records[-1]))


def test_it_says_who_is_asked_about_what(place: Watched) -> None:
    page = Page(report(place, flagged_night(place)).read_text(encoding="utf-8"))

    count = len(page.named("article"))
    flags = "1 flag" if count == 1 else f"{count} flags"
    assert f"In the review people are asked about {flags}, and 2 drawn at random below the threshold" in page.words()


def record_of(night: date, flags: int) -> NightRecord:
    return NightRecord(night, "v1", "c", {}, (), {}, 49, 49, flags, None, (), None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((9, 9, 9, 4, -2, 1, 0, -2, 0, -1), "The last 7 nights had {0} flags each, as many as tonight."),
        ((4, 3), "The last 2 nights had {3.5} flags each: tonight has 3.5 fewer."),
        ((5,), "The night before had {5} flags: tonight has 5 fewer."),
        ((), "This is the first night of its detector."),
    ],
)
def test_the_night_is_held_against_the_week_before(place: Watched, more: tuple[int, ...], said: str) -> None:
    record = flagged_night(place)
    tonight = len(Page(report(place, record).read_text(encoding="utf-8")).named("article"))
    days = range(len(more), 0, -1)
    past = [record_of(record.day - timedelta(back), tonight + one) for back, one in zip(days, more, strict=True)]

    expected = re.sub(r"\{(.*)\}", lambda found: f"{tonight + float(found[1]):g}", said)
    assert expected in words(report(place, record, past=past))


def test_what_people_have_said_stands_there_with_its_interval(place: Watched) -> None:
    record = flagged_night(place)
    said = datetime(2020, 8, 1, tzinfo=UTC)
    days = [record.day - timedelta(days=back) for back in (1, 2, 3, 40)]
    flags = [
        Verdict(f"here/{day}", "here-r00000-c00000", verdict, said)
        for day, verdict in zip(days, ("anomaly", "false alarm", "anomaly", "false alarm"), strict=True)
    ]
    samples = [
        Verdict(f"here/{days[0]}", f"here-r00016-c000{column}", verdict, said, asked="sample", share=0.1)
        for column, verdict in (("16", "anomaly"), ("32", "false alarm"))
    ]
    write_verdicts([*flags, *samples], place.workspace)

    text = words(report(place, record))

    assert (
        "3 flags of the last 30 nights were reviewed. 67 % of them showed an anomaly (95 % interval 9.4 % to 99 %)."
        in text
    )
    assert (
        "Of 2 tiles drawn at random among those below the threshold, 1 shows an anomaly: about 10 of 20 were missed"
        in text
    )
    assert "What people have said" not in words(report(place, place.records[-1]))

"""The pages: everything from outside is text, nothing is loaded, and the same view gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from tasks.evidence import KINDS, MAP_PICTURES, TILE_PICTURES
from tasks.night_words import summarise
from tasks.pages import rank_places, render_night, render_validation
from tasks.pictures import fitted_data_uri
from tasks.views import DriftRow, DriftView, ValidationView
from tests.markup import Page
from tests.tasks.pages.views import checks, flag, night, place, reviewed, scene_map, suppressed

HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}</style>&amp;\u202e\ud800"""


def poison(value):
    """Give the same view with every text replaced by a hostile one, except data URIs."""
    if isinstance(value, str):
        return value if value.startswith("data:") else HOSTILE
    if isinstance(value, dict):
        return {f"{HOSTILE}{place}": poison(item) for place, item in enumerate(value.values())}
    if isinstance(value, list | tuple):
        return type(value)(poison(item) for item in value)
    if is_dataclass(value):
        return replace(value, **{item.name: poison(getattr(value, item.name)) for item in fields(value)})
    return value


@pytest.mark.parametrize(
    "html",
    [
        pytest.param(lambda: render_night(poison(night([flag(0), flag(1, {})]))), id="night"),
        pytest.param(lambda: render_night(poison(night([]))), id="night without flags"),
        pytest.param(
            lambda: render_validation(poison(ValidationView("w", "n", checks(), "c", {"a": "b"}))), id="checks"
        ),
    ],
)
def test_hostile_text_stays_text(html):
    source = html()
    page = Page(source)
    source.encode("utf-8")
    assert "alert(1)" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert all("alert" not in tag and not any(name.startswith("on") for name in given) for tag, given in page.elements)
    assert len(page.named("script")) <= 1
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.named("img"))
    assert all(not link["href"].lower().startswith(("javascript", "data")) for link in page.named("a"))
    assert all("alert" not in given.get(name, "") for _, given in page.elements for name in ("style", "class", "id"))


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JAVA\tSCRIPT:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "//[x",
    ],
)
def test_a_link_that_would_run_something_is_only_text(address):
    for html in (
        render_night(night([], links={"go": address})),
        render_validation(ValidationView("w", "n", links={"go": address})),
    ):
        assert not [link for link in Page(html).named("a") if not link["href"].startswith(("#", "geo:"))]
        assert "go:" in Page(html).text


@pytest.mark.parametrize(
    "address", ["validation.html", "http://localhost:5000/#/runs/1", "https://example.org/a?b=1&c=2"]
)
def test_an_ordinary_link_can_be_followed(address):
    (link,) = [link for link in Page(render_night(night([], links={"go": address}))).named("a") if "rel" in link]
    assert link["href"] == address


@pytest.mark.parametrize(
    "html", [render_night(night([flag(0), flag(1, {})])), render_validation(ValidationView("w", "n", checks()))]
)
def test_the_page_needs_nothing_but_itself(html):
    page = Page(html)
    for _, given in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert given.get(name, "#").startswith(("#", "data:", "geo:", "validation.html", "../../scores/"))
    assert not re.search(r"@import|url\(|https?://|localStorage|sessionStorage|document\.cookie|fetch\(", html)
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_security_policy_allows_the_own_script_and_no_other():
    html = render_night(night([flag(0)]))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in html
    assert "script-src 'none'" in render_validation(ValidationView("w", "n", checks()))


@pytest.mark.parametrize(
    "uri", ["http://example.org/a.png", "data:text/html;base64,AAAA", 'data:image/png;base64,A" onload="x', "a.png"]
)
def test_a_picture_from_elsewhere_is_refused(uri):
    with pytest.raises(ValueError, match="base64 data URI"):
        render_night(night([flag(0, {"true colour": uri})]))
    with pytest.raises(ValueError, match="base64 data URI"):
        render_night(night([], maps=[scene_map(ground=uri)]))


def test_flags_are_ranked_by_p_value_then_score():
    flags = [
        flag(1, tile_id="uncalibrated", p_value=None, score=9.0),
        flag(2, tile_id="second", p_value=0.001, score=0.5),
        flag(3, tile_id="third", p_value=0.002, score=0.9),
        flag(4, tile_id="first", p_value=0.001, score=0.7),
        flag(5, tile_id="not a number", p_value=float("nan"), score=8.0),
    ]
    ranked = rank_places([place([one]) for one in flags])
    assert [one.first.flag.tile_id for one in ranked] == [
        "first",
        "second",
        "third",
        "uncalibrated",
        "not a number",
    ]
    text = Page(render_night(night(flags))).words()
    places = [text.index(f"tile {name}") for name in ("first", "second", "third", "uncalibrated")]
    assert places == sorted(places)


def test_a_flag_is_shown_with_its_evidence():
    page = Page(render_night(night([flag(0)])))
    text = page.words()
    for words in (
        "1 in 400 normal tiles look as odd",
        "texture 75 %, bands 25 %",
        "Mostly B04, 50 % of the difference",
        "looked at alone, by novelty",
        "0.5 against a threshold of 0.4",
        "48.1173° N, 1.6778° W",
        "48.11730, -1.67780",
        "97 % of its pixels",
        "This tile since 2017-02-02",
    ):
        assert words in text
    assert {"href": "geo:48.11730,-1.67780", "title": "Open in a map"} in page.named("a")
    assert all(image["alt"] for image in page.named("img"))
    assert [line["points"].count(",") for line in page.named("polyline")][:2] == [1, 2]


def test_a_score_of_one_part_is_not_taken_apart():
    text = Page(render_night(night([flag(0, parts={"novelty": 1.0}, judged="")]))).words()
    assert "novelty" not in text
    assert "Mostly B04" in text


def test_a_scene_that_is_unusual_as_a_whole_is_marked_in_the_list_of_scenes():
    text = Page(render_night(night([]))).words()
    assert text.count("unusual as a whole") == 1
    assert text.index("paris") < text.index("unusual as a whole all of the scene scores 3 times") < text.index("mumbai")


def test_a_flag_on_the_map_leads_to_its_card():
    page = Page(render_night(night([flag(0)])))
    (link,) = [link for link in page.named("a") if link.get("aria-label") == "Flag 1"]
    assert link["href"] == "#flag-1"
    assert link["style"] == "left: 25%; top: 50%; width: 10%; height: 10%"
    assert "flag-1" in [given.get("id") for given in page.named("article")]


def test_every_link_on_the_page_has_a_target():
    bare = night([], quarantined=(), drift=None, checks=(), maps=(), suppressed=(), reviewed=None)
    for view in (night([flag(0), flag(1, {})]), night([]), bare):
        page = Page(render_night(view))
        names = [given["id"] for _, given in page.elements if "id" in given]
        assert len(names) == len(set(names))
        assert {link["href"][1:] for link in page.named("a") if link["href"].startswith("#")} <= set(names)


def test_a_night_without_flags_says_so():
    text = Page(render_night(night([], suppressed=()))).words()
    assert "Nothing stands out tonight." in text
    assert "None of the 192 tiles scored in 2 scenes passed its threshold; about 2 are expected by chance" in text


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (night([flag(i) for i in range(7)]), "7 of the 192 tiles scored in 2 scenes passed the threshold; about 2 are"),
        (night([flag(i) for i in range(7)]), "more than chance explains"),
        (night([flag(0)]), "1 tile stands out tonight."),
        (night([flag(0)]), "Chance may explain"),
        (night([], scored=3), "hardly any is expected by chance at a false-alarm rate of 1"),
        (night([], scored=50), "one at most is expected by chance"),
        (night([], scored=100), "about 1 is expected by chance"),
        (night([], scored=0), "Nothing could be scored tonight."),
        (night([], scored=0, tiles=0, scenes=()), "No new scenes tonight."),
    ],
)
def test_the_summary_puts_the_count_beside_chance(view, words):
    assert words in " ".join(summarise(view))
    assert words in Page(render_night(view)).words()


def test_a_thousand_flags_stay_readable_and_a_wholly_flagged_night_too():
    flags = [flag(i, {} if i < 970 else None) for i in range(1000)]
    html = render_night(night(flags, flagged=1000, scored=5000))
    page = Page(html)
    assert len(page.named("article")) == 30
    assert "970 more flags without pictures" in page.words()
    assert len(html) < 1_500_000

    flags = [flag(i, {}) for i in range(20_000)]
    html = render_night(night(flags, flagged=25_000, scored=25_000))
    assert "24,000 more flags in the score files." in Page(html).words()
    assert len(html) < 1_500_000


@pytest.mark.parametrize("side", [64, 256])
def test_a_hundred_flags_with_pictures_of_noise_fit_in_ten_megabytes(side):
    most = TILE_PICTURES // (KINDS * 100)
    noise = fitted_data_uri(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8), most)
    flags = [flag(i, {f"picture {kind}": noise for kind in range(KINDS)}) for i in range(100)]
    large = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    ground = fitted_data_uri(large, MAP_PICTURES // 2)
    tiles = {
        "rows": list(range(171)),
        "columns": list(range(171)),
        "scores": [1.234] * 171**2,
        "once_in": [1e3] * 171**2,
    }
    one = scene_map(ground=ground, odds=ground, **tiles)
    assert len(render_night(night(flags, maps=[one])).encode()) < 10_000_000


def test_flags_that_touch_are_shown_as_one_place_the_least_likely_place_first():
    far, first, second = (flag(i, tile_id=name) for i, name in enumerate(("far", "first", "second")))
    views = [
        place([replace(far, p_value=0.002)], location="elsewhere"),
        place([replace(second, p_value=0.004), replace(first, p_value=0.001)], area=12_345.0),
    ]
    page = Page(render_night(night([], places=views, flagged=3)))
    text = page.words()
    names = [text.index(f"tile {name}") for name in ("first", "second", "far")]
    assert names == sorted(names)
    assert [given["id"] for given in page.named("article")] == ["flag-1", "flag-2", "flag-3"]
    assert "3 tiles in 2 places stand out tonight." in text
    assert "2 tiles that touch, 1.23 ha around 48.1000° N, 1.6000° W, the least likely 1 in 1,000" in text
    # An overview leads to each place.
    links = [link["href"] for link in page.named("a")]
    assert links.index("#flag-1") < links.index("#flag-3")


def test_a_place_of_many_tiles_shows_the_least_likely_and_folds_the_others_away():
    page = Page(
        render_night(night([], places=[place([flag(i, p_value=1e-4 * (i + 1)) for i in range(12)])], flagged=12))
    )
    assert len(page.named("article")) == 12
    assert "9 more tiles of this place" in page.words()
    assert [given.get("class") for given in page.named("details")] == ["rest"]


def test_a_place_with_more_flags_than_pictures_leads_to_the_others():
    views = [place([flag(i, None if i < 2 else {}, p_value=1e-4 * (i + 1)) for i in range(5)])]
    page = Page(render_night(night([], places=views, flagged=5)))
    assert "3 more flags of this place without pictures, in the list" in page.words()
    assert "#flag-3" in [link["href"] for link in page.named("a")]


def test_what_is_suppressed_is_never_hidden():
    rows = [suppressed(i, alike="t1 here/2020-01-01" if i == 1 else "") for i in range(2)]
    text = Page(render_night(night([flag(0)], suppressed=rows))).words()
    assert "2 more pass the threshold, but are suppressed after what people have said." in text
    assert "Suppressed (2)" in text
    assert text.count("2 false alarms at this tile raised the bar") == 2
    assert "like t1 here/2020-01-01" in text
    many = Page(render_night(night([], suppressed=[suppressed(i) for i in range(1500)])))
    assert "500 more suppressed tiles in suppressed.parquet" in many.words()
    assert "Suppressed" not in Page(render_night(night([flag(0)], suppressed=()))).words()


def test_a_raised_threshold_says_so():
    text = Page(render_night(night([flag(0, raised_from=0.3)]))).words()
    assert "0.5 against a threshold of 0.4, which people's verdicts raised here from 0.3" in text


def test_reviewed_flags_are_counted_by_location_and_nobody_having_said_anything_is_no_table():
    text = Page(render_night(night([]))).words()
    assert (
        "13 flags of the last 30 nights were reviewed. 60 % of them showed an anomaly (95 % interval 26 % to 88 %)."
        in text
    )
    assert "rennes631260 % 26 % to 88 %" in text  # a row of a table: words are not told apart there
    assert "What people have said" not in Page(render_night(night([], reviewed=None))).words()
    assert "reviewed." not in Page(render_night(night([], reviewed=reviewed(overall=None)))).words()


def test_the_same_view_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_pages as t;"
        "print(hashlib.sha256((t.render_night(t.night([t.flag(0), t.flag(1, {})]))"
        " + t.render_validation(t.ValidationView('w', 'n', t.checks()))).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Europe/Berlin"))
    }
    assert len(digests) == 1
    assert render_night(night([flag(0)])) == render_night(night([flag(0)]))


@pytest.mark.parametrize(
    ("basis", "words"),
    [
        ("training", "These p-values are optimistic."),
        ("validation", "These p-values may be a little optimistic."),
        ("in-scene", "basis: in-scene"),
    ],
)
def test_a_calibration_not_held_out_is_said_at_the_top(basis, words):
    text = Page(render_night(night([flag(0)], basis=basis))).words()
    assert text.index(words) < text.index("Heatmap: as expected")
    assert "optimistic" not in Page(render_night(night([flag(0)]))).words()


def test_drift_is_said_at_the_top_and_explained_below():
    drift = DriftView("drift", ("B11 is brighter",), (DriftRow("PSI of B11", 0.44, 0.25), DriftRow("flat", 0.0, 0.0)))
    text = Page(render_night(night([], drift=drift))).words()
    assert text.index("The input has drifted.") < text.index("B11 is brighter") < text.index("PSI of B11")
    assert "The input has drifted." not in Page(render_night(night([]))).words()


def test_scores_below_zero_and_not_finite_are_drawn_within_the_bar():
    flags = [
        flag(0, score=-1.0, threshold=-2.0),
        flag(1, score=float("inf"), threshold=0.1),
        flag(2, band_errors={"B02": 0.0}),
    ]
    html = render_night(night(flags))
    shares = [float(text) for text in re.findall(r"(?:width|left|height): (-?[\d.]+)%", html)]
    assert all(0 <= part <= 100 for part in shares)
    assert 'width: 100%"></i><b' in html


def test_many_bands_are_cut_to_the_ones_that_matter():
    errors = {f"band{i:03d}": 0.001 for i in range(200)} | {"band150": 0.8}
    text = Page(render_night(night([flag(0, band_errors=errors)]))).words()
    assert "Mostly band150, 80 %" in text
    assert "and 188 bands less" in text


def test_failed_checks_come_first_the_gravest_on_top():
    page = Page(render_validation(ValidationView("watch", "2017-06-21", checks(), "now", {})))
    assert [given["class"] for given in page.named("tr")[1:]] == [
        "failed critical", "failed warning", "failed info", "passed critical",
    ]  # fmt: skip
    text = page.words()
    assert "3 checks failed." in text
    assert "4 checks of 3 scenes. 1 scene failed a critical check and was set aside." in text
    assert "All 4 Failed 3 Critical 1 Warnings 1" in text
    assert [given["type"] for given in page.named("input")] == ["radio"] * 4


@pytest.mark.parametrize(("rows", "words"), [((), "Nothing was checked."), (checks()[:1], "All checks passed.")])
def test_a_clean_validation_says_so(rows, words):
    assert words in Page(render_validation(ValidationView("watch", "2017-06-21", rows))).words()

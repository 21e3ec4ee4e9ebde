"""The pages in a real browser: pictures load, keys work, nothing is requested, a phone needs no sideways scrolling."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    pass

from tests.tasks.pages.browsing import HOSTILE, LONG, focused, opacity

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", ["night", "empty", "checks"])
def test_every_picture_is_drawn_and_nothing_hostile_runs(open_page, name):
    page = open_page(name)
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == (6 * 6 + 3 if name == "night" else 0)
    assert all(width > 0 for width in widths)
    assert page.title().startswith("watch ·")


@pytest.mark.parametrize(("forward", "back"), [("j", "k"), ("ArrowRight", "ArrowLeft")])
def test_keys_move_from_flag_to_flag(open_page, forward, back):
    page = open_page("night")
    visited = []
    for key in (*[forward] * 7, back):
        page.keyboard.press(key)
        visited.append(focused(page))
    # From place to place, and into the fold.
    assert visited == ["flag-1", "flag-2", "flag-3", "flag-4", "flag-5", "flag-6", "flag-6", "flag-5"]
    assert page.locator("#flag-5").is_visible()
    for _ in range(2):
        page.keyboard.press(back)
    box = page.locator("#flag-3").bounding_box()
    assert box is not None
    assert -1 <= box["y"] < 100
    assert page.eval_on_selector("#flag-3", "flag => getComputedStyle(flag).outlineStyle") == "solid"


def test_what_is_folded_away_does_not_count_as_read(open_page):
    page = open_page("night")
    page.keyboard.press("j")
    page.evaluate("document.activeElement.blur()")
    page.locator("#flag-6").evaluate("flag => flag.scrollIntoView()")
    page.keyboard.press("k")
    assert focused(page) == "flag-5"


def test_keys_go_on_from_a_flag_that_was_reached_by_a_link_of_the_map(open_page):
    page = open_page("night")
    page.get_by_role("link", name="Flag 3", exact=True).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    assert focused(page) == "flag-4"


def test_a_sandboxed_frame_without_storage_is_enough(open_page, pages):
    """MLflow shows an HTML artifact as a blob in a frame that may run scripts and nothing else."""
    page = open_page("empty")
    page.evaluate(
        """html => {
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.width = 1000;
            frame.height = 700;
            frame.srcdoc = html;
            document.body.replaceChildren(frame);
            return new Promise(resolve => { frame.onload = resolve; });
        }""",
        (pages / "night.html").read_text(encoding="utf-8"),
    )
    frame = page.frames[1]
    frame.get_by_role("link", name="Drift", exact=True).click()
    assert frame.evaluate("document.activeElement.id") == "drift"
    assert frame.evaluate("Math.abs(document.querySelector('#drift').getBoundingClientRect().top)") < 100
    frame.get_by_role("link", name="Flag 8", exact=True).focus()
    page.keyboard.press("Enter")
    assert frame.evaluate("document.activeElement.id") == "flag-8"
    assert frame.get_by_role("cell", name="tile7").is_visible()
    # A link to a file of the workspace would lead nowhere from here: its path stands there instead.
    assert frame.locator("a.file").count() == 0
    assert frame.locator(".files code").first.inner_text() == f"scores/v1/{LONG}%201.tif"
    frame.locator("h1").click()
    page.keyboard.press("j")
    assert frame.evaluate("document.activeElement.id") == "flag-1"


def test_keys_with_a_modifier_are_left_to_the_browser(open_page):
    page = open_page("night")
    page.keyboard.press("Alt+j")
    assert focused(page) == ""


def test_flipping_shows_the_expected_picture_in_the_same_place(open_page):
    page = open_page("night")
    captions = "flag => Array.from(flag.querySelectorAll('figcaption'), caption => caption.textContent)"
    first = page.locator("#flag-1 img").first
    before = first.get_attribute("src")
    names = ["true colour", "usual", "heatmap", "false colour", "usual, false colour", "heatmap over true colour"]
    assert page.eval_on_selector("#flag-1", captions) == names
    page.get_by_role("button", name="Flip true colour and usual").first.click()
    assert first.get_attribute("src") != before
    flipped = ["usual", "true colour", "heatmap", "usual, false colour", "false colour", "heatmap over true colour"]
    assert page.eval_on_selector("#flag-1", captions) == flipped
    page.keyboard.press("b")
    assert first.get_attribute("src") == before
    assert page.eval_on_selector("#flag-1", captions) == names


def test_without_script_all_is_there_but_the_flip_button(open_page):
    page = open_page("night", java_script_enabled=False)
    assert page.locator(".flag img").count() == 36
    assert page.locator(".flip:visible").count() == 0
    page.get_by_text("2 more flags without pictures").click()
    assert page.get_by_role("cell", name="tile7").is_visible()
    page.get_by_text("2 more tiles of this place").click()
    assert page.locator("#flag-5").is_visible()
    # The map is a picture, with what is flagged on it, and can show its tiles.
    assert page.locator(".zoom:visible").count() == 0
    assert page.get_by_role("link", name="Flag 3", exact=True).is_visible()
    layer = page.locator(".map .layer").first
    assert opacity(layer) == 0
    page.locator(".map").first.get_by_label("p-values", exact=True).check()
    assert opacity(layer) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 768, 1200])
@pytest.mark.parametrize("name", ["night", "empty", "checks"])
def test_no_page_scrolls_sideways(open_page, name, width, scheme):
    page = open_page(name, width=width, height=800, color_scheme=scheme)
    page.eval_on_selector_all("details", "all => all.forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, scheme):
    page = open_page("night", color_scheme=scheme)
    contrast = """() => {
        const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const light = (name) => {
            canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
            canvas.fillRect(0, 0, 1, 1);
            return Array.from(canvas.getImageData(0, 0, 1, 1).data).slice(0, 3).map(part => part / 255)
                .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
                .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
        };
        const worst = {};
        for (const ink of ["--ink", "--soft", "--accent", "--alarm"])
            for (const ground of ["--ground", "--surface", "--alarm-ground"]) {
                const [dark, bright] = [light(ink), light(ground)].sort((one, other) => one - other);
                worst[ink + " on " + ground] = (bright + 0.05) / (dark + 0.05);
            }
        return worst;
    }"""
    # WCAG 2.2, 1.4.3 (AA): 4.5 : 1.
    assert {pair: ratio for pair, ratio in page.evaluate(contrast).items() if ratio < 4.5} == {}


def test_checks_are_filtered_by_keyboard(open_page):
    page = open_page("checks")
    rows = page.locator("tbody tr:visible")
    page.get_by_label("All 5").focus()
    counts = [rows.count()]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        counts.append(rows.count())
    assert counts == [5, 4, 1, 2]


def test_a_printed_night_has_everything_and_nothing_to_press(open_page):
    page = open_page("night")
    page.keyboard.press("j")
    page.locator(".pane").first.focus()
    page.keyboard.press("+")
    page.emulate_media(media="print")
    assert page.locator(":is(.flip, .tools, .keys):visible").count() == 0
    assert page.locator(".flag img:visible").count() == 36
    folded = page.locator("#flag-5")
    assert folded.evaluate("flag => flag.checkVisibility({contentVisibilityAuto: true})")
    assert folded.bounding_box()["height"] > 200
    assert page.locator("#flag-8").bounding_box()["height"] > 10
    pane, sheet = (page.locator(name).first.bounding_box() for name in (".pane", ".sheet"))
    assert sheet["width"] == pytest.approx(pane["width"], abs=1)  # the whole map, though it was zoomed
    # Paper cannot be scrolled: on A4 with its margins (688 pixels) all is within the page.
    page.set_viewport_size({"width": 688, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.pdf().startswith(b"%PDF")


def test_files_are_linked_where_the_page_lies_in_its_workspace(open_page, pages):
    home = pages / "reports" / "2017-06-21"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(pages / "night.html", home / "report.html")
    raster = pages / "scores" / "v1" / f"{LONG}%201.tif"
    raster.parent.mkdir(parents=True, exist_ok=True)
    raster.touch()
    page = open_page("reports/2017-06-21/report")
    address = page.locator("#flag-1 a.file").first.evaluate("link => link.href")
    assert address == raster.as_uri()
    assert page.locator(".files code").count() == 0
    away = open_page("night")
    assert away.locator("a.file").count() == 0
    assert away.locator("#flag-1 .files code").nth(1).inner_text() == HOSTILE

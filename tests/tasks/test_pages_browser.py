"""The pages in a real browser: pictures load, keys work, nothing is requested, a phone needs no sideways scrolling."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.pages import render_night, render_validation
from tasks.pictures import heat_image, jpeg_data_uri, png_data_uri
from tasks.views import (
    AskedView,
    CheckView,
    DriftRow,
    DriftView,
    EstimateView,
    FlagView,
    LastNights,
    MapView,
    NightView,
    PlaceView,
    QuarantineView,
    ReviewedRow,
    ReviewedView,
    SceneView,
    SuppressedView,
    ValidationView,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

LONG = "a_name_without_any_space_" * 8
HOSTILE = """"><script>document.title = "taken over"</script><img src=x onerror='document.title = "taken over"'>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of a rich night, of one with nothing in it, and of the checks."""
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)

    flags = [
        FlagView(
            tile_id=f"tile{place}" if place else LONG,
            location=HOSTILE if place == 5 else "rennes",
            acquired="2017-06-21",
            score=0.9 - place / 10,
            p_value=(place + 1) / 1000,
            threshold=0.3,
            latitude=48.1,
            longitude=-1.6,
            valid_fraction=0.9,
            pictures={
                "true colour": png_data_uri(noise()),
                "usual": png_data_uri(noise()),
                "heatmap": png_data_uri(heat_image(rng.random((32, 32)), 0, 1)),
                "false colour": png_data_uri(noise()),
                "usual, false colour": png_data_uri(noise()),
                "heatmap over true colour": png_data_uri(noise()),
            }
            if place < 6
            else {},
            band_errors={f"B{band:02d}": 0.1 for band in range(10)},
            parts={"texture": 0.8, "bands": 0.2},
            judged=HOSTILE if place == 0 else LONG,
            history=[("2017-05-02", 0.1), ("2017-06-01", 0.2), ("2017-06-21", 0.8)],
            files={"heatmap": f"../../scores/v1/{LONG}%201.tif", HOSTILE: HOSTILE},
            window=(0.1 * (place + 1), 0.1, 0.05, 0.1),
            scene="rennes/2017-06-21",
        )
        for place in range(8)
    ]
    # The first five touch: three cards are seen at once, two are folded away.
    places = [PlaceView("rennes", 5, 51_200, 48.1, -1.6, flags[:5])]
    places += [PlaceView(one.location, 1, 10_240, 48.1, -1.6, [one]) for one in flags[5:]]
    scores = [None if index == 3 else index / 100 for index in range(200)]
    rennes = MapView(
        scene="rennes/2017-06-21",
        location=HOSTILE,
        acquired="2017-06-21",
        size=(400, 200),
        ground=jpeg_data_uri(rng.integers(0, 256, (200, 400, 3), dtype=np.uint8)),
        odds=png_data_uri(heat_image(rng.random((20, 40)), 0, 1)),
        tile=(20, 20),
        rows=list(range(0, 200, 20)),
        columns=list(range(0, 400, 20)),
        scores=scores,
        once_in=[0 if score is None else 1 + 10 * index for index, score in enumerate(scores)],
    )
    gone = replace(rennes, scene="gone/2017-06-21", location="gone", ground="")
    hushed = SuppressedView(
        LONG, HOSTILE, "2017-06-21", 0.5, 0.3, 0.6, 0.02, HOSTILE, HOSTILE, 48.1, -1.6, (0.5, 0.5, 0.05, 0.1),
        "rennes/2017-06-21",
    )  # fmt: skip
    rows = [ReviewedRow(HOSTILE, 6, 3, 1, 2, 0.6, 0.26, 0.88), ReviewedRow(LONG, 0, 0, 0, 1, *[float("nan")] * 3)]
    found = EstimateView(50, 1, 2000.0, 40.0, 1.0, 222.0)
    view = NightView(
        name="watch",
        night="2017-06-21",
        detector_version=LONG,
        calibration_id="cal-7",
        basis="training",
        nominal_rate=0.01,
        tiles=200,
        scored=192,
        flagged=8,
        places=places,
        suppressed=[hushed],
        asked=AskedView(8, 1, 5),
        before=LastNights(7, "2017-06-01", 2.0),
        reviewed=ReviewedView(30, rows[0], rows, found, found),
        scenes=(SceneView(LONG, "2017-06-21", 200, 192, 6, 0.2, 0.04, "scored", HOSTILE, alarm=LONG),),
        quarantined=(QuarantineView(LONG, "ingest", HOSTILE),),
        drift=DriftView("drift", (LONG,), (DriftRow(LONG, 0.4, 0.2),), [("2017-06-01", 0.4), ("2017-06-21", 1.2)]),
        checks=(CheckView(LONG, "finite", "B02", "critical", "0", "0", True),),
        maps=[rennes, gone],
        details={LONG: LONG},
        links={"Checks": "checks.html"},
    )
    checks = [
        CheckView(LONG, "plausible", "B02", "critical", HOSTILE, "0", False),
        CheckView(LONG, "range", "B02", "warning", "1", "0", False),
        CheckView(LONG, "range", "B03", "warning", "1", "0", False),
        CheckView(LONG, "cloud", "", "info", "1", HOSTILE, False),
        CheckView(LONG, "finite", "", "critical", "0", "0", True),
    ]
    folder = tmp_path_factory.mktemp("pages")
    (folder / "night.html").write_text(render_night(view), encoding="utf-8")
    (folder / "empty.html").write_text(
        render_night(NightView("watch", "2017-06-22", "1", "c", "held_out", 0.01, 0, 0, 0)), encoding="utf-8"
    )
    (folder / "checks.html").write_text(
        render_validation(ValidationView("watch", "2017-06-21", checks)), encoding="utf-8"
    )
    return folder


@pytest.fixture
def open_page(browser: Browser, pages: Path):
    """Open a page, and see at the end that it made no noise on the console and asked for nothing."""
    contexts, trouble = [], []

    def open_one(name: str, width: int = 1200, height: int = 900, **options) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file://", "data:")) else trouble.append(request.url),
        )
        page.goto((pages / f"{name}.html").as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert trouble == []


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id")


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


def opacity(layer) -> float:
    return float(layer.evaluate("layer => getComputedStyle(layer).opacity"))


def zoom(page: Page) -> float:
    return float(page.locator(".pane").first.get_attribute("data-zoom"))


def corner(page: Page) -> tuple[float, float]:
    """Where the upper left corner of the first map lies, as seen from its pane: pixels."""
    pane, sheet = (page.locator(name).first.bounding_box() for name in (".pane", ".sheet"))
    return sheet["x"] - pane["x"], sheet["y"] - pane["y"]


def test_the_map_is_moved_and_zoomed_by_keyboard(open_page):
    page = open_page("night")
    page.locator(".pane").first.focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert zoom(page) == pytest.approx(2.25)
    before = corner(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert corner(page)[0] < before[0]
    assert corner(page)[1] < before[1]
    assert page.locator(".readout").first.inner_text().startswith("tile ")
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert zoom(page) == 1
    assert corner(page) == (0, 0)
    for _ in range(30):
        page.keyboard.press("-")
    assert corner(page) == (0, 0)
    assert focused(page) == ""  # and no flag was moved to


def test_the_map_is_moved_and_zoomed_by_mouse_about_the_point_that_is_pointed_at(open_page):
    page = open_page("night")
    pane = page.locator(".pane").first
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"])
    page.mouse.wheel(0, 50)  # nobody has touched the map: the page scrolls
    page.wait_for_timeout(200)
    assert zoom(page) == 1
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    point = box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"]
    page.mouse.click(*point)
    page.mouse.wheel(0, -400)
    page.wait_for_function("Number(document.querySelector('.pane').dataset.zoom) > 1.5")
    factor, (left, top) = zoom(page), corner(page)
    assert left == pytest.approx(-0.75 * box["width"] * (factor - 1), rel=0.02)
    assert top == pytest.approx(-0.75 * box["height"] * (factor - 1), rel=0.02)
    page.mouse.down()
    page.mouse.move(point[0] + 30, point[1] + 10, steps=3)
    page.mouse.up()
    assert corner(page)[0] == pytest.approx(left + 30, abs=1)
    assert corner(page)[1] == pytest.approx(top + 10, abs=1)
    (left, top), (across, down) = corner(page), (point[0] - box["x"], point[1] - box["y"])
    page.mouse.dblclick(*point)
    assert zoom(page) == pytest.approx(2 * factor, rel=0.02)
    assert corner(page)[0] == pytest.approx(across - 2 * (across - left), abs=2)
    assert corner(page)[1] == pytest.approx(down - 2 * (down - top), abs=2)
    page.locator(".map").first.get_by_role("button", name="Show all").click()
    assert zoom(page) == 1


def test_two_fingers_zoom_the_map_and_one_moves_it(open_page):
    page = open_page("night", width=375, height=800, has_touch=True, is_mobile=True)
    pane = page.locator(".pane").first
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    middle, height = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: float) -> None:
        points = [{"x": middle + place, "y": height, "id": number} for number, place in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", -20)
    fingers("touchStart", -20, 20)
    for reach in (25, 30, 40, 60):
        fingers("touchMove", -reach, reach)
    fingers("touchEnd")
    assert zoom(page) > 2
    before = corner(page)
    fingers("touchStart", 0)
    for reach in (10, 20, 30):
        fingers("touchMove", reach)
    fingers("touchEnd")
    assert corner(page)[0] == pytest.approx(before[0] + 30, abs=8)


def test_the_map_tells_of_the_tile_that_is_pointed_at(open_page):
    page = open_page("night")
    pane = page.locator(".pane").first
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()

    def told(column: int, row: int) -> str:
        page.mouse.move(box["x"] + (column + 0.5) / 400 * box["width"], box["y"] + (row + 0.5) / 200 * box["height"])
        return page.locator(".readout").first.inner_text()

    assert told(45, 10) == f"tile {HOSTILE}-r00000-c00040: score 0.02, 1 in 21 normal tiles look as odd"
    assert told(65, 10).endswith("-r00000-c00060: no score")
    assert told(5, 190) == f"tile {HOSTILE}-r00180-c00000: score 1.8, 1 in 1,801 normal tiles look as odd"
    assert page.title().startswith("watch ·")


def test_a_press_on_a_flag_of_the_map_leads_to_its_card_and_one_that_moved_does_not(open_page):
    page = open_page("night")
    mark = page.get_by_role("link", name="Flag 5", exact=True)
    mark.scroll_into_view_if_needed()
    page.locator(".pane").first.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowUp")
    box = mark.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] - 20, box["y"] + 20, steps=3)
    page.mouse.up()
    assert focused(page) == "mark-5"
    mark.click()
    assert focused(page) == "flag-5"
    assert page.locator("#flag-5").is_visible()


def test_a_card_leads_to_its_tile_on_the_map_and_back(open_page):
    page = open_page("night")
    page.locator("#flag-2").get_by_role("link", name="on the map").click()
    assert focused(page) == "mark-2"
    assert "-r00020-c00080" in page.locator(".readout").first.inner_text()
    page.keyboard.press("Enter")
    assert focused(page) == "flag-2"


def test_a_flag_of_the_map_that_gets_the_focus_comes_into_sight(open_page):
    page = open_page("night")
    page.locator(".pane").first.focus()
    for _ in range(6):
        page.keyboard.press("+")
    for _ in range(2):
        page.keyboard.press("Tab")
    assert focused(page) == "mark-1"
    pane, mark = page.locator(".pane").first.bounding_box(), page.locator("#mark-1").bounding_box()
    assert pane["x"] <= mark["x"] + mark["width"] / 2 <= pane["x"] + pane["width"]
    assert pane["y"] <= mark["y"] + mark["height"] / 2 <= pane["y"] + pane["height"]


def test_a_suppressed_tile_on_the_map_leads_to_why_it_is_none(open_page):
    page = open_page("night")
    page.get_by_role("link", name="Suppressed 1", exact=True).click()
    assert focused(page) == "suppressed-1"


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

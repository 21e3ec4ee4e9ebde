"""The pages in a real browser: pictures load, keys work, nothing is requested, a phone needs no sideways scrolling."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.pages import render_night, render_validation
from tasks.pictures import heat_image, jpeg_data_uri, png_data_uri
from tasks.views import CheckView, DriftRow, DriftView, FlagView, NightView, QuarantineView, SceneView, ValidationView

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

# Quiet: a headless Chromium otherwise looks for updates and components by itself.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
LONG = "a_name_without_any_space_" * 8
HOSTILE = """"><script>document.title = "taken over"</script><img src=x onerror='document.title = "taken over"'>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        message = (
            "no `chromium` on the PATH: install it (Debian: apt-get install chromium) to test the pages in a browser"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of a rich night, of one with nothing in it, and of the checks."""
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)

    flags = [
        FlagView(
            tile_id=f"tile{place}" if place else LONG,
            location=HOSTILE if place == 1 else "rennes",
            acquired="2017-06-21",
            score=0.9 - place / 10,
            p_value=(place + 1) / 1000,
            threshold=0.3,
            latitude=48.1,
            longitude=-1.6,
            valid_fraction=0.9,
            pictures={
                "true colour": png_data_uri(noise()),
                "expected": png_data_uri(noise()),
                "heatmap": png_data_uri(heat_image(rng.random((32, 32)), 0, 1)),
            }
            if place < 4
            else {},
            band_errors={f"B{band:02d}": 0.1 for band in range(10)},
            parts={"texture": 0.8, "bands": 0.2},
            judged=HOSTILE if place == 0 else LONG,
            history=[("2017-05-02", 0.1), ("2017-06-01", 0.2), ("2017-06-21", 0.8)],
            heatmap_file=f"scores/{LONG}.tif",
            window=(0.15 * place, 0.1, 0.1, 0.2),
        )
        for place in range(6)
    ]
    view = NightView(
        name="watch",
        night="2017-06-21",
        detector_version=LONG,
        calibration_id="cal-7",
        basis="training",
        nominal_rate=0.01,
        tiles=200,
        scored=192,
        flagged=6,
        flags=flags,
        scenes=(SceneView(LONG, "2017-06-21", 200, 192, 6, 0.2, 0.04, "scored", HOSTILE, alarm=LONG),),
        quarantined=(QuarantineView(LONG, "ingest", HOSTILE),),
        drift=DriftView("drift", (LONG,), (DriftRow(LONG, 0.4, 0.2),), [("2017-06-01", 0.4), ("2017-06-21", 1.2)]),
        checks=(CheckView(LONG, "finite", "B02", "critical", "0", "0", True),),
        maps={"rennes": jpeg_data_uri(rng.integers(0, 256, (300, 480, 3), dtype=np.uint8))},
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
    assert len(widths) == (4 * 3 + 1 if name == "night" else 0)
    assert all(width > 0 for width in widths)
    assert page.title().startswith("watch ·")


@pytest.mark.parametrize(("forward", "back"), [("j", "k"), ("ArrowRight", "ArrowLeft")])
def test_keys_move_from_flag_to_flag(open_page, forward, back):
    page = open_page("night")
    visited = []
    for key in (forward, forward, forward, forward, forward, back):
        page.keyboard.press(key)
        visited.append(focused(page))
    assert visited == ["flag-1", "flag-2", "flag-3", "flag-4", "flag-4", "flag-3"]
    box = page.locator("#flag-3").bounding_box()
    assert box is not None
    assert -1 <= box["y"] < 100
    assert page.eval_on_selector("#flag-3", "flag => getComputedStyle(flag).outlineStyle") == "solid"


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
    frame.get_by_role("link", name="Flag 6", exact=True).focus()
    page.keyboard.press("Enter")
    assert frame.evaluate("document.activeElement.id") == "flag-6"
    assert frame.get_by_role("cell", name="tile5").is_visible()
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
    page.get_by_role("button", name="Flip true colour and expected").first.click()
    assert first.get_attribute("src") != before
    assert page.eval_on_selector("#flag-1", captions) == ["expected", "true colour", "heatmap"]
    page.keyboard.press("b")
    assert first.get_attribute("src") == before
    assert page.eval_on_selector("#flag-1", captions) == ["true colour", "expected", "heatmap"]


def test_without_script_all_is_there_but_the_flip_button(open_page):
    page = open_page("night", java_script_enabled=False)
    assert page.locator(".flag img").count() == 12
    assert page.locator(".flip:visible").count() == 0
    page.get_by_text("2 more flags without pictures").click()
    assert page.get_by_role("cell", name="tile5").is_visible()


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


def test_a_printed_night_has_every_picture(open_page, tmp_path):
    page = open_page("night")
    page.emulate_media(media="print")
    assert page.locator(".flip:visible").count() == 0
    assert page.locator(".flag img:visible").count() == 12
    assert page.pdf().startswith(b"%PDF")

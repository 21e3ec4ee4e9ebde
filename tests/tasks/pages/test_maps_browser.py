"""The map of a page in a real browser: it is moved and zoomed by keys, mouse and fingers, and leads to its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

from tests.tasks.pages.browsing import HOSTILE, focused

pytestmark = pytest.mark.browser


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

"""The page of tiles that are alike in a real browser: pictures load, nothing is requested, names are text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.pictures import heat_image, png_data_uri
from tasks.similar_page import SimilarView, TileView, render_similar

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

HOSTILE = """"><script>document.title = "taken over"</script><img src=x onerror='document.title = "taken over"'>"""
LONG = "a_name_without_any_space_" * 6


def page_of(folder: Path) -> str:
    draw = np.random.default_rng(0)

    def tile(number: int, location: str = "rennes") -> TileView:
        images = {
            "true colour": png_data_uri(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)),
            "heatmap": png_data_uri(heat_image(draw.random((32, 32)), 0, 1)),
        }
        known = {"latitude": 48.1, "longitude": -1.6, "score": 1.2, "p_value": 0.004, "threshold": 1.0}
        return TileView(
            tile_id=f"{location}-r{32 * number:05d}-c00000",
            location=location,
            scene_id=f"{location}/2017-06-21",
            acquired="2017-06-21T00:00:00+00:00",
            distance=0.1 * number,
            flagged=bool(number % 2),
            verdict="anomaly" if number == 2 else "",
            kind=HOSTILE if number == 2 else "",
            pictures={} if number == 3 else images,
            **({} if number == 3 else known),
        )

    found = [tile(number, {1: HOSTILE, 4: LONG}.get(number, "rennes")) for number in range(1, 7)]
    view = SimilarView("watch", "v3", tile(0), found, 1234, 56, 14, 16, "Each tile is shown once.")
    path = folder / "similar.html"
    path.write_text(render_similar(view), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_every_picture_is_drawn_nothing_is_requested_and_names_are_text(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    trouble: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file://", "data:")) else trouble.append(request.url),
    )

    page.goto(page_of(tmp_path))

    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert widths == [32] * (2 * 6)
    assert page.title() == "watch · like rennes-r00000-c00000"
    assert page.locator("#tile-1 h3").inner_text().endswith(HOSTILE)
    assert HOSTILE in page.locator("#tile-2").inner_text()
    assert "No picture" in page.locator("#tile-3").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert trouble == []

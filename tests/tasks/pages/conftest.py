"""Pages of a rich night, of an empty one and of checks, and a browser that opens them."""

from __future__ import annotations

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

from tests.tasks.pages.browsing import HOSTILE, LONG


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

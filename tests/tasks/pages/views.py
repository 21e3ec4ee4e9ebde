"""What pages are made of, filled with something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tasks.pictures import png_data_uri
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
)


def picture(seed: int, side: int = 16) -> str:
    return png_data_uri(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def flag(place: int, pictures: dict[str, str] | None = None, **changes: Any) -> FlagView:
    view = FlagView(
        tile_id=f"r{place:03d}c007",
        location="rennes",
        acquired="2017-06-21",
        score=0.5 + place / 1000,
        p_value=0.0025,
        threshold=0.4,
        latitude=48.1173,
        longitude=-1.6778,
        valid_fraction=0.97,
        pictures={"true colour": picture(0), "expected": picture(1)} if pictures is None else pictures,
        band_errors={"B02": 0.2, "B04": 0.5, "B08": 0.3},
        parts={"texture": 0.75, "bands": 0.25},
        judged="looked at alone, by novelty",
        history=[("2017-02-02", 0.1), ("2017-05-22", float("nan")), ("2017-06-01", 0.2), ("2017-06-21", 0.5)],
        files={"heatmap": "../../scores/v%201/rennes/2017-06-21_anomaly.tif"},
        window=(0.25, 0.5, 0.1, 0.1),
        scene="rennes/2017-06-21",
    )
    return replace(view, **changes)


def place(flags: list[FlagView], **changes: Any) -> PlaceView:
    return replace(PlaceView("rennes", len(flags), 1e4 * len(flags), 48.1, -1.6, flags), **changes)


def suppressed(number: int = 0, **changes: Any) -> SuppressedView:
    view = SuppressedView(
        tile_id=f"s{number:03d}",
        location="rennes",
        acquired="2017-06-21",
        score=0.45,
        threshold=0.4,
        bar=0.6,
        p_value=0.05,
        reason="2 false alarms at this tile raised the bar",
        alike="",
        latitude=48.1,
        longitude=-1.6,
        window=(0.5, 0.5, 0.1, 0.1),
        scene="rennes/2017-06-21",
    )
    return replace(view, **changes)


def reviewed(**changes: Any) -> ReviewedView:
    rows = [ReviewedRow("rennes", 6, 3, 1, 2, 0.6, 0.26, 0.88), ReviewedRow("paris", 0, 0, 0, 1, *[float("nan")] * 3)]
    overall = ReviewedRow("all", 6, 3, 1, 3, 0.6, 0.26, 0.88)
    return replace(ReviewedView(30, overall, rows, EstimateView(50, 1, 2000.0, 40.0, 1.0, 222.0)), **changes)


def scene_map(**changes: Any) -> MapView:
    view = MapView(
        scene="rennes/2017-06-21",
        location="rennes",
        acquired="2017-06-21",
        size=(40, 40),
        ground=picture(3),
        odds=picture(4),
        tile=(20, 20),
        rows=(0, 20),
        columns=(0, 20),
        scores=(0.5, 0.1, None, 0.2),
        once_in=(400.0, 2.0, 0.0, 3.0),
    )
    return replace(view, **changes)


def night(flags: list[FlagView], **changes: Any) -> NightView:
    """A night; each flag is a place of its own."""
    view = NightView(
        name="watch",
        night="2017-06-21",
        detector_version="1.0.3",
        calibration_id="cal-7",
        basis="held_out",
        nominal_rate=0.01,
        tiles=200,
        scored=192,
        flagged=len(flags),
        places=[place([one]) for one in flags],
        suppressed=[suppressed()],
        asked=AskedView(3, 1, 5),
        before=LastNights(7, "2017-06-01", 2.0),
        reviewed=reviewed(),
        scenes=(
            SceneView("rennes", "2017-06-21", 100, 96, len(flags), 0.2, 0.04, "scored"),
            SceneView("paris", "2017-06-21", 100, 96, 0, 0.1, 0.0, "scored", alarm="all of the scene scores 3 times"),
            SceneView("mumbai", "2017-06-21", 0, 0, 0, None, None, "quarantined", "another grid"),
        ),
        quarantined=(QuarantineView("mumbai/2017-06-21", "ingest", "B08.tif has another grid"),),
        drift=DriftView(
            "no drift", ("all within limits",), (DriftRow("PSI of B04", 0.1, 0.25),), [("a", 0.2), ("b", 0.4)]
        ),
        checks=(CheckView("rennes/2017-06-21", "finite", "B02", "critical", "0", "0", True),),
        maps=[scene_map()],
        details={"Runtime": "torch, float32"},
        links={"Checks": "validation.html"},
        created="2017-06-22T03:14Z",
    )
    return replace(view, **changes)


def checks() -> tuple[CheckView, ...]:
    return (
        CheckView("a/2017", "finite", "B02", "critical", "0", "0", True),
        CheckView("a/2017", "cloud", "", "info", "0.97", "at most 0.95", False),
        CheckView("b/2017", "range", "B11", "warning", "0.6", "at most 0.44", False),
        CheckView("c/2017", "plausible", "B11", "critical", "3.2", "at most 2", False),
    )

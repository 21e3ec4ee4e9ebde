"""What a reviewer sees: pictures in one strip, numbers in words, and names as nothing but text."""

from __future__ import annotations

import base64
import io
import time
from datetime import date
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.pictures import jpeg_data_uri, png_data_uri
from tasks.review.preview import MOST_BYTES, SHORTEST, SIDE, headline, preview, short_preview, strip, text
from tasks.review.questions import Question

HOSTILE = (
    "<script>alert(1)</script>|`x` [a](javascript:alert(1)) ![](http://evil.example/x.png) www.evil.example "
    "a@evil.example"
)
REPORT = f"https://watch.example/mlflow/#/experiments/1/runs/{'a' * 32}/artifacts/report.html"
LINKS = {"The night's report": REPORT}
MARKUP = set("\\`*_{}[]()#+!|~<>")


def question(**values: Any) -> Question:
    known = {
        "night": date(2025, 7, 1),
        "location": "oxbow",
        "scene_id": "oxbow/2025-07-01",
        "tile_id": "oxbow-r00032-c00064",
        "asked": "flag",
        "share": 1.0,
        "detector_version": "v3",
        "score": 12.25,
        "p_value": 0.0004,
        "p_reviewed": 0.0004,
        "threshold": 8.0,
        "kind": "aligned_difference",
        "suppressed": "",
        "latitude": 47.112758,
        "longitude": 20.533912,
        "valid_fraction": 0.98,
        "bands": {"B08": 0.6, "B04": 0.4},
    }
    return Question(**known | values)


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [16, 32, 100, 256])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_strip_holds_all_pictures_and_stays_small_even_of_noise(side: int, count: int) -> None:
    images = {f"picture {number}": png_data_uri(noise(side, number)) for number in range(count)}

    jpeg = strip(images)

    sheet = Image.open(io.BytesIO(jpeg))
    assert sheet.format == "JPEG"
    assert sheet.width >= min(count, 4) * SIDE // 2
    assert sheet.height >= -(-count // 4) * SIDE // 2
    assert len(jpeg) <= MOST_BYTES
    assert strip(images) == jpeg


def test_each_picture_of_a_strip_lies_below_its_name() -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]
    images = {str(colour): jpeg_data_uri(np.full((32, 32, 3), colour, np.uint8), 95) for colour in colours}

    sheet = np.asarray(Image.open(io.BytesIO(strip(images))).convert("RGB")).astype(int)

    for place, colour in enumerate(colours):
        top, left = place // 4 * (SIDE + 24) + 18, place % 4 * (SIDE + 6)
        middle = sheet[top + SIDE // 2, left + SIDE // 2]
        assert np.abs(middle - colour).max() < 12
        assert sheet[top - 17 : top - 2, left : left + 60].min() < 100, "its name is written there"


def test_a_preview_of_seven_noisy_pictures_is_drawn_by_mlflow() -> None:
    images = {f"picture {number}": png_data_uri(noise(256, number)) for number in range(7)}

    assert len(preview(question(), strip(images), LINKS)) < 60_000  # above 100 000 characters it draws nothing


def test_a_preview_has_the_numbers_in_words() -> None:
    shown = preview(question(), b"jpeg", LINKS)

    for words in (
        "### oxbow · 2025-07-01",
        "| asked, since it is | a flag |",
        "| score | 12.2, threshold 8 (aligned_difference) |",
        "| how unusual | 1 in 2,500 normal tiles scores as high (p = 0.0004) |",
        "| place | 47.11276, 20.53391 (latitude, longitude) |",
        "| usable | 98% of its pixels |",
        "| bands that differ | B08 60%, B04 40% |",
        f"[The night's report]({REPORT})",
        f"data:image/jpeg;base64,{base64.b64encode(b'jpeg').decode()}",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"p_value": None}, "| how unusual | not known |"),
        ({"p_value": 0.7, "p_reviewed": 0.7}, "most normal tiles score so (p = 0.7)"),
        ({"p_reviewed": 0.04}, "with the verdicts of this place p = 0.04"),
        ({"asked": "sample"}, "drawn at random from the tiles below their threshold"),
        ({"asked": "suppressed", "suppressed": "like here-r0"}, "suppressed, and so no flag: like here-r0"),
        ({"threshold": None}, "| score | 12.2 (aligned"),
    ],
)
def test_what_is_not_known_or_special_is_said(values: dict[str, Any], words: str) -> None:
    assert words in preview(question(**values), None, {})


def test_without_a_picture_or_a_server_there_is_none_and_no_link() -> None:
    shown = preview(question(), None, {})

    assert "![" not in shown
    assert "](" not in shown
    assert "No pictures" in shown


def test_a_name_is_nothing_but_text() -> None:
    shown = text(HOSTILE)

    plain = shown.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "")
    assert all(plain[at - 1] == "\\" for at, letter in enumerate(plain) if letter in MARKUP - {"\\"})
    for link in ("http://", "www.", "a@"):
        assert link not in shown
    assert "\n" not in text("two\nlines\r\tand \x00 \x1b[31m more \ud800")
    assert len(text("a" * 1000)) == 200


def test_a_hostile_name_adds_no_row_no_column_and_no_link_to_a_preview() -> None:
    shown = preview(question(location=HOSTILE, tile_id=HOSTILE, bands={HOSTILE: 0.6, "B": 0.4}), None, {})

    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {3}
    assert "<" not in shown


def test_a_headline_tells_where_and_how_much() -> None:
    assert headline(question(), 3, 28) == "3 of 28 · oxbow · oxbow-r00032-c00064 · score 12.2"


@pytest.mark.parametrize("name", ["oxbow", HOSTILE * 3])
def test_a_short_preview_fits_any_database_and_keeps_its_picture(name: str) -> None:
    address = "https://watch.example/mlflow/get-artifact?path=questions%2Fabcdef.jpg&run_uuid=" + "a" * 32
    long = question(
        location=name, tile_id=name, suppressed=name, asked="suppressed", bands={name: 0.6, f"{name} 2": 0.4}
    )

    shown = short_preview(long, address, LINKS)

    assert len(shown) <= SHORTEST
    assert f"![Pictures of the tile]({address})" in shown


def test_a_long_name_takes_no_time() -> None:
    began = time.process_time()

    text("a" * 199 + "|")

    assert time.process_time() - began < 1

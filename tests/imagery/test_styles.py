"""Styles say what a score means: nothing below what is usual, a break at the threshold, brighter means worse."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagery.outputs.styles import heatmap_stops, write_heatmap_style, write_outline_style

SCALES = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))


def lightness(colour: str) -> float:
    """CIE L* of #rrggbb."""
    stored = np.array([int(colour[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def seen_without_red_and_green(colour: str) -> float:
    """L* for an eye without red cones (Viénot, Brettel & Mollon 1999): red counts for little."""
    stored = np.array([int(colour[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    linear = stored**2.2
    red = 0.11238 * linear[0] + 0.88762 * linear[1]
    return float((0.2126 + 0.7152) * red + 0.0722 * linear[2])


@given(SCALES)
def test_the_scale_rises_with_a_break_at_the_threshold(scale: tuple[float, float]) -> None:
    usual, threshold = scale

    stops = heatmap_stops(usual, threshold)

    values, colours, opacities = ([stop[index] for stop in stops] for index in (0, 1, 2))
    assert values == sorted(set(values))
    assert opacities == sorted(opacities)
    assert (opacities[0], opacities[-1]) == (0, 255)
    if threshold - usual > 1e-3 * max(abs(threshold), 1):
        assert values[0] == pytest.approx(usual, abs=1e-9 * max(abs(usual), abs(threshold)))
    at = values.index(threshold)
    assert values[at + 1] == np.nextafter(threshold, np.inf)
    assert colours[at] != colours[at + 1]
    assert opacities[at] == 255


def test_colours_are_ordered_for_every_eye() -> None:
    colours = [stop[1] for stop in heatmap_stops(1, 2)][1:]

    assert (np.diff([lightness(colour) for colour in colours]) > 2).all()
    assert (np.diff([seen_without_red_and_green(colour) for colour in colours]) > 0).all()


def test_a_heatmap_style_holds_the_scale_to_the_last_digit(tmp_path: Path) -> None:
    write_heatmap_style(tmp_path / "a.qml", usual=np.float64(1.0), threshold=2.345678901234567)

    renderer = ElementTree.parse(tmp_path / "a.qml").getroot().find("pipe/rasterrenderer")
    items = renderer.findall(".//item")
    stops = heatmap_stops(1.0, 2.345678901234567)
    assert renderer.get("type") == "singlebandpseudocolor"
    assert [float(item.get("value")) for item in items] == [stop[0] for stop in stops]
    assert [item.get("alpha") for item in items][:2] == ["0", "80"]
    assert "threshold: 2.35" in [item.get("label") for item in items]


def test_an_outline_style_carries_its_label_whatever_it_says(tmp_path: Path) -> None:
    label = '"tiles" || \' × <&> \' || "score"'

    write_outline_style(tmp_path / "a.qml", label)

    root = ElementTree.parse(tmp_path / "a.qml").getroot()
    assert root.find("labeling/settings/text-style").get("fieldName") == label
    assert [layer.get("class") for layer in root.findall(".//layer")] == ["SimpleLine", "SimpleLine"]

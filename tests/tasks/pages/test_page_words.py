"""The words and the small pictures of numbers on a page."""

from __future__ import annotations

import pytest

from tasks.night_words import asked_words, estimate_words
from tasks.page_words import area, curve, number, odds, share, when
from tasks.views import AskedView, EstimateView


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (AskedView(), ""),
        (AskedView(flag=1), "In the review people are asked about 1 flag."),
        (
            AskedView(20, 1, 5),
            "In the review people are asked about 20 flags, 1 of the 3 suppressed tiles, to see whether that was "
            "right, and 5 drawn at random below the threshold, so that misses can be estimated.",
        ),
    ],
)
def test_it_is_said_who_is_asked_about_what(asked, words):
    assert asked_words(asked, 3) == words


def test_what_a_sample_suggests_is_said_with_its_interval():
    found = EstimateView(50, 0, 2000.4, 0.0, 0.0, 73.6)
    assert estimate_words(found, "those below the threshold", "were missed").replace("\u202f", " ") == (
        "Of 50 tiles drawn at random among those below the threshold, none show an anomaly: about 0 of 2,000 were "
        "missed (95 % interval 0 to 74)."
    )


@pytest.mark.parametrize(
    ("acquired", "words"),
    [
        ("2025-06-15T00:00:00+00:00", "2025-06-15"),
        ("2025-06-15", "2025-06-15"),
        ("2025-06-15T10:50:31+00:00", "2025-06-15 10:50 UTC"),
        ("the day before", "the day before"),
    ],
)
def test_times_are_short(acquired, words):
    assert when(acquired) == words


@pytest.mark.parametrize(
    ("square_metres", "words"), [(400, "400 m²"), (25_600, "2.56 ha"), (999_900, "100 ha"), (5.1e8, "510 km²")]
)
def test_areas_are_short(square_metres, words):
    assert area(square_metres).replace("\u202f", " ") == words


@pytest.mark.parametrize(
    ("p_value", "words"),
    [
        (0.0025, "1 in 400"), (1.0, "1 in 1"), (0.3, "1 in 3"), (1 / 1597, "1 in 1,600"), (0.0, "under 1 in a million"),
        (None, "not calibrated"), (float("nan"), "not calibrated"),
    ],
)  # fmt: skip
def test_p_values_in_words(p_value, words):
    assert odds(p_value) == words


def test_numbers_are_short():
    minus, missing = "\N{MINUS SIGN}", "\N{EN DASH}"
    values = [number(value) for value in (0.123456, -1.5, 12345.6, None, float("nan"))]
    assert values == ["0.1235", f"{minus}1.5", "12,346", missing, missing]
    shares = [share(value).replace("\u202f", " ") for value in (0.01, 0.0326, 0.5, 0.00012, 0, 1, 0.999)]
    assert shares == ["1 %", "3.3 %", "50 %", "0.01 %", "0 %", "100 %", "100 %"]


def test_a_history_is_drawn_to_scale_with_gaps():
    line = curve([("2020-01-01", 0.0), ("2020-01-02", 1.0), ("2020-01-03", float("nan")), ("2020-01-11", 2.0)], 1.0)
    assert line is not None
    assert line.pieces == ("2.0,28.0 11.6,15.0", "98.0,2.0")
    assert line.limit == 15.0
    assert curve([("a", 1.0), ("b", 2.0), ("c", 3.0)], 0.0).pieces[0].split()[1].startswith("50.0,")
    assert curve([("a", 1.0), ("b", float("nan"))], 0.0) is None

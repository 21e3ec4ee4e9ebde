"""The benchmark of the review: what it puts into scenes, how it counts, and that the whole of it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from benchmarks import restless, review
from benchmarks.restless import Happening, alter, settle
from benchmarks.review_judging import EVENLY, Month, compared, goals, precisions
from benchmarks.reviewer import Reviewer
from imagery.simulate import Location, Plan, simulate
from tasks.review.verdicts import Verdict

DAYS = tuple(date(2025, 5, 1) + timedelta(days=number) for number in range(3))
PLACE = Location("tisza-plain", "river", 32634, west=463_200, north=5_218_600, size=64)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("simulated")
    clear = tuple((PLACE.name, day) for day in DAYS)
    simulate(folder, Plan(3, (PLACE,), DAYS, DAYS[0], DAYS[0], clear_scenes=clear))
    return [folder / PLACE.name / f"{day}.tif" for day in DAYS]


def test_by_default_events_lie_on_restless_tiles_as_often_as_chance_has_it(scenes: list[Path]) -> None:
    days = [DAYS[0] + timedelta(days=number) for number in range(200)]

    def share(on_restless: float | None) -> float:
        doings = settle(scenes, days, 16, restless=4, events=1, on_restless=on_restless, seed=1)
        return sum(event.tile in doings.restless for event in doings.events) / len(doings.events)

    assert 0.15 < share(None) < 0.35  # 4 of 16 tiles
    assert share(0.9) > 0.7


def values(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read()


def test_scenes_change_where_something_happens_and_nowhere_else(scenes: list[Path], tmp_path: Path) -> None:
    doings = settle(scenes, DAYS, 16, restless=3, events=2, on_restless=0.3, seed=1)
    to = tmp_path / PLACE.name / scenes[1].name

    happened = alter(scenes[1], to, doings, 1, 16)

    assert sorted(doings.restless.values()) == ["car park", "greenhouse", "quarry"]
    assert sum(1 for one in happened if one.restless) == 3
    assert sum(1 for one in happened if one.event) == sum(event.there(DAYS[1]) for event in doings.events) == 4
    changed = (values(to) != values(scenes[1])).any(axis=0)
    there = {one.tile_id for one in happened if one.event or one.stirred}
    for row in range(0, 64, 16):
        for col in range(0, 64, 16):
            expected = f"{PLACE.name}-r{row:05d}-c{col:05d}" in there
            assert changed[row : row + 16, col : col + 16].any() == expected
    np.testing.assert_array_equal(values(to)[4:], values(scenes[1])[4:])  # the other band and the classes


def test_a_restless_tile_looks_different_each_night_and_the_same_each_time(scenes: list[Path]) -> None:
    ((tile, sort),) = settle(scenes, DAYS, 16, 1, 0, 0, seed=1).restless.items()
    ground, light = restless._read(scenes[0], 16)

    looks = [restless._stir(ground, light, tile, sort, 1, turn) for turn in (0, 1, 2, 0)]

    assert all(look is not None for look in looks)
    assert all(not np.array_equal(looks[0], other) for other in looks[1:3])
    np.testing.assert_array_equal(looks[0], looks[3])


def month(name: str, flagged: dict[str, float], seed: int = 0, nights: int = 30, verdicts: tuple = ()) -> Month:
    """Tiles of three sorts, each flagged at a rate of its own."""
    draw = np.random.default_rng(seed)
    rows = [
        {
            "location": "here", "night": DAYS[0] + timedelta(days=night), "tile_id": f"{sort}-{number}",
            "flagged": draw.random() < flagged[sort], "suppressed": None, "alike": None,
        }
        for night in range(nights) for sort in ("restless", "event", "other") for number in range(10)
    ]  # fmt: skip
    return Month(name, pd.DataFrame(rows), verdicts)


HAPPENED = [
    Happening("here", DAYS[0] + timedelta(days=night), f"{sort}-{number}", **about)
    for night in range(30)
    for sort, about in (("restless", {"restless": "quarry", "stirred": True}), ("event", {"event": "burn"}))
    for number in range(10)
]


def test_what_verdicts_change_is_told_with_intervals_that_hold_it() -> None:
    before = month(review.WITHOUT, {"restless": 0.6, "event": 0.8, "other": 0.02})
    after = month(review.WITH, {"restless": 0.1, "event": 0.8, "other": 0.02}, seed=1)

    rows = {row["what"]: row for row in compared(after, before, HAPPENED, seed=0)}

    later = rows["false alarms at restless tiles, later nights"]
    assert later["tiles"] == 200
    assert later["ratio"]["value"] == pytest.approx(0.1 / 0.6, abs=0.08)
    assert later["ratio"]["low"] < 0.1 / 0.6 < later["ratio"]["high"] < 0.5
    assert rows["recall of events"]["difference"]["low"] < 0 < rows["recall of events"]["difference"]["high"]
    assert rows["false alarms elsewhere"]["tiles"] == 300
    found = goals(list(rows.values()), review.WITH)
    assert found["false alarms at restless tiles after ten nights, of those without"]["sure"]
    assert not found["change of recall of events, as they were put"]["sure"]


def test_the_same_month_twice_is_no_change() -> None:
    same = month(review.WITHOUT, {"restless": 0.6, "event": 0.8, "other": 0.02})

    for row in compared(replace(same, name=review.WITH), same, HAPPENED, seed=0):
        assert row["difference"] == {"value": 0, "low": 0, "high": 0}


def test_precision_is_told_early_and_late() -> None:
    verdicts = [Verdict(f"here/{DAYS[0]}", "a", "false alarm"), Verdict(f"here/{DAYS[0]}", "b", "anomaly")]
    late = Verdict(f"here/{DAYS[0] + timedelta(days=10)}", "c", "anomaly")

    found = precisions([*verdicts, late], DAYS[0])

    assert (found["first ten nights"]["reviewed"], found["first ten nights"]["share"]) == (2, 0.5)
    assert (found["later nights"]["reviewed"], found["later nights"]["share"]) == (1, 1)


def test_the_reviewer_knows_the_truth_and_errs_as_often_as_is_said() -> None:
    nights = [DAYS[0] + timedelta(days=number) for number in range(30)]

    def answers(sort: str) -> list[tuple[str, str] | None]:
        tiles = [(night, f"{sort}-{number}") for night in nights for number in range(10)]
        return [Reviewer.of(HAPPENED, review.QUICK.mistakes, review.QUICK.seed).answer("here", *one) for one in tiles]

    events, others = answers("event"), answers("restless")

    assert set(events) == {("anomaly", "burn"), ("false alarm", "")}
    assert set(others) == {("false alarm", ""), ("anomaly", "other")}
    wrong = events.count(("false alarm", "")) + others.count(("anomaly", "other"))
    assert 0.02 < wrong / 600 < 0.09
    assert events == answers("event")


def test_the_reviewer_confirms_an_event_once() -> None:
    reviewer = Reviewer.of(HAPPENED, 0.0, review.QUICK.seed)

    found = [reviewer.answer("here", DAYS[0] + timedelta(days=number), "event-1") for number in range(6)]

    assert found == [("anomaly", "burn"), None, None, None, None, ("anomaly", "burn")]


def test_events_on_restless_tiles_weigh_no_more_than_their_ground() -> None:
    on = [replace(one, event="burn") for one in HAPPENED if one.restless]
    before = month(review.WITHOUT, {"restless": 1.0, "event": 1.0, "other": 0.0})
    after = month(review.WITH, {"restless": 0.0, "event": 1.0, "other": 0.0})
    happened = [*on, *(one for one in HAPPENED if one.event)]

    rows = {row["what"]: row for row in compared(after, before, happened, seed=0)}

    assert rows["recall of events"]["difference"]["value"] == -0.5
    assert rows[EVENLY]["difference"]["value"] == pytest.approx(-1 / 3, abs=1e-3)  # a third of the ground


@pytest.mark.slow
@pytest.mark.servers
def test_a_few_nights_are_reviewed_in_mlflow_and_judged_in_all_ways(tmp_path: Path) -> None:
    months, happened, seconds = review.run(tmp_path / "work", review.QUICK)

    result = json.loads(json.dumps(review.record(months, happened, review.QUICK, seconds)))
    review.draw(months, happened, tmp_path / "review.png")

    by_name = {one.name: one for one in months}
    assert list(by_name) == [review.WITHOUT, review.WITH, *review.WAYS]
    assert result["verdicts"][review.WITH]["of flag"] > 0
    assert {one.reviewer for one in by_name[review.WITH].verdicts} == {"scripted"}
    # Through MLflow and the flow, or by the same code without them: the same verdicts, the same flags.
    pd.testing.assert_frame_equal(by_name[review.WITH].tiles, by_name["bars, repeats 2"].tiles)
    assert [(one.scene_id, one.tile_id, one.verdict) for one in by_name[review.WITH].verdicts] == [
        (one.scene_id, one.tile_id, one.verdict) for one in by_name["bars, repeats 2"].verdicts
    ]
    assert (tmp_path / "review.png").stat().st_size > 10_000

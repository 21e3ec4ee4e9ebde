"""The simulated year, for a few nights; and that growth is what it is said to be."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks import year


def cost(number: int, **changed: float) -> year.NightCost:
    """What a night took; the same every night but for what is given."""
    values = dict.fromkeys((field.name for field in fields(year.NightCost)), 4.0)
    return year.NightCost(**values | {"night": (year.FIRST + timedelta(days=number)).isoformat()} | changed)


@pytest.mark.parametrize(
    ("values", "month", "expected"),
    [
        ([5.0] * 90, 30, (5.0, 5.0, 0.0)),
        ([2.0] * 30 + [100.0] * 30 + [3.0] * 30, 30, (2.0, 3.0, 0.5)),  # what lies between does not count
        ([10.0] * 29 + [900.0] + [9.0] * 30, 30, (10.0, 9.0, -0.1)),  # nor does one night that took long
        ([1.0, 1.0, 2.0, 4.0, 4.0], 30, (1.0, 4.0, 3.0)),  # a short run: its first half beside its last
        ([4.0], 30, (4.0, 4.0, 0.0)),
    ],
)
def test_growth_is_the_share_by_which_the_last_month_is_above_the_first(
    values: list[float], month: int, expected: tuple[float, float, float]
) -> None:
    found = year.growth(values, month)

    assert (found["first"], found["last"]) == expected[:2]
    assert found["growth"] == pytest.approx(expected[2])


def test_what_grows_by_more_than_a_tenth_does_not_meet_the_goal(tmp_path: Path) -> None:
    leaking = [cost(number, megabytes=500.0 + number, open_files=20 + (number > 50)) for number in range(90)]

    result = year.record(leaking, {})
    year.draw(leaking, tmp_path / "year.png")

    rows = {row["what"]: row for row in result["results"]}
    assert {name for name, row in rows.items() if not row["met"]} == {"megabytes"}
    assert rows["megabytes"]["growth"] == pytest.approx(574.5 / 514.5 - 1, abs=1e-4)
    assert rows["open_files"]["growth"] == pytest.approx(0.05)
    assert (tmp_path / "year.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.servers
def test_a_few_nights_are_run_one_by_one_and_recorded(tmp_path: Path) -> None:
    seen: list[int] = []

    costs, sizes = year.run(tmp_path, 4, lambda number, total, cost: seen.append(number))

    assert seen == [1, 2, 3, 4]
    assert [one.night for one in costs] == [(year.FIRST + timedelta(days=number)).isoformat() for number in range(4)]
    reports = sorted(path.parent.name for path in (tmp_path / "workspace" / "reports").glob("*/night.json"))
    assert reports == [one.night for one in costs]
    for one in costs:
        assert one.seconds > 0
        assert one.megabytes > 100
        assert one.open_files > 3
        assert one.server_megabytes > 50
    result = json.loads(json.dumps(year.record(costs, sizes)))
    assert [row["what"] for row in result["results"]] == list(year.JUDGED)
    assert [night["night"] for night in result["nights"]] == [one.night for one in costs]
    assert set(result["kept"]) == {"workspace_megabytes", "mlflow_megabytes", "prefect_megabytes"}

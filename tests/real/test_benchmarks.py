"""The benchmark of detection on the real cities: the problems are what they say, and a quick run ends in one object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import detection
from benchmarks.peers import linear
from benchmarks.problems import injected, oscd
from benchmarks.problems.common import Method, Pair


@pytest.fixture(scope="module")
def pairs(shared: Callable[[str], Path]) -> list[Pair]:
    shared("oscd")
    return oscd.cities(oscd.QUICK)


def test_both_dates_of_a_city_lie_on_one_grid_with_the_truth(pairs: list[Pair]) -> None:
    assert [pair.name for pair in pairs] == list(oscd.QUICK)
    for pair in pairs:
        assert pair.before is not None
        assert pair.before.shape == pair.after.shape == (10, *pair.truth.shape)
        assert 0.005 < pair.truth.mean() < 0.05
        assert 10 < pair.positive.sum() < 0.1 * len(pair.tiles)


def test_single_dates_hold_every_kind_about_as_often_and_are_untouched_elsewhere(pairs: list[Pair]) -> None:
    made, again = injected.single_date(pairs), injected.single_date(pairs)

    counts: dict[str, int] = {}
    for pair, one, other in zip(pairs, made, again, strict=True):
        assert one.before is None
        np.testing.assert_array_equal(one.after, other.after)
        np.testing.assert_array_equal(one.after[:, ~one.truth], pair.after[:, ~one.truth])
        assert (one.after[:, one.truth] != pair.after[:, one.truth]).any(axis=0).mean() > 0.9
        assert 0.09 < (one.positive == 1).mean() < 0.15
        assert one.kinds is not None
        for kind, count in zip(*np.unique(one.kinds[one.positive == 1], return_counts=True), strict=True):
            counts[str(kind)] = counts.get(str(kind), 0) + int(count)
    assert "" not in counts
    assert len(counts) >= 10
    assert max(counts.values()) < 0.25 * sum(counts.values())


@pytest.mark.slow
def test_a_growing_share_is_turned_and_enough_tiles_stay_as_they_were(pairs: list[Pair]) -> None:
    made, refused = injected.widespread(pairs)

    assert len(made) + 4 * len(refused) == len(pairs) * len(injected.TURNED) * len(injected.SHARES)
    for pair in made:
        share = float(pair.condition.split(" ")[1])
        assert pair.truth.mean() == pytest.approx(share, abs=0.01)
        assert (pair.positive == 0).sum() >= injected.FEWEST
        assert (pair.positive == 1).sum() >= injected.FEWEST


@pytest.mark.slow
def test_a_quick_run_ends_in_one_object_with_quality_cost_and_goals(
    shared: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared("oscd")

    def few(pairs: bool) -> list[Method]:
        return [linear.ChangeVector(True, 90.0), linear.ChangeVector(False, None)] if pairs else [linear.RX("after")]

    monkeypatch.setattr(linear, "methods", few)  # the others take a minute
    monkeypatch.setattr(detection, "own", lambda pairs, quick: ([], detection.STAND_IN[pairs]))

    result = detection.run(("oscd", "single"), ("plain",), quick=True)
    detection.keep(result, tmp_path)

    assert json.loads((tmp_path / "detection.json").read_text()) == json.loads(json.dumps(result))
    aligned, plain = result["parts"]["oscd"]["results"]
    assert aligned["ap"]["value"] > plain["ap"]["value"] + 0.05
    assert aligned["tiles_per_second"] > 0 < aligned["peak_megabytes"]
    chance = np.mean([pair.positive.mean() for pair in oscd.cities(oscd.QUICK)])
    assert plain["ap"]["value"] > 2 * chance
    assert result["goals"]["oscd: AP"]["goal"] == 0.45
    assert {path.name for path in tmp_path.iterdir()} == {
        "detection.json", "detection.md", "detection_oscd.png", "detection_single.png"
    }  # fmt: skip

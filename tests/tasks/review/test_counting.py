"""What verdicts say in numbers, and that their intervals hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, poisson

from tasks.review.counting import missed, precision, recent, wrongly_suppressed
from tasks.review.verdicts import MEANS, Verdict


def said(verdict: str, scene: str = "here/2024-01-02", **more: object) -> Verdict:
    return Verdict(scene, "tile", verdict, **more)


def sampled(anomalies: int, others: int, share: float = 0.01, asked: str = "sample") -> list[Verdict]:
    words = ["anomaly"] * anomalies + ["false alarm"] * others
    return [said(word, asked=asked, share=share) for word in words]


def test_precision_is_the_share_of_anomalies_among_flags_whose_data_are_good() -> None:
    verdicts = [said("anomaly"), said("false alarm"), said("cloud or shadow"), said("anomaly"), said("bad data")]
    below = [said("anomaly", asked="sample"), said("false alarm", asked="suppressed")]

    (found,) = precision(verdicts + below)

    counted = (found.group, found.anomalies, found.false_alarms, found.clouds, found.bad)
    assert counted == ("all", 2, 1, 1, 1)
    assert found.share == 0.5


@pytest.mark.parametrize(("anomalies", "others"), [(0, 4), (4, 0), (3, 17), (1, 0)])
def test_the_interval_of_precision_is_that_of_clopper_and_pearson(anomalies: int, others: int) -> None:
    (found,) = precision([said("anomaly")] * anomalies + [said("false alarm")] * others)

    low = beta.ppf(0.025, anomalies, others + 1) if anomalies else 0
    high = beta.ppf(0.975, anomalies + 1, others) if others else 1
    assert (found.low, found.high) == pytest.approx((low, high))


def test_without_a_flag_that_can_be_judged_precision_is_not_defined() -> None:
    assert precision([]) == []
    (found,) = precision([said("bad data")])
    assert (found.bad, found.anomalies) == (1, 0)
    assert all(math.isnan(number) for number in (found.share, found.low, found.high))


def test_groups_are_counted_apart_and_sorted() -> None:
    verdicts = [
        said("anomaly", "b/c/2024-01-02", kind="fire", detector_version="v2"),
        said("false alarm", "a/2024-01-02T101112Z/2", kind="fire", detector_version="v1"),
        said("false alarm", "a/2024-01-03", detector_version="v1"),
        said("cloud or shadow", "a/2024-01-03"),
    ]

    def shares(by: str) -> dict[str, tuple[int, int, int]]:
        return {one.group: (one.anomalies, one.false_alarms, one.clouds) for one in precision(verdicts, by)}

    assert list(shares("location").items()) == [("a", (0, 2, 1)), ("b/c", (1, 0, 0))]
    assert list(shares("kind").items()) == [("", (0, 1, 1)), ("fire", (1, 1, 0))]
    assert list(shares("detector").items()) == [("", (0, 0, 1)), ("v1", (0, 2, 0)), ("v2", (1, 0, 0))]


@given(st.lists(st.tuples(st.sampled_from(sorted(MEANS)), st.sampled_from(["flag", "sample", "suppressed"]))))
def test_every_flag_is_counted_once(rows: Sequence[tuple[str, str]]) -> None:
    verdicts = [said(verdict, asked=asked) for verdict, asked in rows]

    found = precision(verdicts)

    total = sum(one.anomalies + one.false_alarms + one.clouds + one.bad for one in found)
    assert total == sum(asked == "flag" for _, asked in rows)
    for one in found:
        assert math.isnan(one.share) or 0 <= one.low <= one.share <= one.high <= 1


def test_what_was_missed_is_estimated_by_the_tiles_that_each_one_stands_for() -> None:
    verdicts = [
        *sampled(1, 9, share=0.1),
        *sampled(1, 19, share=0.01),
        said("anomaly"),
        *sampled(5, 5, 1, "suppressed"),
    ]

    found = missed(verdicts)

    assert found is not None
    assert (found.asked, found.anomalies) == (30, 2)
    assert found.tiles == pytest.approx(10 * 10 + 20 * 100)
    assert found.estimate == pytest.approx(10 + 100)
    assert 0 < found.low < found.estimate < found.high <= found.tiles


def test_bad_data_say_nothing_of_what_was_missed() -> None:
    assert missed([said("bad data", asked="sample", share=0.1), said("anomaly")]) is None
    assert missed([*sampled(0, 3), said("bad data", asked="sample", share=0.01)]) == missed(sampled(0, 3))


def test_without_an_anomaly_in_the_sample_there_may_still_be_some() -> None:
    found = missed(sampled(0, 100, share=0.02))

    assert found is not None
    assert (found.estimate, found.low) == (0, 0)
    assert found.high == pytest.approx(50 * -math.log(0.025))


@pytest.mark.parametrize("anomalies", [1, 3, 20])
def test_with_one_share_the_interval_is_the_exact_one_of_a_poisson_number(anomalies: int) -> None:
    found = missed(sampled(anomalies, 1000, share=0.25))

    assert found is not None
    low, high = found.low * 0.25, found.high * 0.25
    assert poisson.sf(anomalies - 1, low) == pytest.approx(0.025)
    assert poisson.cdf(anomalies, high) == pytest.approx(0.025)


def test_the_interval_holds_what_was_missed_with_shares_of_all_sizes() -> None:
    draw = np.random.default_rng(0)
    held = []
    for _ in range(200):
        anomaly = draw.random(4000) < 0.02
        share = np.where(np.arange(4000) < 2000, 0.05, 0.2)
        drawn = draw.random(4000) < share
        words = np.where(anomaly, "anomaly", "false alarm")
        verdicts = [said(str(words[one]), asked="sample", share=float(share[one])) for one in np.flatnonzero(drawn)]
        found = missed(verdicts)
        assert found is not None
        held.append(found.low <= anomaly.sum() <= found.high)
    assert np.mean(held) >= 0.94


def test_no_more_are_missed_than_there_are() -> None:
    found = missed(sampled(3, 0, share=0.5))

    assert found is not None
    assert found.estimate == found.tiles == found.high == 6


def test_suppressed_flags_are_counted_like_those_below_the_threshold() -> None:
    assert wrongly_suppressed(sampled(2, 5, 0.5)) is None
    assert wrongly_suppressed(sampled(2, 5, 0.5, asked="suppressed")) == missed(sampled(2, 5, 0.5))


def test_recent_are_the_verdicts_of_the_last_days() -> None:
    verdicts = [said("anomaly", f"here/2024-01-{day:02d}T101112Z") for day in (1, 4, 5, 7, 8)]

    found = recent(verdicts, until=date(2024, 1, 7), days=3)

    assert [one.night.day for one in found] == [5, 7]

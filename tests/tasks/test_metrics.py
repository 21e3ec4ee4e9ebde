"""Metrics of detection are those of their definitions, and their intervals say what other groups could have given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics import (
    auroc,
    average_precision,
    bootstrap,
    bootstrap_mean,
    false_alarm_rate,
    fpr_at_recall,
    group_values,
    known,
    mean_over_groups,
    paired_bootstrap,
    paired_bootstrap_mean,
    precision,
    precision_recall,
    recall,
    roc,
)

TILES = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40)
METRICS = (average_precision, auroc, fpr_at_recall)


def columns(tiles: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, positives = zip(*tiles, strict=True)
    return np.array(scores, dtype=float), np.array(positives)


def some_tiles(groups: int, each: int, gain: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, truth and group of tiles; each group has a level and a share of events of its own."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    positive = draw.random(groups * each) < draw.uniform(0.02, 0.2, groups)[group]
    level = draw.normal(0, 1, groups)[group]
    return draw.normal(0, 1, groups * each) + gain * positive + level, positive, group


@given(TILES)
def test_average_precision_is_the_sum_of_precision_times_gain_in_recall(tiles: list[tuple[int, bool]]) -> None:
    scores, positives = columns(tiles)
    found = average_precision(scores, positives)

    if positives.all() or not positives.any():
        assert math.isnan(found)
        return
    expected, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        flagged = scores >= threshold
        now = positives[flagged].sum() / positives.sum()
        expected += positives[flagged].mean() * (now - before)
        before = now
    assert found == pytest.approx(expected)


@given(TILES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(tiles: list[tuple[int, bool]]) -> None:
    scores, positives = columns(tiles)
    found = auroc(scores, positives)

    pairs = [(a > b) + (a == b) / 2 for a in scores[positives] for b in scores[~positives]]
    assert math.isnan(found) if not pairs else found == pytest.approx(np.mean(pairs))


@given(TILES, st.floats(0.05, 1))
def test_fpr_at_recall_is_that_of_the_highest_threshold_that_finds_enough(
    tiles: list[tuple[int, bool]], least: float
) -> None:
    scores, positives = columns(tiles)
    found = fpr_at_recall(scores, positives, least)

    if positives.all() or not positives.any():
        assert math.isnan(found)
        return
    enough = [at for at in set(scores) if (scores[positives] >= at).mean() >= least]
    assert found == pytest.approx((scores[~positives] >= max(enough)).mean())


@given(TILES)
def test_a_metric_of_the_order_does_not_change_when_scores_are_stretched(tiles: list[tuple[int, bool]]) -> None:
    scores, positives = columns(tiles)

    for metric in METRICS:
        np.testing.assert_equal(metric(np.exp(scores), positives), metric(scores, positives))


def test_rows_without_score_or_truth_count_in_no_metric_and_can_be_counted() -> None:
    scores = np.array([3.0, 2.0, np.nan, 9.0, 1.0, np.inf])
    truth = np.array([1.0, 0.0, 1.0, np.nan, 0.0, 0.0])
    rows = known(scores, truth)

    assert rows.tolist() == [True, True, False, False, True, False]
    for metric in (*METRICS, precision, recall, false_alarm_rate):
        assert metric(scores, truth) == metric(scores[rows], truth[rows])


def test_scores_and_labels_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) scores and \(2,\) labels"):
        auroc([1, 2, 3], [0, 1])


def test_what_is_not_defined_is_nan() -> None:
    for metric in METRICS:
        assert math.isnan(metric([], []))
        assert math.isnan(metric([1, 2], [1, 1]))
        assert math.isnan(metric([1, 2], [0, 0]))
    assert math.isnan(precision([0, 0], [1, 0]))
    assert math.isnan(recall([1, 0], [0, 0]))
    assert math.isnan(false_alarm_rate([1, 0], [1, 1]))
    assert roc([1, 2], [1, 1])[0].size == 0
    assert precision_recall([1, 2], [0, 0])[0].size == 0


def test_curves_run_from_the_highest_threshold_to_the_lowest() -> None:
    scores, positives, _ = some_tiles(1, 200)
    false, true = roc(scores, positives)
    recalls, precisions = precision_recall(scores, positives)

    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert (np.diff(recalls) >= 0).all()
    assert (false[-1], true[-1], recalls[-1]) == (1, 1, 1)
    assert precisions[-1] == pytest.approx(positives.mean())
    assert np.trapezoid(true, false) == pytest.approx(auroc(scores, positives))


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_the_rows() -> None:
    scores, positives, groups = some_tiles(12, 50)
    order = np.random.default_rng(5).permutation(len(scores))

    first = bootstrap(average_precision, scores, positives, groups, 100, seed=3)
    assert bootstrap(average_precision, scores[order], positives[order], groups[order], 100, seed=3) == first
    assert bootstrap(average_precision, scores, positives, groups, 100, seed=4) != first
    assert first.low <= first.value <= first.high


def test_the_interval_is_that_of_drawing_whole_groups() -> None:
    scores, positives, groups = some_tiles(6, 40)
    found = bootstrap(auroc, scores, positives, groups, 50, seed=1)

    draw, drawn = np.random.default_rng(1), []
    for _ in range(50):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in draw.integers(0, 6, 6)])
        drawn.append(auroc(scores[rows], positives[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_an_interval_by_group_is_wider_than_one_that_takes_alike_tiles_for_independent() -> None:
    scores, positives, groups = some_tiles(20, 100)

    by_group = bootstrap(auroc, scores, positives, groups, 200)
    by_tile = bootstrap(auroc, scores, positives, np.arange(len(scores)), 200)
    assert by_group.high - by_group.low > 1.5 * (by_tile.high - by_tile.low)


def test_intervals_by_group_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = auroc(*some_tiles(4000, 30, seed=99)[:2])

    covered = 0
    for seed in range(60):
        found = bootstrap(auroc, *some_tiles(25, 30, seed=seed), repetitions=120, seed=seed)
        covered += found.low <= truth <= found.high
    assert covered >= 50, "of 60, 57 are expected; fewer than 50 have a chance of 1 in 100 at a coverage of 92 %"


def test_one_group_gives_no_interval_and_undefined_draws_are_told() -> None:
    one = bootstrap(auroc, [1, 2, 3], [0, 1, 1], ["here"] * 3)
    assert one.value == 1
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert not one.excludes_zero

    rare = bootstrap(auroc, [1, 2, 3, 4], [0, 0, 0, 1], ["a", "b", "c", "d"], 400)
    assert 0.3 < rare.defined < 0.8, "a draw without d has no positive: (3/4)^4 = 0.32 of them"


def test_a_paired_difference_is_narrower_than_the_intervals_it_is_made_of() -> None:
    scores, positives, groups = some_tiles(15, 60)
    worse = scores + np.random.default_rng(1).normal(0, 1.5, len(scores))

    difference = paired_bootstrap(auroc, scores, worse, positives, groups, 300)
    alone = bootstrap(auroc, scores, positives, groups, 300)
    assert difference.value == pytest.approx(auroc(scores, positives) - auroc(worse, positives))
    assert difference.excludes_zero
    assert difference.high - difference.low < alone.high - alone.low


def test_scores_do_not_differ_from_themselves_and_the_other_way_round_is_the_negative() -> None:
    scores, positives, groups = some_tiles(8, 40)
    worse = scores + np.random.default_rng(1).normal(0, 1, len(scores))

    same = paired_bootstrap(average_precision, scores, scores, positives, groups, 50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    forth = paired_bootstrap(average_precision, scores, worse, positives, groups, 50)
    back = paired_bootstrap(average_precision, worse, scores, positives, groups, 50)
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low))


def test_a_paired_difference_counts_only_tiles_that_have_both_scores() -> None:
    scores, positives, groups = some_tiles(8, 40)
    other = np.where(np.arange(len(scores)) % 3 == 0, np.nan, scores)

    assert paired_bootstrap(auroc, scores, other, positives, groups, 20).value == 0


def test_the_mean_over_groups_counts_each_group_the_same_and_leaves_out_those_without_a_number() -> None:
    scores = np.array([1.0, 2, 3, 1, 2, 5, 6])
    positives = np.array([0, 1, 0, 0, 1, 0, 0])
    groups = np.array(["a", "a", "a", "b", "b", "c", "c"])

    values = group_values(auroc, scores, positives, groups)
    assert values["a"] == 0.5
    assert values["b"] == 1
    assert math.isnan(values["c"])
    assert mean_over_groups(auroc, scores, positives, groups) == 0.75
    found = bootstrap_mean(auroc, scores, positives, groups, 200)
    assert (found.value, found.low, found.high, found.groups) == (0.75, 0.5, 1, 2)


def test_a_difference_of_means_over_groups_draws_groups_and_no_tiles() -> None:
    scores, positives, groups = some_tiles(10, 80)
    worse = scores + np.random.default_rng(1).normal(0, 0.7, len(scores))

    found = paired_bootstrap_mean(average_precision, scores, worse, positives, groups, 500)
    ours = np.array(list(group_values(average_precision, scores, positives, groups).values()))
    theirs = np.array(list(group_values(average_precision, worse, positives, groups).values()))
    assert found.value == pytest.approx((ours - theirs).mean())
    spread = (ours - theirs).std() / math.sqrt(10)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.2)

"""Precision, recall and AUROC are those that scikit-learn computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from tasks.evaluate import Detection, detection


@given(
    tiles=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), min_size=1, max_size=60),
)
def test_the_numbers_are_those_of_scikit_learn(tiles: list[tuple[int, bool, bool]]) -> None:
    score, flagged, positive = (np.array(column) for column in zip(*tiles, strict=True))

    found = detection(score.astype(float), flagged, positive.astype(float))

    assert (found.tiles, found.positives, found.flags) == (len(tiles), positive.sum(), flagged.sum())
    precision = precision_score(positive, flagged, zero_division=np.nan)
    recall = recall_score(positive, flagged, zero_division=np.nan)
    false_alarms = flagged[~positive].mean() if (~positive).any() else np.nan
    auroc = roc_auc_score(positive, score) if 0 < positive.sum() < len(positive) else np.nan
    pairs = [
        (found.precision, precision),
        (found.recall, recall),
        (found.false_alarm_rate, false_alarms),
        (found.auroc, auroc),
    ]
    for value, expected in pairs:
        assert (value is None) == np.isnan(expected)
        if value is not None:
            assert value == pytest.approx(expected)


def test_tiles_without_a_score_or_a_clear_truth_do_not_count() -> None:
    score = np.array([3.0, 2.0, np.nan, 9.0, 1.0])
    flagged = np.array([True, False, True, True, False])
    positive = np.array([1.0, 0.0, 1.0, np.nan, 0.0])

    assert detection(score, flagged, positive) == detection(score[[0, 1, 4]], flagged[[0, 1, 4]], positive[[0, 1, 4]])
    assert detection(score, flagged, positive).tiles == 3


def test_what_is_not_defined_is_none_and_not_zero() -> None:
    nothing = detection([], [], [])
    no_event = detection([1.0, 2.0], [False, False], [0.0, 0.0])
    only_events = detection([1.0, 2.0], [True, False], [1.0, 1.0])

    assert nothing == Detection(0, 0, 0, None, None, None, None)
    assert no_event == Detection(2, 0, 0, None, None, None, 0.0)
    assert only_events == Detection(2, 2, 1, 1.0, 0.5, None, None)

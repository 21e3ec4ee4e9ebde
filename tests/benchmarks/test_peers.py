"""The benchmark's own parts: what methods are given, the peers that are written here, and the counting of cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import leave_one_out, measure
from benchmarks.peers.linear import IRMAD, RX, ChangeVector, PatchPCA, methods
from benchmarks.problems.common import STRIDE, TILE, Method, Pair, Scaling, changed_share, injected_pair, place_tiles
from benchmarks.summaries import rows_of, widespread_rows

BANDS = ("B02", "B03", "B04")


def scene(name: str = "here", seed: int = 0, change: float = 0.2) -> Pair:
    """Two dates of smooth ground, the later one brighter, with a changed square in the middle."""
    draw = np.random.default_rng(seed)
    ground = draw.random((3, 12, 14)).repeat(8, axis=1).repeat(8, axis=2)
    before = (0.1 + 0.2 * ground + draw.normal(0, 0.004, ground.shape)).astype(np.float32)
    after = (1.2 * before + 0.01 + draw.normal(0, 0.004, ground.shape)).astype(np.float32)
    truth = np.zeros(before.shape[1:], bool)
    truth[32:64, 32:64] = True
    after[0, truth] += np.float32(change)
    valid = np.ones_like(truth)
    tiles = place_tiles(valid)
    positive = (changed_share(truth, valid, tiles) > 0.1).astype(float)
    return Pair(name, before, after, valid, BANDS, truth, tiles, positive, "square")


def test_a_map_is_pooled_over_the_valid_pixels_of_each_tile_alone() -> None:
    draw = np.random.default_rng(0)
    pair = replace(scene(), valid=draw.random((96, 112)) > 0.3)
    heatmap = draw.random((96, 112))
    heatmap[~pair.valid] = 1e9

    for percentile in (90.0, None):
        pooled = pair.pooled(heatmap, percentile)
        for found, (row, col) in zip(pooled, pair.tiles, strict=True):
            window = np.s_[row : row + TILE, col : col + TILE]
            pixels = heatmap[window][pair.valid[window]]
            expected = pixels.mean() if percentile is None else np.percentile(pixels, percentile)
            assert found == pytest.approx(expected, rel=1e-4)


def test_tiles_lie_at_every_stride_and_leave_out_what_is_mostly_masked() -> None:
    valid = np.ones((80, 96), bool)
    valid[:, :24] = False

    tiles = place_tiles(valid)

    assert set(tiles[:, 0]) == {0, STRIDE, 2 * STRIDE, 3 * STRIDE}
    assert set(tiles[:, 1]) == {16, 32, 48, 64}  # of the first column a quarter is left, of the second three quarters


def test_a_tile_with_a_little_of_an_injection_or_a_real_change_is_neither_positive_nor_negative() -> None:
    pair, mask = scene(), np.zeros((96, 112), bool)
    mask[0:32, 0:18] = True

    made = injected_pair(pair, pair.after, mask, "test")

    of = {tuple(tile): value for tile, value in zip(made.tiles.tolist(), made.positive, strict=True)}
    assert of[0, 0] == 1
    assert np.isnan(of[0, 16])  # 2 of 32 columns
    assert np.isnan(of[32, 48])  # the square that really changed
    assert of[0, 64] == 0


@given(
    gains=st.lists(st.floats(0.3, 3), min_size=3, max_size=3),
    offsets=st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3),
)
@settings(max_examples=10, deadline=None)
def test_ir_mad_does_not_see_another_radiometry_of_a_date(gains: list[float], offsets: list[float]) -> None:
    pair = scene()
    before, after = (image.astype(float).reshape(3, -1) for image in (pair.before, pair.after))
    changed = np.array(gains)[:, None] * before + np.array(offsets)[:, None]

    plain, other = (IRMAD()._statistic(one, after) for one in (before, changed))

    np.testing.assert_allclose(other, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", methods(True), ids=lambda method: method.name)
def test_every_peer_for_two_dates_ranks_an_obvious_change_above_chance_or_says_that_it_sees_one_date(
    method: Method,
) -> None:
    train = [scene(f"place {seed}", seed, change=0) for seed in (1, 2, 3)]
    pair = scene()

    method.fit(train)
    scores = method.score(pair)

    assert scores.shape == (len(pair.tiles),)
    assert np.isfinite(scores).all()
    full, none = scores[pair.positive == 1].max(), np.median(scores[pair.positive == 0])
    assert full > none or not method.uses_before


def test_alignment_takes_out_a_change_of_radiometry_and_leaves_the_event() -> None:
    pair = scene()
    plain, aligned = ChangeVector(False, 90.0), ChangeVector(True, 90.0)
    for method in (plain, aligned):
        method.fit([scene("elsewhere", 1, change=0)])

    def contrast(method: Method) -> float:
        scores = method.score(pair)
        return float(scores[pair.positive == 1].max() / np.median(scores[pair.positive == 0]))

    assert contrast(aligned) > 3 * contrast(plain)


def test_what_lies_beyond_the_last_whole_patch_is_scored_as_the_nearest_one() -> None:
    pair = scene()
    cut = replace(pair, after=pair.after[:, :-3, :-5], valid=pair.valid[:-3, :-5])
    cut = replace(cut, tiles=np.array([[61, 75]]))
    method = PatchPCA("after")
    method.fit([scene("elsewhere", 1)])

    assert np.isfinite(method.score(cut)).all()


def test_scaling_puts_the_outer_percentiles_at_one_and_bears_numbers_that_have_no_logarithm() -> None:
    pair = scene()
    scaling = Scaling.of([pair])
    scaled = scaling.apply(pair.after)
    assert np.percentile(np.concatenate([scaled, scaling.apply(pair.before)]), 99.5) == pytest.approx(1, abs=0.1)

    holes = pair.after.copy()
    holes[:, 0, 0], holes[:, 0, 1] = np.nan, -1
    assert np.isfinite(scaling.apply(holes)).all()


def test_no_place_is_ever_learned_from_and_scored_in_one_fold() -> None:
    pairs = [scene("a"), scene("b"), scene("c")]
    tests = [*pairs, replace(pairs[0], condition="turned")]

    folds = leave_one_out(pairs, tests)

    assert [[pair.name for pair in fold.train] for fold in folds] == [["b", "c"], ["a", "c"], ["a", "b"]]
    assert [[(pair.name, pair.condition) for pair in fold.test] for fold in folds] == [
        [("a", "square"), ("a", "turned")],
        [("b", "square")],
        [("c", "square")],
    ]


class Heavy(Method):
    """Holds 200 MB while it scores."""

    name, family = "heavy", "test"

    def score(self, pair: Pair) -> np.ndarray:
        return np.ones(25_000_000)[: len(pair.tiles)].copy()


class Broken(Method):
    """Cannot score."""

    name, family = "broken", "test"

    def fit(self, train: Sequence[Pair]) -> None:
        raise ValueError("no network today")

    def score(self, pair: Pair) -> np.ndarray:
        raise NotImplementedError


def test_cost_is_measured_a_method_at_a_time_and_a_broken_method_does_not_end_the_run() -> None:
    pairs = [scene("a"), scene("b", 1)]

    light, heavy, broken = measure([RX("after"), Heavy(), Broken()], leave_one_out(pairs, pairs))

    assert light.failed is None
    assert light.megabytes < 100 < 180 < heavy.megabytes < 300
    assert light.tiles == 2 * len(pairs[0].tiles)
    assert len(light.fit_seconds) == 2
    assert "no network today" in str(broken.failed)
    assert broken.scores == {}


def test_rows_hold_the_mean_of_the_places_and_how_far_the_default_is_ahead() -> None:
    pairs = [scene("a"), scene("b", 1), scene("c", 2)]
    turned = [replace(pair, condition=f"bare_soil {share}") for pair in pairs for share in ("0.05", "0.20")]
    aligned, plain = ChangeVector(True, 90.0), ChangeVector(False, None)
    measured = list(measure([aligned, plain], leave_one_out(pairs, [*pairs, *turned])))

    best, other = rows_of(measured, pairs, "square", aligned.name)

    assert best["ap"]["value"] == pytest.approx(np.mean([one["ap"] for one in best["by_city"].values()]), abs=1e-3)
    assert "ap_behind_default" not in best
    gap = best["ap"]["value"] - other["ap"]["value"]
    assert other["ap_behind_default"]["value"] == pytest.approx(gap, abs=1e-3)
    rows = widespread_rows(measured, turned)
    assert set(rows[0]["bare_soil"]) == {"0.05", "0.20"} == set(rows[0]["auroc"])

"""Per-region overlap is that of its definition, and comes out the same however a scene is cut into rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from tasks.regions import RegionCounter, RegionCounts, count_regions, pro, pro_bootstrap, pro_curve, pro_of, score_bins


def scene(seed: int, masked: float = 0.0, shape: tuple[int, int] = (40, 30)) -> tuple[np.ndarray, np.ndarray]:
    """A heatmap that is higher where there are events, and their mask: many odd shapes."""
    draw = np.random.default_rng(seed)
    mask = draw.random(shape) < 0.25
    heat = (draw.integers(1, 60, shape) / 16 + mask).astype(np.float32)  # far enough apart for bins of their own
    heat[draw.random(shape) < masked] = np.nan
    return heat, mask


def by_definition(heat: np.ndarray, mask: np.ndarray, limit: float = 0.3) -> float:
    """Bergmann et al. 2021, threshold by threshold."""
    regions, count = label(mask, np.ones((3, 3)))
    scored = np.isfinite(heat)
    false, overlap = [0.0], [0.0]
    for threshold in np.unique(heat[scored])[::-1]:
        above = scored & (heat >= threshold)
        shares = [
            above[inside].mean() for number in range(1, count + 1) if (inside := scored & (regions == number)).any()
        ]
        false.append(above[scored & ~mask].mean())
        overlap.append(float(np.mean(shares)))
    fine = np.union1d(np.linspace(0, limit, 200_001), [one for one in false if one <= limit])
    return float(np.trapezoid(np.interp(fine, *_steps(false, overlap)), fine) / limit)


def _steps(false: list[float], overlap: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of several points with one false-positive rate, all but the last are of no width."""
    last = np.append(np.diff(false) > 0, True)
    return np.array(false)[last], np.array(overlap)[last]


@pytest.mark.parametrize("masked", [0.0, 0.3])
@pytest.mark.parametrize("seed", [1, 2])
def test_pro_is_the_mean_overlap_integrated_up_to_a_false_positive_rate(seed: int, masked: float) -> None:
    heat, mask = scene(seed, masked)

    assert pro([heat], [mask]) == pytest.approx(by_definition(heat, mask), abs=2e-3)


@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=4, max_size=12))
def test_a_scene_read_some_rows_at_a_time_gives_the_same_counts(seed: int, heights: list[int]) -> None:
    heat, mask = scene(seed, 0.2)
    counter, top = RegionCounter(), 0
    for height in (*heights, 1000):
        counter.add(heat[top : top + height], mask[top : top + height]) if top < len(heat) else None
        top += height

    found, whole = counter.finish(), count_regions(heat, mask)
    assert found.regions == whole.regions == label(mask, np.ones((3, 3)))[1] - whole.unseen
    assert (found.unseen, found.region_pixels, found.masked_pixels) == (
        whole.unseen, whole.region_pixels, whole.masked_pixels,
    )  # fmt: skip
    np.testing.assert_array_equal(found.bins, whole.bins)
    np.testing.assert_allclose(found.normal, whole.normal)
    np.testing.assert_allclose(found.overlap, whole.overlap)


def test_a_perfect_heatmap_has_one_and_a_constant_one_half_of_the_limit() -> None:
    _, mask = scene(3)

    assert pro([mask.astype(np.float32)], [mask]) == pytest.approx(1)
    assert pro([np.ones(mask.shape, np.float32)], [mask]) == pytest.approx(0.15), "the diagonal, as of random flags"


def test_a_small_event_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[2:22, 2:22], mask[30:32, 30:32] = True, True
    heat = np.zeros((40, 40), dtype=np.float32)
    heat[2:22, 2:22] = 1

    halfway = 0.5 + 0.5 * 0.3  # overlap at the limit: all other pixels are tied, so they come in proportion
    assert pro([heat], [mask]) == pytest.approx((0.5 + halfway) / 2), "99 % of the pixels, but half of the events"


def test_pixels_without_a_score_are_left_out_and_told() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:6, 2:6], mask[10:14, 10:14] = True, True
    heat = mask.astype(np.float32)
    heat[2:6, 2:6] = np.nan
    heat[10:14, 10:12] = np.nan
    found = count_regions(heat, mask)

    assert (found.regions, found.unseen, found.region_pixels, found.masked_pixels) == (1, 1, 32, 24)
    assert pro_of(found) == pytest.approx(1), "what is left of the second event is found"


def test_pro_is_not_defined_without_an_event_or_without_anything_else() -> None:
    heat = np.ones((5, 5), dtype=np.float32)

    assert math.isnan(pro([], []))
    assert math.isnan(pro([heat], [np.zeros((5, 5), dtype=bool)]))
    assert math.isnan(pro([heat], [np.ones((5, 5), dtype=bool)]))
    assert math.isnan(pro([heat * np.nan], [np.eye(5, dtype=bool)]))
    assert RegionCounter().finish().regions == 0
    assert pro_curve(RegionCounts())[0].size == 0


def test_heatmap_and_mask_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4, 5\)"):
        count_regions(np.ones((4, 4), np.float32), np.ones((4, 5), bool))


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=50))
def test_bins_keep_the_order_of_scores_and_are_narrow(scores: list[float]) -> None:
    values = np.sort(np.array(scores, dtype=np.float32))
    bins = score_bins(values)

    assert (np.diff(bins) >= 0).all()
    together = np.diff(bins) == 0
    gaps = np.diff(values.astype(float))[together]
    assert (gaps <= np.abs(values[1:].astype(float))[together] / 256 + 1e-37).all()


def test_the_interval_of_pro_draws_scenes_and_of_a_difference_both_together() -> None:
    good = [count_regions(*scene(seed)) for seed in range(12)]
    worse = [count_regions(heat * 0 + np.roll(heat, 7, axis=1), mask) for heat, mask in map(scene, range(12))]

    found = pro_bootstrap(good, repetitions=100)
    difference = pro_bootstrap(good, worse, repetitions=100)
    assert found.value == pytest.approx(pro_of(RegionCounts.merged(good)))
    assert found.low < found.value < found.high
    assert found == pro_bootstrap(good, repetitions=100)
    assert difference.value == pytest.approx(found.value - pro_of(RegionCounts.merged(worse)))
    assert difference.low > 0
    assert math.isnan(pro_bootstrap(good[:1]).low)

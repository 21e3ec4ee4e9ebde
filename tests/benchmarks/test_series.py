"""The benchmark's series: what its methods may know, what they find, and how that is counted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.problems.romania import Altered, Event, Series, pooled, windows
from benchmarks.series_judging import calibrated, delay, judged, recall
from benchmarks.series_methods import Expected, agreed, median, nearest_season, regressed, whitened
from benchmarks.series_product import ALONE, DEFAULT, Product, past_of
from vae.errors import CalibrationError

BANDS = ("B02", "B03", "B04", "B08")
DATES, SIDE = 24, 64
NOW = DATES - 2


def made(seed: int = 0) -> Series:
    """Ground of four kinds with a season, seen in another light on every date, a fifth of it masked."""
    draw = np.random.default_rng(seed)
    days = np.datetime64("2017-01-05") + np.arange(DATES) * np.timedelta64(45, "D")
    season = np.cos((days - days[0]).astype(int) / 365.25 * 2 * np.pi)
    ground = draw.integers(0, 4, (SIDE // 4, SIDE // 4)).repeat(4, axis=0).repeat(4, axis=1)
    base, swing = draw.uniform(0.05, 0.3, (4, 4)), draw.uniform(-0.04, 0.04, (4, 4))
    truth = base[:, ground][None] + swing[:, ground][None] * season[:, None, None, None]
    light = draw.uniform(0.8, 1.2, (DATES, 4, 1, 1))
    values = (truth * light + draw.normal(0, 0.002, truth.shape)).astype(np.float32)
    values[:, :, :8, :40] = np.where(draw.random((DATES, 1, 1, 1)) < 0.5, np.nan, values[:, :, :8, :40])
    return Series(days, values, BANDS, 1e-4)


def changed(series: Series, dates: slice) -> Altered:
    """Bare ground in the middle on some dates."""
    values = series.values.copy()
    values[dates, :, 26:44, 26:44] *= np.array([1.5, 1.6, 1.8, 0.6], dtype=np.float32)[:, None, None]
    return Altered(Series(series.days, values, BANDS, 1e-4), (), dates.start, DATES - 1)


@pytest.fixture(scope="module")
def method() -> tuple[Expected, Series]:
    series, found = made(), Expected("regression", recent=4, seasonal=4)
    found.learn(series)
    return found, series


def test_scores_of_a_date_do_not_depend_on_later_dates(method) -> None:
    _, series = method
    later = changed(series, slice(NOW, DATES)).series

    one, other = (Expected("regression", recent=4, seasonal=4).learn(each) for each in (series, later))

    for name in one:
        np.testing.assert_array_equal(one[name][:NOW], other[name][:NOW])
        assert (one[name][NOW:] != other[name][NOW:]).any()


def test_a_copy_is_scored_as_if_it_were_learned_as_a_whole(method) -> None:
    expected, series = method
    copy = changed(series, slice(NOW, DATES))

    part = expected.scores(copy)

    whole = Expected("regression", recent=4, seasonal=4).learn(copy.series)
    for name in part:
        np.testing.assert_allclose(part[name], whole[name], rtol=1e-5)


def test_what_lasts_is_confirmed_on_its_second_date_and_what_passes_is_not(method) -> None:
    expected, series = method
    usual = expected.scores(changed(series, slice(DATES - 1, DATES - 1)))
    lasts = expected.scores(changed(series, slice(NOW, DATES)))
    passes = expected.scores(changed(series, slice(NOW, NOW + 1)))
    middle = 4  # of nine tiles: it holds all of the change, which fills a third of it

    def score(found, kind: str, date: int) -> float:
        return float(found[f"regression, {kind}"][date, middle])

    assert score(lasts, "tonight", NOW) == score(passes, "tonight", NOW) > 3 * score(usual, "tonight", NOW)
    assert score(lasts, "confirmed", NOW) < 2
    assert score(lasts, "confirmed", NOW + 1) > 3 * score(passes, "confirmed", NOW + 1)


def test_the_second_comparison_does_not_know_the_last_clear_date(method) -> None:
    expected, series = method
    logs = np.log(np.maximum(series.values, 0) + 0.02)
    other = logs.copy()
    other[NOW - 1, :, 20:30, 20:30] += 1

    one, two = (expected._left(series, each, NOW) for each in (logs, other))

    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.older, two.older)
    assert not np.array_equal(one.now, two.now, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 0.3))
def test_the_regression_does_not_learn_what_changed(seed: int, share: float) -> None:
    draw = np.random.default_rng(seed)
    regressors = draw.normal(size=(8, 60, 60)).astype(np.float32)
    image = np.tensordot(draw.normal(size=(4, 8)), regressors, axes=1).astype(np.float32)
    image += draw.normal(0, 0.05, image.shape).astype(np.float32)
    rows = int(60 * share)
    image[:, :rows] += 3

    left = regressed(regressors, image)

    assert np.abs(np.median(left[:, rows:])) < 0.05
    assert np.abs(left[:, rows:]).mean() < 0.08
    if rows:
        assert left[:, :rows].mean() > 2.5


def test_nothing_is_said_of_pixels_that_a_regressor_does_not_know() -> None:
    draw = np.random.default_rng(0)
    regressors, image = draw.normal(size=(4, 40, 40)).astype(np.float32), np.ones((4, 40, 40), dtype=np.float32)
    regressors[0, 3, 4] = image[2, 5, 6] = np.nan

    left = regressed(regressors, image)

    assert np.isnan(left[:, 3, 4]).all()
    assert np.isnan(left[:, 5, 6]).all()
    assert np.isfinite(left).sum() == 4 * (1600 - 2)
    assert np.isnan(regressed(regressors[:, :20, :20], image[:, :20, :20])).all()


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_two_agree_in_the_smaller_of_the_same_sign(one: float, other: float) -> None:
    found = float(agreed(np.float32([[[one]]]), np.float32([[[other]]]))[0, 0, 0])

    assert found == pytest.approx(float(agreed(np.float32([[[other]]]), np.float32([[[one]]]))[0, 0, 0]))
    assert abs(found) == pytest.approx(
        min(abs(np.float32(one)), abs(np.float32(other))) if one * other > 0 else 0, abs=1e-6
    )
    assert np.isnan(agreed(np.float32([[[one]]]), np.float32([[[np.nan]]]))).all()


def test_whitened_residuals_have_no_covariance_left_but_the_changed_ones_stand_out() -> None:
    draw = np.random.default_rng(1)
    left = np.einsum("ij,jhw->ihw", draw.normal(size=(4, 4)), draw.normal(size=(4, 80, 80))).astype(np.float32)
    event = left.copy()
    event[:, :20] += 20

    found, struck = (whitened(each) for each in (left, event))

    covariance = np.cov(found.reshape(4, -1))
    np.testing.assert_allclose(covariance / covariance.trace() * 4, np.eye(4), atol=0.1)
    assert np.sqrt(np.square(struck[:, :20]).mean()) > 3 * np.sqrt(np.square(struck[:, 20:]).mean())


def test_a_median_is_that_of_the_numbers() -> None:
    draw = np.random.default_rng(2)
    images = np.where(draw.random((7, 2, 20, 20)) < 0.3, np.nan, draw.random((7, 2, 20, 20))).astype(np.float32)
    images[:, :, 0, 0] = np.nan

    found = median(images)

    assert np.isnan(found[:, 0, 0]).all()
    np.testing.assert_allclose(found[:, 1:], np.nanmedian(images[:, :, 1:], axis=0), rtol=1e-6)


def test_the_season_is_that_of_earlier_years() -> None:
    series = made()
    chosen = nearest_season(series, NOW, range(NOW), 2)

    ages = [(series.days[NOW] - series.days[one]).astype(int) / 365.25 for one in chosen]
    assert all(age > 0.5 and abs(age - round(age)) < 0.07 for age in ages)


def test_a_pooled_percentile_needs_half_of_the_tile() -> None:
    heatmap = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    heatmap[:17, :32] = np.nan

    found = pooled(heatmap)

    assert np.isnan(found[0])
    assert found[-1] == pytest.approx(np.percentile(windows(heatmap)[-1], 90, method="lower"))


def test_exchangeable_nights_are_flagged_as_often_as_nominal_by_the_later_half_of_the_dates() -> None:
    rates = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        scores = np.exp(draw.normal(size=(220, 25)) + draw.normal(size=(220, 1)) * 3 + 0.1 * draw.normal(size=25))
        scores[draw.random(scores.shape) < 0.2] = np.nan
        found = [judged(scores[100:], calibrated(scores, np.arange(100), rate)) for rate in (0.01, 0.05)]
        rates.append([one.flags.sum() / np.isfinite(one.relative).sum() for one in found])

    assert np.mean(rates, axis=0) == pytest.approx([0.01, 0.05], rel=0.2)


def test_too_few_dates_are_not_calibrated_on() -> None:
    with pytest.raises(CalibrationError, match="tiles"):
        calibrated(np.ones((4, 25)), np.arange(4), 0.01)


def test_a_night_with_few_tiles_is_not_judged() -> None:
    scores = np.random.default_rng(0).uniform(1, 2, (60, 25))
    scores[50, 4:] = np.nan

    found = judged(scores, calibrated(scores, np.arange(40), 0.05))

    assert np.isnan(found.relative[50]).all()
    assert np.isfinite(found.relative[51]).all()


@pytest.fixture(scope="module")
def product() -> tuple[Product, Series, Mapping[str, np.ndarray]]:
    series, found = made(), Product()
    return found, series, found.learn(series)


def test_the_product_finds_on_its_second_date_what_lasts(product) -> None:
    found, series, usual = product
    copy = changed(series, slice(NOW, DATES))
    event = Event("burn", NOW, 324, np.array([4]), np.array([NOW, NOW + 1]))

    scores = found.scores(Altered(copy.series, (event,), NOW, NOW + 1))

    assert scores[DEFAULT][NOW + 1, 4] > 3 * np.nanmax(usual[DEFAULT][NOW + 1])
    assert scores[DEFAULT][NOW, 4] < 0.5 * scores[DEFAULT][NOW + 1, 4]
    assert scores[ALONE][NOW, 4] > 3 * np.nanmax(usual[ALONE][NOW])
    np.testing.assert_array_equal(scores[DEFAULT][:NOW], usual[DEFAULT][:NOW])


def test_what_the_product_expects_does_not_depend_on_the_date_itself_or_later_ones_elsewhere(product) -> None:
    _, series, _ = product
    later = changed(series, slice(NOW + 1, DATES)).series

    one, other = (past_of(each, NOW) for each in (series, later))

    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.values, other.values)
    assert one.witness is not None


def test_delay_counts_clear_dates_and_recall_the_events_found_by_then() -> None:
    flags = np.zeros((10, 4), dtype=bool)
    flags[6, 2] = flags[2, 0] = True
    near, far = (Event("burn", 4, 300, np.array(tiles), np.array([4, 6, 7, 8, 9])) for tiles in ([1, 2], [3]))
    copy = Altered(made(), (near, far), 4, 9)

    found = recall([flags], np.zeros_like(flags), [copy])["strong"]

    assert delay(near, flags) == 2
    assert delay(far, flags) == np.inf
    assert [found[f"within_{dates}"]["value"] for dates in (1, 3, 5)] == [0, 0.5, 0.5]
    assert found["by_chance_within_3"] == 0

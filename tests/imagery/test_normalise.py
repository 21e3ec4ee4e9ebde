"""The limits of a band follow from the statistics of the training scenes."""

from __future__ import annotations

import numpy as np
import pytest

from configs.schema import NormaliseSettings
from imagery.errors import ImageryError
from imagery.normalise import band_limits
from imagery.statistics import BandStats

VALUES = np.random.default_rng(0).gamma(2, 0.1, 20_000)


def test_percentiles_are_those_of_the_pixels() -> None:
    (low, high) = band_limits({"B02": BandStats.of(VALUES)}, NormaliseSettings(percentiles=(1, 99)))["B02"]

    assert low == pytest.approx(np.percentile(VALUES, 1, method="lower"), rel=0.00501)
    assert high == pytest.approx(np.percentile(VALUES, 99, method="lower"), rel=0.00501)


def test_mean_and_spread_are_those_of_the_pixels() -> None:
    (low, high) = band_limits({"B02": BandStats.of(VALUES)}, NormaliseSettings(method="standard"))["B02"]

    assert (low, high) == pytest.approx((VALUES.mean() - 2 * VALUES.std(), VALUES.mean() + 2 * VALUES.std()))


def test_a_fixed_range_asks_no_pixel() -> None:
    limits = band_limits(
        {"B02": BandStats.of(VALUES), "B03": BandStats.of([5.0])}, NormaliseSettings(method="range", range=(0, 0.5))
    )

    assert limits == {"B02": (0, 0.5), "B03": (0, 0.5)}


def test_a_band_without_a_pixel_is_named() -> None:
    with pytest.raises(ImageryError, match="B03 has no usable pixel"):
        band_limits({"B02": BandStats.of(VALUES), "B03": BandStats()}, NormaliseSettings())


@pytest.mark.parametrize("method", ["percentile", "standard"])
def test_a_constant_band_is_named_with_what_to_do(method) -> None:
    with pytest.raises(ImageryError, match=r"B03 is constant.*source\.scale"):
        band_limits(
            {"B02": BandStats.of(VALUES), "B03": BandStats.of(np.full(9, 0.3))}, NormaliseSettings(method=method)
        )


def test_limits_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the range 1 … 0 is empty"):
        NormaliseSettings(method="range", range=(1, 0))
    with pytest.raises(ValueError, match=r"the percentiles 99 and 1 are not in order"):
        NormaliseSettings(percentiles=(99, 1))
